"""Sweep: a base and axes; its cells are the clips. Written in Python, in a YAML file or on the command line."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ParamsError, SweepError, explain, meant
from i2v_lab.metrics.registry import METRICS
from i2v_lab.sweep import per as per_value
from i2v_lab.sweep.axes import check_names, expand
from i2v_lab.sweep.condition import condition

COSTLY = ("model", "dtype", "resolution", "num_frames")
"""Axes that are outermost unless an order is given: a change of these loads a model, or makes it choose its kernels again."""
MOST_CELLS = 100_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Attributes:
        number: from 1, outermost axis slowest.
        params: the clip.
        labels: {axis: its value in words}; for a prompt replacement, the word.
    """

    number: int
    params: ClipParams
    labels: Mapping[str, str]

    @property
    def label(self) -> str:
        """The values of its axes in words: `guidance_scale 9, seed 1`."""
        return ", ".join(f"{axis} {value}" for axis, value in self.labels.items()) or "the base"


class Sweep(BaseModel):
    """A base and axes: every combination of the axes' values is a cell, a clip.

    Attributes:
        name: names the folder: letters, digits, - and _, at most 60.
        base: fields of ClipParams that all cells share. Where a field is an axis as well, the axis wins.
        axes: {field: values}; see `axes.expand` for how values are written. The last one changes fastest.
        per: {axis: {value: {field: value}}}: what single values of an axis set besides. It wins over the base; a field that is an axis
            cannot be in it. None leaves a field open, for the default of the model's family.
        seeds: another way to write the axis `seed`, as the last one.
        where: a condition; cells that do not meet it are left out; see `condition.condition`.
        zip: lists of axes that change together, value by value, instead of being multiplied.
        metric: the one that is asked about, such as prompt_agreement; the findings weigh it most, and call the others exploratory.
        reference: {axis: value}: the cells that the others are compared with, clip by clip, such as {cache: "deep:1"}. Where it is empty
            and a lever is an axis: the cells without a lever, and with the most steps; see `sweep.prices`.
        order: all axes, outermost first (of axes in one zip, one is enough). Where it is empty, COSTLY axes are outermost
            and the others stay as written.
        shuffle: the seed of the order in which cells run where `order` is empty; see `sweep_plan.turns`.

    Raises:
        SweepError: one line that says what is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = "sweep"
    base: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    per: per_value.Per = {}
    seeds: Any = None
    where: str = ""
    zip: tuple[tuple[str, ...], ...] = ()
    order: tuple[str, ...] = ()
    metric: str = ""
    reference: dict[str, Any] = {}
    shuffle: int = 0

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SweepError(explain(error, type(self))) from None
        self._check()

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"expected letters, digits, - and _ (at most 60), got {name!r}")
        return name

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        if metric and metric not in METRICS:
            raise ValueError(f"expected a metric, got {metric!r}; {meant(metric, METRICS)}")
        return metric

    def _check(self) -> None:
        """Check all that can be checked before a cell is made."""
        check_names("base", self.base)
        check_names("axes", self.axes, kind="axis")
        if self.seeds is not None and "seed" in self.axes:
            raise SweepError("seeds: the axis seed is in axes too; keep one of them")
        if "seconds" in self.axes:
            raise SweepError(
                "seconds: expected num_frames as an axis: models make other numbers of frames of it; seconds can be in base or in per"
            )
        labels = {name: found for name, (_, found) in self._values.items()}
        per_value.check(self.per, labels)
        drawn = [values.get("seed") for found in self.per.values() for values in found.values()] + labels.get("seed", [])
        if "-1" in map(str, drawn):
            raise SweepError(
                "seed: expected numbers from 0 on, got -1, which draws one for all cells; write it in base, or list seeds"
            )
        check_names("reference", self.reference, self._values, "axis")
        for axis, value in self.reference.items():
            if canonical(axis, value) not in [canonical(axis, one) for one in self._values[axis][0]]:
                shown = ", ".join(map(str, self._values[axis][0]))
                raise SweepError(f"reference: {axis}: expected a value of the axis ({shown}), got {value!r}; add it to the axis")
        for place, names in (("zip", tuple(itertools.chain(*self.zip))), ("order", self.order)):
            check_names(place, names, self._values, "axis")
            if twice := [name for name in names if names.count(name) > 1]:
                raise SweepError(f"{twice[0]}: is twice in {place}; keep one")
        for group in self.zip:
            lengths = {name: len(self._values[name][0]) for name in group}
            if len(set(lengths.values())) > 1:
                listed = ", ".join(f"{name} has {count}" for name, count in lengths.items())
                raise SweepError(f"zip: expected axes of equal length, got {listed}")
        missing = [group for group in self._groups() if not set(group) & set(self.order)]
        if self.order and missing:
            raise SweepError(f"order: expected every axis, {missing[0][0]} is missing")

    @cached_property
    def _values(self) -> dict[str, tuple[list[Any], list[str]]]:
        """{axis: (values, labels)} as written."""
        axes = {**self.axes, **({} if self.seeds is None else {"seed": self.seeds})}
        return {name: expand(name, given, self.base) for name, given in axes.items()}

    def _groups(self) -> list[tuple[str, ...]]:
        """Axes that change together, each group once, outermost first."""
        of = {name: group for group in self.zip for name in group}
        place = {name: number for number, name in enumerate(self.order or COSTLY)}
        groups = dict.fromkeys(of.get(name, (name,)) for name in self._values)
        # The sort is stable: axes that are not named stay as written.
        return sorted(groups, key=lambda group: min(place.get(name, len(place)) for name in group))

    @property
    def axis_names(self) -> list[str]:
        """The swept fields, outermost first."""
        return [name for group in self._groups() for name in group]

    def cells(self) -> list[Cell]:
        """The cells, as a table lists them; `sweep_plan.turns` has the order in which they run.

        Raises:
            SweepError: a cell is no valid clip, two are the same one, or none is left by `where`.
        """
        return list(self._cells)

    @cached_property
    def _cells(self) -> tuple[Cell, ...]:
        groups = self._groups()
        counts = [len(self._values[group[0]][0]) for group in groups]
        total = math.prod(counts)
        if total > MOST_CELLS:
            raise SweepError(
                f"expected at most {MOST_CELLS} cells, got {' x '.join(map(str, counts))} = {total}; make axes shorter"
            )
        found: list[tuple[ClipParams, dict[str, str]]] = []
        wrong: Counter[str] = Counter()
        for point in itertools.product(*map(range, counts)):
            place = {name: index for group, index in zip(groups, point, strict=True) for name in group}
            values = {name: self._values[name][0][index] for name, index in place.items()}
            labels = {name: self._values[name][1][index] for name, index in place.items()}
            own = per_value.fields_of(self.per, labels) | values
            try:
                found.append((ClipParams(**per_value.given(self.base, own)), labels))
            except ParamsError as error:
                wrong[str(error)] += 1
        if wrong:
            raise SweepError(_list_errors(wrong, total))
        return self._kept(found)

    def _kept(self, found: Sequence[tuple[ClipParams, dict[str, str]]]) -> tuple[Cell, ...]:
        """The numbered cells that meet the condition. No two are the same clip."""
        keep = condition(self.where) if self.where.strip() else None
        kept = [item for item in found if keep is None or keep(item[0])]
        if not kept:
            raise SweepError(f"where: {self.where!r} keeps none of the {len(found)} cells; change it")
        cells = tuple(Cell(number, params, labels) for number, (params, labels) in enumerate(kept, 1))
        seen: dict[str, Cell] = {}
        for cell in cells:
            before = seen.setdefault(cell.params.model_dump_json(), cell)
            if before is not cell:
                raise SweepError(f"two cells are the same clip: {before.label}; {cell.label}; drop one of the values")
        return cells

    def with_defaults(self, model: str) -> Sweep:
        """This sweep with the model of the settings, where it names none, and with a seed drawn for all cells, where that is -1."""
        asked = str(self.base.get("seed")) == "-1" and "seed" not in self._values
        drawn = {"seed": secrets.randbelow(2**31)} if asked else {}
        named = {} if "model" in self.base or "model" in self._values else {"model": model}
        return self.changed(base=drawn | named) if drawn or named else self

    def changed(self, *, base: Mapping[str, Any] | None = None, axes: Mapping[str, Any] | None = None) -> Sweep:
        """A copy with fields of the base set and axes added or replaced. An axis set here wins over `seeds`.

        Of `per` stays what still fits. Where the base gets one value of an axis, it gets what `per` sets for that value too.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        chosen = per_value.fields_of(self.per, {name: str(value) for name, value in (base or {}).items()})
        fields["base"] = per_value.over(per_value.over(self.base, chosen), base or {})
        # A field that is set for all cells is no axis any more.
        fields["axes"] = {name: given for name, given in self.axes.items() if name not in (base or {})} | dict(axes or {})
        if "seed" in {**(base or {}), **(axes or {})}:
            fields["seeds"] = None
        left = [*fields["axes"], *(["seed"] if fields["seeds"] is not None else [])]
        known = fields["axes"] | ({} if fields["seeds"] is None else {"seed": fields["seeds"]})
        labels = {name: expand(name, given, fields["base"])[1] for name, given in known.items()} if self.per else {}
        fields["per"] = per_value.changed(self.per, base or {}, labels)
        groups = [tuple(name for name in group if name in left) for group in self.zip]
        fields["zip"] = tuple(group for group in groups if group)
        if self.order:  # new axes go innermost
            placed = {name for name in self.order if name in left}
            placed |= {name for group in groups if placed & set(group) for name in group}
            fields["order"] = (*(name for name in self.order if name in left), *(name for name in left if name not in placed))
        return type(self)(**fields)

    def definition(self) -> str:
        """A hash of the name, the axes and all cells. A sweep with an equal one is resumed."""
        cells = [cell.params.given() for cell in self._cells]  # what is left open is no choice of this sweep
        return hashlib.sha256(json.dumps([self.name, self.axis_names, cells], sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The sweep as a file that `load_sweep` reads."""
        fields = json.loads(self.model_dump_json(exclude_defaults=True))
        return yaml.safe_dump({"name": self.name, **fields}, sort_keys=False, allow_unicode=True, width=100)


def canonical(field: str, value: Any) -> Any:
    """A value of a field in the one way that ClipParams writes it: 9 is 9.0, "deep" is "deep:3"; None for none."""
    try:
        return ClipParams(**{"image": "x", **({} if value is None else {field: value})}).plain().get(field)
    except ParamsError:  # the cell will say what is wrong
        return value


def _list_errors(wrong: Counter[str], total: int) -> str:
    """A line that lists each distinct error once, with the number of its cells."""
    listed = "; ".join(f"{text} ({count} of {total} cells)" for text, count in wrong.most_common(5))
    return listed + (f"; and {len(wrong) - 5} other errors" if len(wrong) > 5 else "")
