"""A model's networks written to a folder, for other programs: ONNX, or OpenVINO's own format, with a manifest of what each takes."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import InputError, ModelError
from i2v_lab.models.checkpoint import one_line
from i2v_lab.models.openvino.convert import WHOLE, Call, convert, traceable
from i2v_lab.models.openvino.library import import_quiet, quiet
from i2v_lab.models.openvino.runner import recorded, versions
from i2v_lab.models.openvino.way import parts
from i2v_lab.portable import replace

FORMATS = ("onnx", "openvino")
OPSET = 18  # of ONNX; TensorRT 10 reads it
BOUND = 1e-3
"""The root mean square of what an exported network gives less what torch gives, over that of torch, at most."""
PACKAGES = ("i2v_lab", "torch", "diffusers", "onnx", "onnxruntime", "openvino")

Write = Callable[[torch.nn.Module, Call, Path], Mapping[str, Any]]


class Exportable(Protocol):
    """What of a loaded model is used here."""

    name: str
    fingerprint: str

    @property
    def components(self) -> Mapping[str, torch.nn.Module]: ...
    def generate(self, image: Any, params: ClipParams, progress: Progress) -> Any: ...


def export(model: Exportable, params: ClipParams, to: str, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the network that denoises, and the VAE's decoder, at one shape, and compare each with torch.

    Args:
        model: in float32, on the CPU. params: resolved; of two or more steps. to: one of FORMATS.
        folder: must not exist, or be empty. It gets its name when all is written.
        progress: receives the stages of a short clip, then "convert".

    Returns:
        The manifest, as it is in manifest.json.

    Raises:
        InputError: the folder is in use. ModelError: a package is missing, a network cannot be exported, or gives other numbers.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: expected a folder that is empty or new, got one with files in it; choose another")
    write = {"onnx": _write_onnx, "openvino": _write_openvino}[to]
    _import_all(to)
    networks = parts(model.components)
    with recorded(networks) as calls:
        model.generate(open_picture(params.image), params, progress)
    progress.stage("convert", len(networks))
    part = folder.absolute().parent / f".{folder.name}-{secrets.token_hex(4)}.part"
    part.mkdir(parents=True)
    try:
        found = {}
        for name, network in networks.items():
            found[name] = dict(write(network, calls[name].calls[0], part / name)) | {
                "error": _compare(network, calls[name].calls, part / name, to)
            }
            progress.step()
        manifest = {
            "model": model.name, "fingerprint": model.fingerprint, "format": to, "height": params.height, "width": params.width,
            "num_frames": params.num_frames, "networks": found, "bound": BOUND, "versions": versions(*PACKAGES),
        }  # fmt: skip
        (part / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        if folder.is_dir():
            folder.rmdir()
        replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _import_all(to: str) -> None:
    if to == "openvino":
        import_quiet("openvino")
        return
    for name in ("onnx", "onnxscript", "onnxruntime"):
        import_quiet(name, "export", "i2v_lab[export]")


def _about(network: torch.nn.Module, call: Call) -> dict[str, Any]:
    shapes = {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in call.tensors.items()}
    return {"network": type(network).__name__, "inputs": shapes}


def _write_openvino(network: torch.nn.Module, call: Call, place: Path) -> Mapping[str, Any]:
    place.mkdir()
    convert(network, network.forward, WHOLE, call, None, place)
    return {"file": f"{place.name}/model.xml", **_about(network, call)}


def _write_onnx(network: torch.nn.Module, call: Call, place: Path) -> Mapping[str, Any]:
    place.mkdir()
    module = traceable(network, network.forward, WHOLE, call)
    try:
        with torch.no_grad(), quiet():
            torch.onnx.export(
                module, tuple(call.tensors.values()), place / "model.onnx", input_names=list(call.tensors), output_names=["output"],
                opset_version=OPSET, dynamo=True, external_data=True, verbose=False,
            )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - exporters raise many kinds
        raise ModelError(
            f"export: torch cannot export {type(network).__name__} to ONNX ({one_line(error, 150)}); use --to openvino"
        ) from None
    return {"file": f"{place.name}/model.onnx", "opset": OPSET, **_about(network, call)}


def opened(place: Path, to: str) -> Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[Any]]:
    """An exported network, as a function of its inputs by name."""
    if to == "openvino":
        compiled = (
            import_quiet("openvino").Core().compile_model(str(place / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        )
        return lambda given: np.array(compiled(dict(given))[0])
    import onnxruntime

    session = onnxruntime.InferenceSession(place / "model.onnx", providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}  # an input that changes nothing may be left out
    return lambda given: session.run(None, {name: value for name, value in given.items() if name in wanted})[0]


def _compare(network: torch.nn.Module, calls: Sequence[Call], place: Path, to: str) -> float:
    """The relative error on another call than the one that was traced."""
    work, call = opened(place, to), calls[-1]
    with torch.no_grad():
        (wanted, *_) = traceable(network, network.forward, WHOLE, call)(*call.tensors.values())
    made = work(call.arrays())
    error = float(np.sqrt(np.mean((made - wanted.numpy()) ** 2) / np.mean(wanted.numpy() ** 2)))
    if not error <= BOUND:
        raise ModelError(
            f"export: the {place.name} gives numbers {error:.1e} away from torch's, and {BOUND:g} is allowed; use backend torch"
        )
    return error
