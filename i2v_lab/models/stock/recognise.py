"""Which family a checkpoint is of, by its configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2v_lab.models.checkpoint import components, read_json
from i2v_lab.models.stock.families import FAMILIES


def recognise(folder: Path) -> list[str]:
    """The families that a checkpoint in a folder may be of, by its configs; the one with the most signs first.

    Checkpoints of one architecture, trained for other sizes, are told apart by the folder's name alone.
    """
    index = read_json(folder / "model_index.json")
    found: list[tuple[int, bool, str]] = []
    for family in FAMILIES.values():
        if index.get("_class_name") in (family.pipeline, *family.indexed) and all(
            _sign(folder, index, place) == value for place, value in family.signs.items()
        ):
            named = family.name.rpartition("-")[2].lower() in str(folder.name).lower()
            found.append((len(family.signs), named, family.name))
    return [name for *_, name in sorted(found, key=lambda item: item[:2], reverse=True)]


def _sign(folder: Path, index: Mapping[str, Any], place: str) -> Any:
    part, _, key = place.partition(".")
    if not key:
        return part in components(index) if isinstance(index.get(part), list) else index.get(part)
    return read_json(folder / part / "config.json").get(key) if part in components(index) else None
