"""A round as sweeps: settings and seeds as cells of the sweep's own machinery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from i2v_lab.sweep.definition import Sweep
from i2v_lab.sweep.tune.definition import Tune
from i2v_lab.sweep.tune.race import Round
from i2v_lab.sweep.tune.space import Setting


def sweeps_of(tune: Tune, made: Round, settings: Sequence[Setting], number: int) -> list[Sweep]:
    """The sweeps of a round: one for the settings that have the same fields. Their axes change together, and with each seed."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for setting in made.settings:
        fields = tune.fields(settings[setting], made.level)
        own = groups.setdefault(tuple(sorted(fields)), [])
        if fields not in own:
            own.append(fields)
    found = []
    for place, (names, rows) in enumerate(groups.items()):
        varied = [name for name in names if len({json.dumps(row[name], default=str) for row in rows}) > 1]
        base = {name: rows[0][name] for name in rows[0] if name not in varied}
        axes: dict[str, Any] = {name: [row[name] for row in rows] for name in varied}
        name = f"{tune.name}-{tune.definition()[:4]}-{number}" + (chr(ord("a") + place) if len(groups) > 1 else "")
        found.append(
            Sweep(name=name, base=base, axes=axes, seeds=list(made.seeds), zip=(tuple(varied),) if len(varied) > 1 else ())
        )
    return found


def of_cells(tune: Tune, made: Round, settings: Sequence[Setting]) -> dict[str, list[tuple[int, int]]]:
    """{params of a cell as JSON: the (setting, seed) that it is}; two settings may be the same clip at a cheap fidelity."""
    found: dict[str, list[tuple[int, int]]] = {}
    for setting in made.settings:
        for seed in made.seeds:
            found.setdefault(tune.params(settings[setting], made.level, seed).model_dump_json(), []).append((setting, seed))
    return found
