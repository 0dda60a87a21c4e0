"""The components of a checkpoint, and the pipeline that the family's table names, made of them."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import torch

from i2v_lab.clip.progress import Progress
from i2v_lab.errors import ModelError
from i2v_lab.models.checkpoint import Checkpoint, components, load_component, one_line, quiet_libraries, read_json
from i2v_lab.models.quantize import quantize
from i2v_lab.models.sampling import import_networks, numpy_quiet
from i2v_lab.models.stock.families import Family

LIBRARIES = ("diffusers", "transformers")


def load_pipeline(
    checkpoint: Checkpoint, family: Family, dtype: torch.dtype, device: torch.device, progress: Progress, quantization: str = "none"
) -> Any:
    """The family's pipeline with the components of a checkpoint.

    Args:
        device: where the weights go. progress: receives a step for each component with weights.
        quantization: of the networks that denoise; see models/quantize.py.

    Raises:
        ModelError: a component that is missing, damaged or of an unknown class.
    """
    diffusers = import_networks()
    if absent := [module for module in family.needs if importlib.util.find_spec(module) is None]:
        raise ModelError(f"{family.name} needs {', '.join(absent)}: pip install 'i2v_lab[families]'")
    place = checkpoint.folder / "model_index.json"
    index = read_json(place)
    with quiet_libraries():  # its module remarks on what is not installed
        kind = getattr(diffusers, family.pipeline)
    parts: dict[str, Any] = {}
    for name, (library, class_name) in components(index).items():
        if name in checkpoint.variants:
            number = torch.float32 if name in family.float32 else dtype
            network = load_component(find_class(place, library, class_name), checkpoint, name, dtype=number)
            quantize(network, quantization if name in family.denoisers else "none")
            parts[name] = network.to(device)
            progress.step()
        else:
            parts[name] = _small(checkpoint, name, library, class_name)
    known = inspect.signature(kind.__init__).parameters
    options = {name: value for name, value in index.items() if name in known and name not in parts and not isinstance(value, list)}
    missing = [name for name, one in known.items() if one.default is one.empty and name not in ("self", *parts, *options)]
    if missing:
        raise ModelError(f"{place}: expected the components of {family.pipeline}, but {missing[0]} is "
                         "missing; fetch the checkpoint again")  # fmt: skip
    with quiet_libraries():
        pipe = kind(**{name: part for name, part in parts.items() if name in known}, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def find_class(index: Path, library: str, name: str) -> Any:
    """A class that a model_index.json names: of diffusers or transformers alone, no code of the checkpoint's own is run."""
    if library not in LIBRARIES:  # diffusers names the module of a pipeline, such as "ltx2", for classes of its own
        library = f"diffusers.pipelines.{library}"
    if name in ("CLIPImageProcessor", "SiglipImageProcessor"):
        name += "Pil"  # the other one needs torchvision
    try:
        return getattr(importlib.import_module(library), name.replace("Fast", "") if name.startswith("T5Tok") else name)
    except (ImportError, AttributeError):
        raise ModelError(
            f"{index}: expected classes of diffusers and transformers, got {library}.{name}; "
            "choose another checkpoint, or a newer version of these packages"
        ) from None


def _small(checkpoint: Checkpoint, name: str, library: str, class_name: str) -> Any:
    """A tokenizer, scheduler or picture processor."""
    kind = find_class(checkpoint.folder / "model_index.json", library, class_name)
    try:
        with quiet_libraries(), numpy_quiet():
            return kind.from_pretrained(checkpoint.folder / name, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises plain Exception
        raise ModelError(f"{checkpoint.folder / name}: cannot be read ({one_line(error)}); fetch it again") from None
