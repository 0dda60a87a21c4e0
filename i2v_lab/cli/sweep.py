"""The command `i2v-lab sweep`: the plan, the run as a notebook, and what came of it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from i2v_lab.cli.terminal import err, out, printable, remark, tell
from i2v_lab.errors import SweepError
from i2v_lab.log import start_log

if TYPE_CHECKING:
    from types import FrameType

    from i2v_lab.report.notebook import Report
    from i2v_lab.settings import Settings
    from i2v_lab.store import Store
    from i2v_lab.sweep import Standing, Sweep

SHOWN_CELLS = 40  # of a plan in the terminal
After = Literal["cell", "step"]


def sweep(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="sweep files such as experiments/guidance.yaml")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the plan: cells, what is done, time and disk; run nothing")
    ] = False,
    axis: Annotated[
        list[str] | None, typer.Option(help="add or replace an axis: guidance_scale='6..14 step 2', seed=1,2,3")
    ] = None,
    base: Annotated[list[str] | None, typer.Option(help="set a parameter of all cells: prompt='zoom in slowly'")] = None,
    name: Annotated[str | None, typer.Option(help="what the sweep is called, where no file names it")] = None,
    retry: Annotated[
        str, typer.Option(help="run only the cells that ended so: failed (all without a clip), out_of_memory or stopped")
    ] = "",
    notebook: Annotated[Path | None, typer.Option(help="a notebook of your own in place of notebooks/sweep.ipynb")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="run without a notebook: clips and tables, no report")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="answer as JSON on standard output, a line a sweep")] = False,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", help="folder of clips and records [default: results]")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N [default: auto]")] = None,
) -> None:
    """Make the clips of a grid of parameters, and a report of them; started again, it goes on.

    Ctrl-C stops after this cell, twice after this step, three times at once.
    """
    from i2v_lab.settings import load_settings
    from i2v_lab.store import Store
    from i2v_lab.sweep import Sweep, load_sweep, with_options
    from i2v_lab.sweep.loop import retry_states

    settings = load_settings(output={"directory": output_dir}, device=device)
    retry_states(retry)
    if not files and not axis:
        raise SweepError("expected a sweep file such as experiments/guidance.yaml, or --axis and --base; got neither")
    if files and name:
        raise SweepError(
            f"--name: a sweep file names its sweep, got --name {name} and {files[0]}; write name: {name} into the file"
        )
    found = [load_sweep(file) for file in files] if files else [Sweep(name=name or "sweep")]
    sweeps = [with_options(item, axis or (), base or ()).with_default_model(settings.model) for item in found]
    for item in sweeps:
        item.cells()  # what is wrong with the last file is told before the first one runs
    store = Store(settings.output.directory)
    if dry_run:
        for item in sweeps:
            _show_plan(item, store, settings, retry, as_json)
        return
    start_log(settings.log.directory)
    if no_report:
        raise typer.Exit(_run_here(sweeps, store, settings, retry, as_json))
    raise typer.Exit(_run_notebooks(sweeps, store, settings, retry, notebook, as_json))


def _show_plan(item: Sweep, store: Store, settings: Settings, retry: str, as_json: bool) -> None:
    from i2v_lab.sweep import plan
    from i2v_lab.sweep.loop import retry_states

    planned = plan(item, store, settings)
    states = retry_states(retry)
    if as_json:
        seconds, size = planned.expected(states)
        cells = [
            {"cell": one.cell.number, "state": one.state, "reason": one.reason, "params": one.cell.params.plain(), "run": one.run,
             "expected_seconds": one.seconds, "expected_bytes": one.file_bytes, "peak_gib": one.peak_gib, "tier": one.tier}
            for one in planned.cells
        ]  # fmt: skip
        answer = {"sweep": item.name, "axes": item.axis_names, "states": planned.counts, "to_run": len(planned.to_run(states)),
                  "expected_seconds": seconds, "expected_bytes": size, "cells": cells}  # fmt: skip
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        return
    tell(f"{item.name}: {planned.summary(states)}")
    from rich.table import Table

    names = item.axis_names
    table = Table("cell", *names, "state", "expected s", "MB", "GiB", "tier")
    for one in planned.cells[:SHOWN_CELLS]:
        labels = [printable(one.cell.labels[name])[:40] for name in names]
        megabytes = None if one.file_bytes is None else one.file_bytes / 1e6
        expected = ["" if value is None else f"{value:.3g}" for value in (one.seconds, megabytes, one.peak_gib)]
        expected.append("" if one.tier is None else str(one.tier))
        state = one.state + (f": {printable(one.reason)}" if one.reason else "")
        table.add_row(str(one.cell.number), *labels, state, *expected)
    out.print(table)
    if len(planned.cells) > SHOWN_CELLS:
        tell(f"... and {len(planned.cells) - SHOWN_CELLS} more cells; --json shows all")


def _run_here(sweeps: list[Sweep], store: Store, settings: Settings, retry: str, as_json: bool) -> int:
    """Run the sweeps in this process, without a notebook. Returns the exit code."""
    from i2v_lab.sweep import SweepSwitch, run_sweep

    class Screen(SweepSwitch):
        def stands(self, standing: Standing) -> None:
            screen(standing)
            super().stands(standing)

    results = []
    with _screen() as screen:
        switch = Screen()
        with _stopping(lambda after: switch.stop(after, "stopped by Ctrl-C")):
            for item in sweeps:
                results.append(run_sweep(item, store, settings=settings, progress=switch, retry=retry))
                if results[-1].stopped:
                    break
    for item, result in zip(sweeps, results, strict=False):  # fewer, where it was stopped
        _answer(item, result.folder, result.counts, as_json, [])
    return max(130 if result.stopped else int(not result.complete) for result in results)


def _run_notebooks(sweeps: list[Sweep], store: Store, settings: Settings, retry: str, notebook: Path | None, as_json: bool) -> int:
    """Have papermill execute the notebook for each sweep. Returns the exit code."""
    from i2v_lab.report.notebook import HTML, REPORT, execute
    from i2v_lab.sweep.progress import ask_to_stop

    asked: list[After] = []
    at: list[Path] = []

    def watch(folder: Path, standing: Standing | None) -> bool:
        at[:] = [folder]
        if standing:
            screen(standing)
        return not asked

    def stop(after: After) -> None:
        asked.append(after)
        if at:
            ask_to_stop(at[0], after)

    with _screen() as screen, _stopping(stop):
        reports: list[Report] = execute(sweeps, store, settings, retry=retry, notebook=notebook, watch=watch)
    worst = 130 if asked else 0
    for report in reports:
        files = [report.folder / REPORT, *([report.html] if report.html else [])]
        _answer(report.sweep, report.folder, report.counts, as_json, files, report.problem)
        if report.problem:
            remark(
                f"error: the notebook of {report.sweep.name} failed: {report.problem}; {report.folder / REPORT} shows where", "red"
            )
        elif not report.html:
            remark(f"no {HTML} could be made of {report.folder / REPORT}; the log says why", "yellow")
        worst = max(worst, int(bool(report.problem) or set(report.counts) != {"done"}))
    return worst


def _answer(item: Sweep, folder: Path, counts: dict[str, int], as_json: bool, reports: list[Path], problem: str = "") -> None:
    """One sweep for people, or for a program."""
    names = (*(("grid.mp4",) if reports else ()), "table.csv", "table.parquet")  # without a report the video is an older one
    made = [*reports, *(folder / name for name in names if (folder / name).is_file())]
    if as_json:
        answer: dict[str, Any] = {"sweep": item.name, "id": folder.name, "folder": str(folder), "axes": item.axis_names,
                                  "counts": counts, "files": [str(path) for path in made], "problem": problem}  # fmt: skip
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        return
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    failed = sum(counts.get(status, 0) for status in ("failed", "out_of_memory", "stopped"))
    go_on = "; run it again to go on" if counts.get("planned") else ""
    retry = "; --retry failed runs those again that ended without a clip, and no others" if failed else ""
    remark(f"{item.name}: {told}{go_on}{retry}", "yellow" if go_on or retry else "")
    for path in made:
        tell(path)


@contextmanager
def _stopping(stop: Callable[[After], None]) -> Iterator[None]:
    """Ctrl-C: after this cell; again: after this step; a third time: at once, as Python does. SIGTERM: after this step."""
    pressed: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if len(pressed) == 1 and number == signal.SIGINT:
            stop("cell")
            remark("stopping after this cell; once more stops after this step", "yellow")
        elif len(pressed) < 3:
            stop("step")
            remark("stopping after this step; once more stops at once", "yellow")
        else:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _screen() -> Iterator[Callable[[Standing], None]]:
    """A function that shows where a sweep stands: a bar of cells and one of steps; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield lambda standing: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    from i2v_lab.sweep.planning import duration

    with Bars(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"), console=err
    ) as bars:
        tasks = {}

        def show(standing: Standing) -> None:
            if standing.sweep not in tasks:
                tasks[standing.sweep] = (
                    bars.add_task(standing.sweep, total=standing.cells, left=""),
                    bars.add_task("", total=None, left=""),
                )
            cells, steps = tasks[standing.sweep]
            left = "" if standing.seconds_left is None else f"about {duration(standing.seconds_left)} left"
            bars.update(cells, completed=standing.done + standing.failed, total=standing.cells, left="" if standing.over else left)
            about = standing.note or f"  cell {standing.cell}: {printable(standing.label)[:50]} {standing.stage}"
            bars.update(steps, description=about, completed=standing.step, total=standing.steps, visible=not standing.over, left="")

        yield show
