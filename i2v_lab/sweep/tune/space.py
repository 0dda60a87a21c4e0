"""The space of a tune: lists, and ranges to draw from (whole, continuous, logarithmic), all or some only with certain models."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError, short
from i2v_lab.sweep.axes import check_names, expand, is_number

Setting = dict[str, Any]
"""{field: value}: one point of the space."""

_DRAWN = re.compile(r"\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*\.\.\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s+(continuous|log|whole)\s*")
MOST_SETTINGS = 100_000


@dataclass(frozen=True)
class Axis:
    """One field of the space.

    Attributes:
        values: a list; empty for a range.
        labels: of the values, in words.
        low, high: of a range, both included. log: whether it is drawn evenly in its logarithm. whole: whether it is a whole number.
        models: with which models it is there; empty: with all.
    """

    field: str
    values: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    models: tuple[str, ...] = ()

    def there(self, setting: Mapping[str, Any], model: str) -> bool:
        """Whether a setting has this field; `model`: of the base."""
        return not self.models or setting.get("model", model) in self.models

    def draw(self, luck: random.Random) -> Any:
        """A random value."""
        if self.values:
            return luck.choice(self.values)
        if self.whole and not self.log:
            return luck.randint(int(self.low), int(self.high))
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = luck.uniform(*ends)
        value = min(max(math.exp(value) if self.log else value, self.low), self.high)
        return round(value) if self.whole else float(f"{value:.4g}")


def axes(space: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[Axis, ...]:
    """The axes of a space, the model first: other fields may depend on it.

    Args:
        space: {field: values}; values as an axis of a sweep has them, `1..12 continuous`, `0.01..1 log`, `10..50 whole`, or
            {values: ..., model: [...]} for a field that only these models have.

    Raises:
        SweepError: one line that names the field.
    """
    if not space:
        raise SweepError("space: expected at least one field with values, such as guidance_scale: [4, 6, 9]; got none")
    found = [_axis(field, given, base) for field, given in space.items()]
    return tuple(sorted(found, key=lambda axis: axis.field != "model"))


def _axis(field: str, given: Any, base: Mapping[str, Any]) -> Axis:
    check_names("space", [field])
    if field in ("seed", "image", "seconds"):
        why = "num_frames says how long a clip is" if field == "seconds" else "the search chooses seeds itself" if field == "seed" else \
            "one picture is in base"  # fmt: skip
        raise SweepError(f"space: {field}: expected another field: {why}")
    models: tuple[str, ...] = ()
    if isinstance(given, Mapping):
        if set(given) != {"values", "model"} or field == "model":
            raise SweepError(f"space: {field}: expected {{values: ..., model: [...]}}, got {short(dict(given))}")
        models = tuple(map(str, given["model"] if isinstance(given["model"], list) else [given["model"]]))
        given = given["values"]
    if isinstance(given, str) and (match := _DRAWN.fullmatch(given)):
        return _range(field, match, models)
    values, labels = expand(field, given, base)
    if len(set(labels)) < len(labels):
        raise SweepError(f"space: {field}: {next(one for one in labels if labels.count(one) > 1)} is given twice; keep one of them")
    return Axis(field, tuple(values), tuple(labels), models=models)


def _range(field: str, match: re.Match[str], models: tuple[str, ...]) -> Axis:
    if not is_number(field):
        raise SweepError(f"space: {field}: expected a list of values, got a range; it is no number")
    try:
        low, high = float(match[1]), float(match[2])
    except ValueError:
        raise SweepError(f"space: {field}: expected two numbers, got {match[0].strip()!r}") from None
    log, whole = match[3] == "log", match[3] == "whole" or ClipParams.model_fields[field].annotation is int
    if not low < high:
        raise SweepError(f"space: {field}: expected the lower end first, got {match[0].strip()!r}")
    if log and low <= 0:
        raise SweepError(f"space: {field}: a logarithmic range begins above 0, got {match[1]}")
    if whole and (low != int(low) or high != int(high)):
        raise SweepError(f"space: {field}: expected whole numbers, got {match[0].strip()!r}")
    return Axis(field, low=low, high=high, log=log, whole=whole, models=models)


def product(found: Sequence[Axis], model: str) -> list[Setting]:
    """All settings of a space of lists, the last axis fastest; fields that a setting's model does not have are left out of it."""
    total = math.prod(len(axis.values) for axis in found)
    if total > MOST_SETTINGS:
        raise SweepError(f"space: expected at most {MOST_SETTINGS} settings, got {total}; use method: random or tpe")
    settings: dict[tuple[tuple[str, Any], ...], Setting] = {}
    for point in itertools.product(*(axis.values for axis in found)):
        whole = dict(zip((axis.field for axis in found), point, strict=True))
        own = {axis.field: whole[axis.field] for axis in found if axis.there(whole, model)}
        settings.setdefault(tuple(own.items()), own)
    return list(settings.values())


def drawn(found: Sequence[Axis], model: str, luck: random.Random) -> Setting:
    """A random setting."""
    setting: Setting = {}
    for axis in found:
        if axis.there(setting, model):
            setting[axis.field] = axis.draw(luck)
    return setting
