"""`backend: openvino` for a clip: which networks of a family are converted, and what int8 is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch

from i2v_lab.clip.params import OPTIONAL, ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.models.kernels import DENOISERS
from i2v_lab.models.levers import in_place
from i2v_lab.models.openvino.library import check_here, device_of
from i2v_lab.models.openvino.runner import Conversions, StandIn, recorded
from i2v_lab.models.sampling import calls_of

DECODERS = ("AutoencoderKL", "AutoencoderKLTemporalDecoder")
"""VAEs whose decoder is a function of its tensors. That of Wan keeps frames in Python lists, that of LTX-Video draws noise."""
CALIBRATION: Mapping[str, Any] = {
    "image": "sample:coffee", "prompt": "the camera moves slowly to the left", "seed": 0, "num_inference_steps": 6,
}  # fmt: skip
"""The run that int8 is calibrated on, whatever the clip is: so the same settings always give the same network."""


class Computed(Protocol):
    """What of a loaded model a way reads.

    Attributes:
        fingerprint, device, dtype, presets, schedulers: see VideoModel.
        loras: those that are in its networks, by content; None: there are none.
    """

    fingerprint: str
    device: str
    dtype: str
    loras: str | None

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def schedulers(self) -> tuple[str, ...]: ...
    @property
    def components(self) -> Mapping[str, torch.nn.Module]:
        """{component: network}, all of the family's, with the names that its checkpoint has for them."""

    def make(self, image: Picture, params: ClipParams, progress: Progress) -> Any:
        """Frames, by the networks as they are; `generate` is this within `prepared`."""


def parts(networks: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Module]:
    """Of a family's networks those that are converted: {name: network}, those that denoise first."""
    found = {name: networks[name] for name in DENOISERS if name in networks}
    vae = networks.get("vae")
    if type(vae).__name__ in DECODERS:
        found["vae_decoder"] = vae.decoder  # type: ignore[union-attr, assignment]
    return found


@contextmanager
def on_openvino(model: Computed, params: ClipParams, progress: Progress) -> Iterator[None]:
    """The networks of a model, computed by OpenVINO inside the block.

    Args:
        params: resolved.
        progress: receives the stages "calibrate" and "convert" where something is not kept yet.

    Raises:
        ModelError: OpenVINO or NNCF is not installed, or cannot convert a network.
        UnsupportedParams: no such device; or the weights are not on the CPU.
    """
    check_here(params, model.device)
    networks, int8 = parts(model.components), params.quantization == "int8"
    decides = [model.fingerprint, model.loras, params.height, params.width, params.num_frames]
    device = device_of(str(params.backend))
    numbers = "bf16" if int8 else "f32"
    kept, plain = Conversions(decides, int8, device, numbers), Conversions(decides, False, device, numbers)
    if int8 and not kept.has_inputs:
        calibrate(model, {name: network for name, network in networks.items() if name in DENOISERS}, params, progress, kept)
    with ExitStack() as stack:
        for name, network in networks.items():
            denoises = name in DENOISERS
            stage = ("denoise", calls_of(params)) if denoises else ("decode", params.num_frames)
            work = StandIn(name, network, kept if denoises else plain, rows=denoises, progress=progress, stage=stage)
            stack.enter_context(in_place(network, work))
        yield


def calibrate(
    model: Computed, networks: Mapping[str, torch.nn.Module], params: ClipParams, progress: Progress, kept: Conversions
) -> None:
    """Keep what the networks are given in a short run of the model."""
    fields = {name: ClipParams.model_fields[name].default for name in (*OPTIONAL, "guidance_scale") if name != "lora"}
    size = {"resolution": params.resolution, "num_frames": params.num_frames, "scheduler": model.schedulers[0]}
    run = params.replace(**{**fields, **model.presets["standard"], **CALIBRATION, **size})
    progress.stage("calibrate", calls_of(run))
    with recorded(networks) as calls:
        model.make(open_picture(run.image), run, _Rehearsal(progress))
    kept.keep_inputs({name: [call.arrays() for call in given] for name, given in calls.items()})


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
