"""Sweeps written down: a YAML file, a text, and the options of the command line."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError
from i2v_lab.sweep.definition import NAME, Sweep


class _Loader(yaml.SafeLoader):
    """YAML, but a key that is given twice is an error, where PyYAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(getattr(key, "value", ""))
            if name in seen and name != "<<":
                raise SweepError(f"{name}: is given twice (line {key.start_mark.line + 1}); keep one of them")
            seen.add(name)
        return super().construct_mapping(node, deep)


def load_sweep(path: Path | str) -> Sweep:
    """The sweep in a YAML (or JSON) file; without a `name` it has the name of the file.

    Raises:
        SweepError: one line that names the file and the error.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SweepError(
            f"{path}: cannot be read ({error.strerror or error}); expected a sweep file such as experiments/guidance.yaml"
        ) from None
    except UnicodeDecodeError:
        raise SweepError(f"{path}: expected text in UTF-8") from None
    try:
        return parse_sweep(text, path.stem if NAME.fullmatch(path.stem) else "sweep")
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


def parse_sweep(text: str, name: str = "sweep") -> Sweep:
    """The sweep in a YAML or JSON text.

    Args:
        name: where the text gives none.
    """
    try:
        found = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SweepError(f"not valid YAML{place}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(found, dict):
        raise SweepError("expected name, base and axes, got " + ("nothing" if found is None else f"a {type(found).__name__}"))
    if odd := [key for key in found if not isinstance(key, str)]:
        raise SweepError(f"{odd[0]!r}: unknown name; known: {', '.join(Sweep.model_fields)}")
    # A key without a value (all below it may be a comment) counts as not given.
    return Sweep(**{"name": name, **{key: value for key, value in found.items() if value is not None}})


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
