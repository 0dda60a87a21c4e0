"""`backend: openvino` for a clip: which networks of a family are converted, and what int8 is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch

from i2v_lab.clip.params import OPTIONAL, ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.errors import UnsupportedParams
from i2v_lab.models.levers import in_place
from i2v_lab.models.openvino.library import device_of
from i2v_lab.models.openvino.runner import Conversions, StandIn, recorded
from i2v_lab.models.sampling import calls_of

DENOISERS = ("unet", "transformer", "transformer_2")
DECODERS = ("AutoencoderKL", "AutoencoderKLTemporalDecoder")
"""VAEs whose decoder is a function of its tensors. That of Wan keeps frames in Python lists, that of LTX-Video draws noise."""
CALIBRATION: Mapping[str, Any] = {
    "image": "sample:coffee", "prompt": "the camera moves slowly to the left", "seed": 0, "num_inference_steps": 6,
}  # fmt: skip
"""The run that int8 is calibrated on, whatever the clip is: so the same settings always give the same network."""


class Generate(Protocol):
    """A model's own way to make frames, by torch."""

    def __call__(self, image: Picture, params: ClipParams, progress: Progress) -> Any: ...


def parts(networks: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Module]:
    """Of a family's networks those that are converted: {name: network}, those that denoise first."""
    found = {name: networks[name] for name in DENOISERS if name in networks}
    vae = networks.get("vae")
    if type(vae).__name__ in DECODERS:
        found["vae_decoder"] = vae.decoder  # type: ignore[union-attr, assignment]
    return found


def check(params: ClipParams, device: str, dtype: str) -> None:
    """Raise UnsupportedParams where a clip's other settings do not go with OpenVINO."""
    if device != "cpu":
        raise UnsupportedParams(f"backend: {params.backend} takes the weights from the CPU, got device {device}; use --device cpu")
    if dtype != "float32":
        raise UnsupportedParams(f"dtype: with backend {params.backend} it is float32 or, by quantization, int8, got {dtype}; nearest: float32")


@contextmanager
def on_openvino(
    networks: Mapping[str, torch.nn.Module], params: ClipParams, progress: Progress, *, decides: Any, standard: Mapping[str, Any],
    generate: Generate,
) -> Iterator[None]:  # fmt: skip
    """The networks of a family, computed by OpenVINO inside the block.

    Args:
        networks: {component: network}.
        params: resolved.
        progress: receives the stages "calibrate" and "convert" where something is not kept yet.
        decides: what tells the weights of the networks from others: a fingerprint, LoRAs.
        standard: the family's preset.
        generate: for calibration.

    Raises:
        ModelError: OpenVINO or NNCF is not installed, or cannot convert a network. UnsupportedParams: no such device.
    """
    converted = parts(networks)
    int8 = params.quantization == "int8"
    kept = Conversions([decides, params.height, params.width, params.num_frames], int8, device_of(str(params.backend)))
    if int8 and not kept.has_inputs:
        calibrate({name: network for name, network in converted.items() if name in DENOISERS}, params, progress, kept, standard, generate)
    with ExitStack() as stack:
        for name, network in converted.items():
            denoises = name in DENOISERS
            stage = ("denoise", calls_of(params)) if denoises else ("decode", params.num_frames)
            work = StandIn(name, network, kept, quantised=denoises, rows=denoises, progress=progress, stage=stage)
            stack.enter_context(in_place(network, work))
        yield


def calibrate(
    networks: Mapping[str, torch.nn.Module], params: ClipParams, progress: Progress, kept: Conversions, standard: Mapping[str, Any],
    generate: Generate,
) -> None:  # fmt: skip
    """Keep what the networks are given in a short run of the model."""
    fields = {name: ClipParams.model_fields[name].default for name in (*OPTIONAL, "guidance_scale", "scheduler") if name != "lora"}
    size = {"resolution": params.resolution, "num_frames": params.num_frames}
    run = params.replace(**{**fields, **standard, **CALIBRATION, **size})
    progress.stage("calibrate", calls_of(run))
    with recorded(networks) as calls:
        generate(open_picture(run.image), run, _Rehearsal(progress))
    kept.keep_inputs({name: [call.arrays() for call in recorder.calls] for name, recorder in calls.items()})


class _Rehearsal(Progress):
    """Passes on the denoising steps of a run within a run, and lets a listener stop it."""

    def __init__(self, outer: Progress) -> None:
        self.outer, self.denoises = outer, False

    def stage(self, name: str, total: int | None = None) -> None:
        self.denoises = name == "denoise"
        self.outer.pulse()

    def step(self, preview: Preview | None = None) -> None:
        (self.outer.step if self.denoises else self.outer.pulse)()

    def pulse(self) -> None:
        self.outer.pulse()
