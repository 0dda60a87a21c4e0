"""The list of models: every family, the checkpoints of this machine, and what a model's own defaults are in the form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.cost import fits_on
from i2v_lab.errors import I2VLabError
from i2v_lab.models.base import VideoModel
from i2v_lab.settings import Settings
from i2v_lab.widgets.studio.strings import Strings

KEPT = ("model", "image", "prompt", "seed")  # what a user typed stays when the model changes


def choices(current: str, settings: Settings, strings: Strings, *, fits: bool = False) -> list[tuple[str, str]]:
    """(label, model) of every model that can be chosen, with the one that is chosen now.

    Args:
        fits: say in a label on which tier of the memory ladder the model's standard clip fits, where that was predicted before. The
            first time in a process this takes a second or two.
    """
    own = {*models.CHECKPOINTS.values(), *(str(models.CHECKPOINT_FOLDER / name) for name in models.LISTED)}
    here = [place for place in models.local_checkpoints() if place not in own]
    found = dict.fromkeys([*models.LISTED, *here, *([current] if current else [])])
    return [(_label(model, settings, strings, fits), model) for model in found]


def _label(model: str, settings: Settings, strings: Strings, fits: bool) -> str:
    name = Path(model).name if Path(model).is_dir() else model
    if not fits:
        return name
    try:
        tier = fits_on(model, device=settings.device, known=True)
    except I2VLabError:
        return name
    return f"{name} · {strings('fits_nowhere') if tier is None else strings('fits_on').format(tier=tier)}"


def kind_of(model: str) -> type[VideoModel] | None:
    """The family of a model; None where there is no such model."""
    try:
        return models.find(model)[0]
    except I2VLabError:
        return None


def standard(kind: type[VideoModel]) -> dict[str, Any]:
    """All fields but those that are KEPT, as the family has them by default; None where it has none."""
    plain = ClipParams(image="none").model_dump(mode="json")
    return {name: value for name, value in {**plain, **kind.presets.get("standard", {})}.items() if name not in KEPT}
