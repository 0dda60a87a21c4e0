"""Tune: a sweep file with a space, a goal and a budget in place of axes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import I2VLabError, ParamsError, SweepError, explain, short
from i2v_lab.sweep import per as per_value
from i2v_lab.sweep.axes import check_names
from i2v_lab.sweep.condition import condition
from i2v_lab.sweep.definition import NAME
from i2v_lab.sweep.file import load, named_line
from i2v_lab.sweep.tune import goal as read
from i2v_lab.sweep.tune.goal import Goal, Limit
from i2v_lab.sweep.tune.space import Axis, Setting, axes, product
from i2v_lab.textfile import parse_yaml

Method = Literal["halving", "tpe", "nsga2", "grid", "random"]
CHEAP = ("num_inference_steps", "num_frames", "resolution")  # what a cheap fidelity may lower by itself


class Budget(BaseModel):
    """What may be spent; whichever comes first ends the search. One of the first three is given.

    Attributes:
        clips: used in all, at any fidelity; those that were there already count too.
        device_seconds: of these clips, without loading the model.
        hours: of wall clock, from each start.
        votes: of people, where the goal is votes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int | None = Field(default=None, ge=2)
    device_seconds: float | None = Field(default=None, gt=0)
    hours: float | None = Field(default=None, gt=0)
    votes: int = Field(default=60, ge=1)


class Tune(BaseModel):
    """Find the best setting of a space under a budget.

    Attributes:
        name: names the folder: letters, digits, - and _, at most 50.
        base: fields of ClipParams that all clips share: picture, prompt and what is not searched.
        space: {field: values}; see `space.axes`.
        per: {axis: {value: {field: value}}}, as in a sweep.
        where: a condition, as in a sweep; settings that do not meet it are left out.
        goal: a figure, {figure: up or down}, or votes; see `goal.goals`.
        limits: such as `peak_vram_gib <= 12`; a setting that breaks one is not chosen, and never made where the planner knows it before.
        budget: see Budget.
        method: halving; or tpe, nsga2, grid, random.
        fidelities: what cheaper clips set, the cheapest first, such as {num_frames: 8}; None: from the presets of the family; []: none.
        seeds: of each setting that grid, random, tpe and nsga2 try.
        finalists: how many are compared at the end, with fresh seeds.
        seed: the first of the seeds of clips, and of all that is drawn.

    Raises:
        SweepError: one line that says what is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = "tune"
    base: dict[str, Any] = {}
    space: dict[str, Any] = {}
    per: per_value.Per = {}
    where: str = ""
    goal: Any = ""
    limits: tuple[str, ...] = ()
    budget: Budget = Budget(clips=60)
    method: Method = "halving"
    fidelities: tuple[dict[str, Any], ...] | None = None
    seeds: int = Field(default=2, ge=1, le=1000)
    finalists: int = Field(default=3, ge=2, le=20)
    seed: int = Field(default=0, ge=0, le=2**62)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SweepError(explain(error, type(self))) from None
        self._check()

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name) or len(name) > 50:
            raise ValueError(f"expected letters, digits, - and _ (at most 50), got {name!r}")
        return name

    def _check(self) -> None:
        _ = self.goals, self.bounds
        check_names("base", self.base)
        if "seed" in self.base:
            raise SweepError("base: seed: the search chooses seeds itself; write seed: beside base for the first one")
        budget = self.budget
        if budget.clips is None and budget.device_seconds is None and budget.hours is None:
            raise SweepError("budget: expected clips, device_seconds or hours, got none")
        names = [axis.field for axis in self.axes]
        per_value.check(self.per, {axis.field: axis.labels for axis in self.axes if axis.values})
        for fields in self.fidelities or ():
            for name in fields:
                check_names("fidelities", [name])
                if name in names:
                    raise SweepError(f"fidelities: {name}: is in space too; drop it from one of them")
        if (self.method in ("halving", "grid") or self.by_votes) and (
            free := [axis.field for axis in self.axes if not axis.values]
        ):
            what = "votes are" if self.by_votes else f"method {self.method} is"
            raise SweepError(f"space: {free[0]}: {what} for lists; write A..B count 8, or use method: tpe or random")
        if self.by_votes and self.method != "halving":
            raise SweepError(f"goal: votes need method: halving, got {self.method}")

    @property
    def by_votes(self) -> bool:
        """Whether people decide."""
        return self.goal == read.VOTES

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """What is searched for; none where people decide."""
        return read.goals(self.goal)

    @cached_property
    def bounds(self) -> tuple[Limit, ...]:
        """The limits, read."""
        return read.limits(self.limits)

    @property
    def figures(self) -> list[str]:
        """The figures that are looked at: those of goals, then those of limits."""
        return list(dict.fromkeys([*(goal.figure for goal in self.goals), *(limit.figure for limit in self.bounds)]))

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The space, the model first."""
        return axes(self.space, self.base)

    @property
    def model(self) -> str:
        """The model of the base."""
        return str(self.base.get("model", "closed-form"))

    def settings(self) -> list[Setting]:
        """All settings of a space of lists that meet the condition and are valid clips.

        Raises:
            SweepError: one is no valid clip, or none is left.
        """
        found = product(self.axes, self.model)
        kept = [setting for setting in found if self.keeps(setting)]
        if not kept:
            raise SweepError(f"where: {self.where!r} keeps none of the {len(found)} settings; change it")
        return kept

    def keeps(self, setting: Setting) -> bool:
        """Whether a setting meets the condition. Raises SweepError where it is no valid clip."""
        params = self.params(setting)
        return not self.where.strip() or condition(self.where)(params)

    def cheap(self, model: str) -> tuple[dict[str, Any], ...]:
        """The cheap fidelities of a model, the cheapest first; the full one is not among them. Only halving has some."""
        if self.method != "halving" or self.by_votes:
            return ()
        if self.fidelities is not None:
            return self.fidelities
        try:
            quick = models.preset(model, "quick")
        except I2VLabError:
            return ()
        held = {axis.field for axis in self.axes} | {name for value in self.per.values() for own in value.values() for name in own}
        base = ClipParams(**{"image": "x", **{name: self.base[name] for name in CHEAP if name in self.base}})
        less = {
            name: quick[name]
            for name in CHEAP
            if name in quick and name not in held and name in self.base and "seconds" not in self.base
        }
        less = {name: value for name, value in less.items() if _size(base.replace(**{name: value})) < _size(base)}
        return (less,) if less else ()

    def levels(self) -> int:
        """How many fidelities there are, the full one included."""
        choices = [axis.values for axis in self.axes if axis.field == "model"]
        return 1 + max(len(self.cheap(str(model))) for model in (choices[0] if choices and choices[0] else (self.model,)))

    def fields(self, setting: Setting, level: int = -1) -> dict[str, Any]:
        """The fields of a clip of a setting, without its seed; `level`: 0 is the cheapest fidelity, the last one is full quality."""
        labels = {axis.field: dict(zip(map(str, axis.values), axis.labels, strict=True)).get(str(setting[axis.field]), "")
                  for axis in self.axes if axis.values and axis.field in setting}  # fmt: skip
        found = per_value.given(self.base, per_value.fields_of(self.per, labels) | setting)
        cheap = self.cheap(str(found.get("model", self.model)))
        if 0 <= level < len(cheap):
            found = per_value.given(found, cheap[level])
        return found

    def params(self, setting: Setting, level: int = -1, seed: int | None = None) -> ClipParams:
        """A clip of a setting. Raises SweepError where it is none."""
        try:
            return ClipParams(**self.fields(setting, level), seed=self.seed if seed is None else seed)
        except ParamsError as error:
            raise SweepError(f"{named(setting)}: {error}") from None

    def with_defaults(self, model: str) -> Tune:
        """This tune with the model of the settings, where it names none."""
        if "model" in self.base or "model" in self.space:
            return self
        return self.changed(base={**self.base, "model": model})

    def changed(self, **fields: Any) -> Tune:
        """A copy with some fields replaced."""
        return type(self)(**{**self.plain(), **fields})

    def plain(self) -> dict[str, Any]:
        """The fields that are not defaults, as YAML has them."""
        fields: dict[str, Any] = json.loads(self.model_dump_json(exclude_defaults=True))
        return {"name": self.name, **fields}

    def to_yaml(self) -> str:
        """The tune as a file that `load_tune` reads."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True, width=100)

    def definition(self) -> str:
        """A hash of all that decides what is made; a tune with an equal one is gone on with."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()


def named(setting: Mapping[str, Any]) -> str:
    """A setting in words: `guidance_scale 9, scheduler ddim`."""
    return ", ".join(f"{field} {value}" for field, value in setting.items())


def _size(params: ClipParams) -> float:
    return float(params.height * params.width * params.num_frames * params.num_inference_steps)


def load_tune(path: Path | str) -> Tune:
    """The tune in a YAML (or JSON) file; without a `name` it has the name of the file.

    Raises:
        SweepError: one line that names the file and the error.
    """
    return load(path, parse_tune, "tune", "experiments/tunes/prompt.yaml")


def parse_tune(text: str, name: str = "tune") -> Tune:
    """The tune in a YAML or JSON text. Raises SweepError as `load_tune`."""
    lines: dict[str, int] = {}
    found = parse_yaml(text, SweepError, "name, base, space, goal and budget", lines)
    if not found:
        raise SweepError("expected name, base, space, goal and budget, got nothing")
    if "axes" in found:
        raise SweepError(f"axes: a tune has a space instead; rename it (for a grid: i2v-lab sweep), got {short(found['axes'])}")
    try:
        return Tune(**{"name": name, **{key: value for key, value in found.items() if value is not None}})
    except SweepError as error:
        raise named_line(error, lines) from None


def open_tune(given: Tune | Path | str) -> Tune:
    """The tune that is given as a Tune, as the path of a file, or as the text of one (which has a line break)."""
    if isinstance(given, Tune):
        return given
    if isinstance(given, str) and ("\n" in given or given.lstrip().startswith("{")):
        return parse_tune(given)
    return load_tune(given)
