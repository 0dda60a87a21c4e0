"""The command `i2v-lab tune`: the best setting of a space under a budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from i2v_lab.cli.interrupt import stops
from i2v_lab.cli.options import AsJson, warn_of_device, with_settings
from i2v_lab.cli.sweep import sweep_screen
from i2v_lab.cli.terminal import answers_alone, remark, show_table, tell, tell_json
from i2v_lab.log import start_log

if TYPE_CHECKING:
    from i2v_lab.report.tune_report import TuneReport
    from i2v_lab.settings import Settings
    from i2v_lab.sweep.tune import Outcome, TuneResult


@with_settings("output_dir", "device", "parallel", "cluster", "workers")
def tune(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="a tune file: experiments/tunes/prompt.yaml")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the settings and the limits that they break; run nothing")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="make clips and winner.yaml, but no report")] = False,
    no_clips: Annotated[bool, typer.Option("--no-clips", help="make no clip: only the report of what is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the best setting of a space under a budget, and say how sure that is. Started again, it goes on where it stopped.

    Ctrl-C stops after this clip, twice after this step, three times at once.
    """
    from i2v_lab.report.tune_report import execute
    from i2v_lab.store import Store
    from i2v_lab.sweep import SweepStop
    from i2v_lab.sweep.tune import load_tune

    definition = load_tune(file).with_defaults(settings.model)
    models = next((axis.values for axis in definition.axes if axis.field == "model"), ())
    warn_of_device(settings.device, [definition.model, *map(str, models)])
    store, stop = Store(settings.output.directory), SweepStop()
    if dry_run:
        _show_plan(definition, store, settings, as_json)
        return
    start_log(settings.log.directory)
    with answers_alone(settings), sweep_screen() as screen, stops(stop.ask):
        made = execute(definition, store, settings, progress=screen, stop=stop, make=not no_clips, report=not no_report)
    raise typer.Exit(130 if stop.after else _answer(made, as_json))


def _show_plan(definition: Any, store: Any, settings: Settings, as_json: bool) -> None:
    from i2v_lab.sweep.tune.planner import Planner

    listed = all(axis.values for axis in definition.axes)
    left, out = Planner(definition, store, settings).possible(definition.settings()) if listed else ([], {})
    if as_json:
        tell_json({"tune": definition.name, "settings": left, "left_out": out})
        return
    tell(
        f"{definition.name}: {len(left) or 'any number of'} settings, {definition.method}, goal {definition.goal}; {definition.levels()} fidelities"
    )
    for name, why in out.items():
        tell(f"  never made: {name}: {why}")


def _answer(made: TuneReport, as_json: bool) -> int:
    """A tune for people, or for a program. Returns the exit code."""
    result, outcome = made.result, made.result.outcome
    files = [path for path in map(result.folder.joinpath, ("winner.yaml", "report.ipynb", "report.html")) if path.is_file()]
    if as_json:
        tell_json({
            "tune": result.tune.name, "folder": str(result.folder), "winner": result.winner, "noise": outcome.noise, "complete": outcome.complete,
            "clips": outcome.clips, "seconds": outcome.seconds, "next_pair": result.pair, "stopped": result.stopped, "problem": made.problem,
            "finalists": [_plain(one) for one in outcome.finalists], "rounds": len(outcome.rounds), "left_out": outcome.left_out,
            "files": [str(path) for path in files],
        })  # fmt: skip
    else:
        for line in made.lines:
            tell(line)
        if outcome.finalists and not math.isnan(outcome.finalists[0].mean):
            _table(outcome, result)
        for path in files:
            tell(path)
    if result.stopped and not outcome.complete:
        remark(f"{result.tune.name} ended early: {result.stopped}; run it again to go on", "yellow")
    if made.problem:
        remark(f"error: the notebook of {result.tune.name} failed: {made.problem}", "red")
    return int(bool(made.problem) or not (outcome.complete or result.pair))


def _plain(one: Any) -> dict[str, Any]:
    numbers = {name: None if math.isnan(value := getattr(one, name)) else value
               for name in ("mean", "low", "high", "behind", "behind_low", "behind_high")}  # fmt: skip
    return {"setting": one.setting, **numbers, "told_apart": one.told, "broken": one.broken}


def _table(outcome: Outcome, result: TuneResult) -> None:
    names = list(dict.fromkeys(name for one in outcome.finalists for name in one.setting))
    rows = [
        [*(one.setting.get(name, "") for name in names), f"{one.mean:.4g}", "" if math.isnan(one.low) else f"{one.low:.4g} to {one.high:.4g}",
         "winner" if one is outcome.winner else "worse" if one.told else one.broken or "cannot be told apart"] for one in outcome.finalists
    ]  # fmt: skip
    goal = result.tune.goals[0].figure if result.tune.goals else "strength"
    show_table((*names, goal, "95 %", ""), rows)
