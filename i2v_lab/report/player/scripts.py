"""The plain scripts of clips, for a page: see `i2v_lab.run.script`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from i2v_lab.errors import I2VLabError
from i2v_lab.models.stock.families import FAMILIES
from i2v_lab.report.player.grid import GridCell, text_of


def add_scripts(data: dict[str, Any], cells: Sequence[GridCell]) -> None:
    """Give each cell of what player.js mounts its script, where its clip has one.

    Scripts of a sweep have most of their lines in common: `data["lines"]` holds each line once, and `code` of a cell the numbers
    of its lines.
    """
    numbers: dict[str, int] = {}
    for cell, shown in zip(cells, data["cells"], strict=True):
        if script := _script(cell):
            shown["code"] = [numbers.setdefault(line, len(numbers)) for line in script.splitlines()]
    if numbers:
        data["lines"] = list(numbers)


def _script(cell: GridCell) -> str:
    """ "" where there is none: a model of i2v_lab itself, or a clip, a picture or a checkpoint that is not here any more."""
    if not cell.clip or text_of(cell.run.get("model_name")) not in ("i2vgen-xl", *FAMILIES):
        return ""
    from i2v_lab.run import restore
    from i2v_lab.run.script import script_for

    clip, image, model = Path(cell.clip), text_of(cell.run.get("image")) or None, text_of(cell.run.get("model")) or None
    try:
        return script_for(*restore(clip, None, image, model), name=clip.name, to_send=True).text
    except (I2VLabError, OSError):
        return ""
