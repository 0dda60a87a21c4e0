"""What a stock pipeline consists of, as plain JSON: of a loaded model, of a checkpoint that is here, or as published.

A spec is {"pipeline": class in diffusers, "options": {...}, "parts": {component: {"class": [library, class], "config": {...}}},
"float32": [...], "denoisers": [...], "needs": [...], "arguments": {...}}. `arguments` are for the pipeline, where a stand-in for the
tokenizer needs others.

Published configs are in configs/: a file for each family, and one for each component that several have. They are those that diffusers'
scripts of conversion write; what is of another origin says so under "source".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2v_lab.errors import ModelError
from i2v_lab.models.checkpoint import SMALL, components, read_json
from i2v_lab.models.stock.families import Family

CONFIGS = Path(__file__).with_name("configs")

Spec = Mapping[str, Any]


def find_spec(family: Family, checkpoint: str, loaded: Any = None) -> Spec:
    """The spec that counts: of the loaded model, of the checkpoint if it is here, otherwise as published.

    Raises:
        ModelError: a file of the checkpoint is missing or damaged, or there are no published configs of the family.
    """
    if loaded is not None:
        options, parts = _of_pipeline(loaded.pipe)
    elif folder := _here(checkpoint):
        options, parts = _of_folder(folder)
    else:
        return whole(family, **published(family.name))
    return whole(family, options, parts)


def whole(family: Family, options: Any, parts: Any, arguments: Any = None, source: str = "") -> Spec:
    """A spec out of what a family always has, and of these configs."""
    return {
        "pipeline": family.pipeline, "options": options, "parts": parts, "float32": sorted(family.float32),
        "denoisers": list(family.denoisers), "needs": list(family.needs), "arguments": arguments or {},
    }  # fmt: skip


@functools.cache
def published(name: str) -> Mapping[str, Any]:
    """{"options", "parts", "arguments", "source"} of a family's published checkpoint; ModelError where none are known."""
    place = CONFIGS / f"{name}.json"
    if not place.is_file():
        raise ModelError(
            f"{name}: its configs are not known here, so its memory cannot be predicted; fetch its checkpoint (i2v-lab models)"
        )
    found = json.loads(place.read_text("utf-8"))
    parts = {part: _shared(entry) if isinstance(entry, str) else entry for part, entry in found["parts"].items()}
    return {"options": {}, "arguments": {}, **found, "parts": parts}


def _shared(name: str) -> Any:
    return json.loads((CONFIGS / "parts" / f"{name}.json").read_text("utf-8"))


def _here(checkpoint: str) -> Path | None:
    """The folder of a checkpoint whose configs are on this machine."""
    if not checkpoint:
        return None
    if (folder := Path(checkpoint).expanduser()).is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(checkpoint, "model_index.json")
    folder = Path(index).parent if isinstance(index, str) else folder
    return folder if folder.is_dir() and any(folder.glob("*/config.json")) else None


def _of_folder(folder: Path) -> tuple[Any, Any]:
    index = read_json(folder / "model_index.json")
    parts = {}
    for name, where in components(index).items():
        config = {} if name.startswith("tokenizer") else read_json(folder / name / SMALL.get(name, "config.json"))
        parts[name] = {"class": list(where), "config": config}
    return _options(index), parts


def _of_pipeline(pipe: Any) -> tuple[Any, Any]:
    parts = {}
    for name, part in pipe.components.items():
        if part is not None:
            kind = type(part)
            config = {} if name.startswith("tokenizer") else _config(part)
            parts[name] = {"class": [kind.__module__.partition(".")[0], kind.__name__], "config": config}
    return _options(pipe.config), parts


def _config(part: Any) -> dict[str, Any]:
    config = getattr(part, "config", part)  # a picture processor is its own
    found = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {key: value for key, value in found.items() if _plain(value)}


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:  # the dtype that a network was loaded in, for one
        return False
    return True


def _options(index: Mapping[str, Any]) -> dict[str, Any]:
    """What a model_index.json says besides components: arguments of the pipeline's constructor."""
    return {name: value for name, value in index.items() if not isinstance(value, (list, tuple)) and not name.startswith("_")}
