"""Sweeps written down: a YAML file, a text, and the options of the command line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError
from i2v_lab.sweep.definition import NAME, Sweep
from i2v_lab.textfile import parse_yaml, read_text

T = TypeVar("T")


def load_sweep(path: Path | str) -> Sweep:
    """The sweep in a YAML (or JSON) file; without a `name` it has the name of the file.

    Raises:
        SweepError: one line that names the file and the error.
    """
    return load(path, parse_sweep, "sweep", "experiments/guidance.yaml")


def load(path: Path | str, parse: Callable[[str, str], T], kind: str, example: str) -> T:
    """What `parse(text, name)` reads in a file; the name is that of the file, or the kind's where it cannot be one.

    Raises:
        SweepError: one line that names the file and the error.
    """
    path = Path(path)
    text = read_text(path, SweepError, f"a {kind} file such as {example}")
    try:
        return parse(text, path.stem if NAME.fullmatch(path.stem) else kind)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


def parse_sweep(text: str, name: str = "sweep") -> Sweep:
    """The sweep in a YAML or JSON text. Its `preset` (a name, or a file such as winner.yaml of a tune) sets fields of the base that are not given.

    Args:
        name: where the text gives none.

    Raises:
        SweepError: one line, with the line in the text where that is known.
    """
    lines: dict[str, int] = {}
    found = parse_yaml(text, SweepError, "name, base and axes", lines)
    if not found:
        raise SweepError("expected name, base and axes, got nothing")
    if preset := found.pop("preset", None):
        base = found.get("base") or {}
        found["base"] = {**models.preset(str(base.get("model", "closed-form")), str(preset)), **base}
    try:
        # A key without a value (all below it may be a comment) counts as not given.
        return Sweep(**{"name": name, **{key: value for key, value in found.items() if value is not None}})
    except SweepError as error:
        raise named_line(error, lines) from None


def named_line(error: SweepError, lines: Mapping[str, int]) -> SweepError:
    """The error with the line, {name: line} of a text, of the last name that it begins with."""
    named = [word for word in re.findall(r"[^\s:.]+(?=[:.])", str(error)[:100])[:3] if word in lines]
    return SweepError(f"line {lines[named[-1]]}: {error}" if named else str(error))


def open_sweep(given: Sweep | Path | str) -> Sweep:
    """The sweep that is given as a Sweep, as the path of a file, or as the text of one (which has a line break)."""
    if isinstance(given, Sweep):
        return given
    if isinstance(given, str) and ("\n" in given or given.lstrip().startswith("{")):
        return parse_sweep(given)
    return load_sweep(given)


def with_seeds(sweep: Sweep, count: int) -> Sweep:
    """The sweep with so many seeds in all: its own first, then the next numbers. Clips that are there are not made again.

    Raises:
        SweepError: fewer than one.
    """
    if count < 1:
        raise SweepError(f"--seeds: expected how many seeds in all, at least 1, got {count}")
    own = list(dict.fromkeys(cell.params.seed for cell in sweep.cells()))
    more = (number for number in itertools.count() if number not in own)
    return sweep.changed(axes={"seed": [*own, *itertools.islice(more, max(0, count - len(own)))][:count]})


def with_options(sweep: Sweep, axes: Sequence[str] = (), base: Sequence[str] = ()) -> Sweep:
    """The sweep with the options of the command line: `guidance_scale=6..14 step 2` for an axis, `prompt=...` for the base.

    Raises:
        SweepError: not of that form, or a name twice.
    """
    return sweep.changed(base=_pairs("--base", base), axes=_pairs("--axis", axes))


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not value.strip():
            raise SweepError(f"{option}: expected NAME=VALUE such as guidance_scale=6..14 step 2, got {text!r}")
        if name in found:
            raise SweepError(f"{option} {name}: is given twice; keep one of them")
        if name not in ClipParams.model_fields:
            Sweep(**{"base" if option == "--base" else "axes": {name: value}})  # raises the error that suggests a name
        found[name] = value.strip()
    return found
