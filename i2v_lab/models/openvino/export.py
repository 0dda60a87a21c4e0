"""A model's networks written to a folder, for other programs: ONNX, or OpenVINO's own format, with a manifest of what each takes."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from i2v_lab.clip.levers import BACKENDS
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import InputError, ModelError
from i2v_lab.models import registry
from i2v_lab.models.checkpoint import one_line
from i2v_lab.models.openvino.convert import WHOLE, Call, convert, traceable
from i2v_lab.models.openvino.library import import_quiet, quiet, versions
from i2v_lab.models.openvino.runner import recorded
from i2v_lab.models.openvino.way import CALIBRATION, parts
from i2v_lab.models.resolve import resolve
from i2v_lab.portable import replace

FORMATS = ("onnx", "openvino")
OPSET = 18  # of ONNX; TensorRT 10 reads it
BOUND = 1e-3
"""The root mean square of what an exported network gives less what torch gives, over that of torch, at most."""
PACKAGES = ("i2v_lab", "torch", "diffusers", "onnx", "onnxruntime", "openvino")


def export_model(
    model: str, to: str, folder: Path, resolution: str | None, num_frames: int | None, progress: Progress
) -> dict[str, Any]:
    """Write the network that denoises, and the VAE's decoder, at one shape, and compare each with torch.

    Args:
        model: as in ClipParams. to: one of FORMATS.
        folder: must not exist, or be empty. It gets its name when all is written.
        resolution, num_frames: None: the family's own.
        progress: receives the stages of a clip of two steps, then "convert".

    Returns:
        The manifest, as it is in manifest.json.

    Raises:
        InputError: the folder is in use, or the family cannot. ModelError: a package is missing, a network cannot be exported, or
            gives other numbers.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: expected a folder that is empty or new, got one with files in it; choose another")
    handle = registry.open(model, "cpu", "float32")
    if not set(BACKENDS) & set(handle.family.levers.get("backend", ())):
        raise InputError(f"export: {handle.family.name} cannot be exported; choose i2vgen-xl, svd, wan or ltx-video")
    for name in {"openvino": ("openvino",), "onnx": ("onnx", "onnxscript", "onnxruntime")}[to]:
        import_quiet(name, "export", "i2v_lab[export]" if to == "onnx" else "i2v_lab[intel]")
    size = {"resolution": resolution, "num_frames": num_frames}
    asked = ClipParams(
        model=model, **{**CALIBRATION, "num_inference_steps": 2}, **{name: value for name, value in size.items() if value}
    )
    picture = open_picture(asked.image)
    params = resolve(asked, lambda: picture, handle.family)
    handle.check(params)
    loaded: Any = handle.load(progress)
    networks = parts(loaded.components)
    with recorded(networks) as calls:
        loaded.generate(picture, params, progress)
    progress.stage("convert", len(networks))
    part = folder.absolute().parent / f".{folder.name}-{secrets.token_hex(4)}.part"
    part.mkdir(parents=True)
    try:
        found = {}
        for name, network in networks.items():
            found[name] = _write(network, calls[name], part / name, to)
            progress.step()
        manifest = {
            "model": loaded.name, "fingerprint": loaded.fingerprint, "format": to, "height": params.height, "width": params.width,
            "num_frames": params.num_frames, "networks": found, "bound": BOUND, "versions": versions(*PACKAGES),
        }  # fmt: skip
        (part / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        if folder.is_dir():
            folder.rmdir()
        replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _write(network: torch.nn.Module, calls: Sequence[Call], place: Path, to: str) -> dict[str, Any]:
    """Write a network into a folder, and compare it with torch on another call than the one that is traced."""
    place.mkdir()
    call = calls[0]
    if to == "openvino":
        about = convert(network, network.forward, WHOLE, call, None, place) | {"file": f"{place.name}/model.xml"}
    else:
        about = _write_onnx(network, call, place) | {"file": f"{place.name}/model.onnx"}
    return about | {"error": _compare(network, calls[-1], place, to)}


def _write_onnx(network: torch.nn.Module, call: Call, place: Path) -> dict[str, Any]:
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
    return {"network": type(network).__name__, "inputs": call.shapes(), "opset": OPSET}


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


def _compare(network: torch.nn.Module, call: Call, place: Path, to: str) -> float:
    """The relative error of a network that was written."""
    with torch.no_grad():
        wanted = traceable(network, network.forward, WHOLE, call)(*call.tensors.values())[0].numpy()
    made = opened(place, to)(call.arrays())
    error = float(np.sqrt(np.mean((made - wanted) ** 2) / np.mean(wanted**2)))
    if not error <= BOUND:
        raise ModelError(
            f"export: the {place.name} as {to} is {error:.1e} away from torch, and {BOUND:g} is allowed; try the other format"
        )
    return error
