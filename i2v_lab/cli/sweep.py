"""The command `i2v-lab sweep`: the plan, the run, the report, and the answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from i2v_lab.cli.interrupt import stops
from i2v_lab.cli.options import AsJson, warn_of_device, with_settings
from i2v_lab.cli.terminal import answers_alone, err, out, remark, show_table, tell, tell_json, width_of, working
from i2v_lab.errors import SweepError, printable
from i2v_lab.log import start_log

if TYPE_CHECKING:
    from i2v_lab.cluster import Place
    from i2v_lab.report.notebook import Report
    from i2v_lab.settings import Settings
    from i2v_lab.store import Store
    from i2v_lab.sweep import Sweep, SweepProgress, SweepStatus

SHOWN_CELLS = 40  # of a plan in the terminal


@with_settings("output_dir", "device", "parallel", "cluster", "workers")
def sweep(
    settings: Settings,
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="sweep files: experiments/guidance.yaml")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan (what is done, time, disk); run nothing")] = False,
    axis: Annotated[
        list[str] | None, typer.Option(help="add or replace an axis: seed=1,2,3, guidance_scale='6..14 step 2'")
    ] = None,
    base: Annotated[list[str] | None, typer.Option(help="set a parameter of all cells: prompt='zoom in slowly'")] = None,
    name: Annotated[str | None, typer.Option(help="name of the sweep, where no file gives one")] = None,
    seeds: Annotated[int | None, typer.Option(help="how many seeds in all; clips that are there are not made again")] = None,
    metric: Annotated[str, typer.Option(help="the metric that is asked about: the report's findings weigh it most")] = "",
    retry: Annotated[
        str,
        typer.Option(
            help="run only cells that ended so: failed (all without a clip), out_of_memory or stopped; none: only make the report"
        ),
    ] = "",
    notebook: Annotated[Path | None, typer.Option(help="make the report with this notebook [default: sweep.ipynb]")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="make clips and tables, but no report")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the clips of a grid of parameters, and a report. Started again, it goes on where it stopped.

    Ctrl-C stops after this cell, twice after this step, three times at once.
    """
    from i2v_lab.report.notebook import execute
    from i2v_lab.store import Store
    from i2v_lab.sweep import Sweep, SweepStop, load_sweep, with_options
    from i2v_lab.sweep.file import with_seeds
    from i2v_lab.sweep.loop import retry_states

    retry_states(retry)
    if not files and not axis:
        raise SweepError("expected a sweep file such as experiments/guidance.yaml, or --axis and --base; got neither")
    if files and name:
        raise SweepError(
            f"--name: a sweep file names its sweep, got --name {name} and {files[0]}; write name: {name} into the file"
        )
    found = [load_sweep(file) for file in files] if files else [Sweep(name=name or "sweep")]
    sweeps = [with_options(item, axis or (), base or ()).with_defaults(settings.model) for item in found]
    sweeps = [with_seeds(item, seeds) for item in sweeps] if seeds is not None else sweeps
    sweeps = [Sweep(**{**dict(item), "metric": metric}) for item in sweeps] if metric else sweeps
    for item in sweeps:
        item.cells()  # an error in the last file is reported before the first one runs
        warn_of_device(settings.device, (cell.params.model for cell in item.cells()))
    store = Store(settings.output.directory)
    if dry_run:
        _show_plans(sweeps, store, settings, retry, as_json)
        return
    start_log(settings.log.directory)
    stop = SweepStop()
    with answers_alone(settings), sweep_screen() as screen, stops(stop.ask):
        reports = execute(sweeps, store, settings, progress=screen, stop=stop, retry=retry, notebook=notebook, report=not no_report)
    codes = [_answer(report, not no_report, as_json) for report in reports]
    if not reports:
        remark("stopped before a clip was begun; run it again to go on", "yellow")
    raise typer.Exit(130 if stop.after else max(codes, default=0))


def _show_plans(sweeps: Sequence[Sweep], store: Store, settings: Settings, retry: str, as_json: bool) -> None:
    """The plan of each sweep; on a cluster for its workers, which are asked."""
    from i2v_lab.cluster import open_pool

    with ExitStack() as opened:
        opened.enter_context(answers_alone(settings))
        places = opened.enter_context(open_pool(store, settings)).places if settings.cluster.address else []
        for item in sweeps:
            _show_plan(item, store, settings, retry, as_json, places)


def _show_plan(item: Sweep, store: Store, settings: Settings, retry: str, as_json: bool, places: Sequence[Place]) -> None:
    from i2v_lab.statistics.power import outlook_line
    from i2v_lab.sweep import plan_sweep
    from i2v_lab.sweep.loop import retry_states

    with working(f"planning {item.name}"):
        planned = plan_sweep(item, store, settings, places=places)
    states = retry_states(retry)
    if as_json:
        seconds, size = planned.expected(states)
        cells = [
            {"cell": one.cell.number, "state": one.state, "reason": one.reason, "params": one.cell.params.plain(), "run": one.run,
             "expected_seconds": one.seconds, "expected_bytes": one.file_bytes, "peak_gib": one.peak_gib, "tier": one.tier,
             **({"device_name": one.device_name} if places else {})}
            for one in planned.cells
        ]  # fmt: skip
        answer = {"sweep": item.name, "axes": item.axis_names, "states": planned.counts, "to_run": len(planned.to_run(states)),
                  "expected_seconds": seconds, "expected_bytes": size, "free_bytes": planned.free_bytes,
                  "can_show": outlook_line(*planned.settings(), item.metric), "cells": cells}  # fmt: skip
        tell_json(answer)
        return
    tell(f"{item.name}: {planned.summary(states)}")
    if line := outlook_line(*planned.settings(), item.metric):
        tell(f"It can show: {line}")
    names, rows = item.axis_names, []
    shown = len(planned.cells) if width_of(out) is None else SHOWN_CELLS
    for one in planned.cells[:shown]:
        megabytes = None if one.file_bytes is None else one.file_bytes / 1e6
        expected = ["" if value is None else f"{value:.3g}" for value in (one.seconds, megabytes, one.peak_gib)]
        state = one.state + (f": {one.reason}" if one.reason else "")
        tier = "" if one.tier is None else one.tier
        device = [one.device_name] if len(planned.kinds) > 1 else []
        rows.append([one.cell.number, *(one.cell.labels[name] for name in names), *expected, tier, *device, state])
    show_table(("cell", *names, "expected s", "MB", "GiB", "tier", *(["device"] if len(planned.kinds) > 1 else []), "state"), rows)
    if len(planned.cells) > shown:
        tell(f"... and {len(planned.cells) - shown} more cells; | less shows all")


def _answer(report: Report, with_report: bool, as_json: bool) -> int:
    """One sweep for people, or for a program. Returns the exit code."""
    from i2v_lab.report.notebook import HTML, REPORT

    folder, counts, problem = report.result.folder, report.result.counts, report.problem
    # Without a notebook, files of a report are older ones.
    names = [*((REPORT, HTML if report.html else "", "grid.mp4") if with_report else ()), "table.csv", "table.parquet"]
    made = [folder / name for name in names if (folder / name).is_file()]
    if as_json:
        answer: dict[str, Any] = {"sweep": report.sweep.name, "id": folder.name, "folder": str(folder), "axes": report.sweep.axis_names,
                                  "counts": counts, "files": [str(path) for path in made], "problem": problem}  # fmt: skip
        tell_json(answer)
    else:
        counted = ", ".join(f"{count} {status}" for status, count in counts.items())
        failed = sum(counts.get(status, 0) for status in ("failed", "out_of_memory", "stopped"))
        go_on = "; run it again to go on" if counts.get("planned") else ""
        retry = "; --retry failed runs those again that ended without a clip, and no others" if failed else ""
        remark(f"{report.sweep.name}: {counted}{go_on}{retry}", "yellow" if go_on or retry else "")
        for path in made:
            tell(path)
    if report.result.stopped:
        remark(f"{report.sweep.name} ended early: {report.result.stopped}", "yellow")
    if problem:
        shown = f"; {folder / REPORT} shows where" if (folder / REPORT).is_file() else ""
        remark(f"error: the notebook of {report.sweep.name} failed: {problem}{shown}", "red")
    elif with_report and not report.html:
        remark(f"no {HTML} could be made of {folder / REPORT}; the log says why", "yellow")
    return int(bool(problem) or set(counts) != {"done"})


@contextmanager
def sweep_screen(*, numbered: bool = False) -> Iterator[SweepProgress]:
    """A listener that shows how far sweeps are: in a terminal a bar of cells and one of steps.

    Args:
        numbered: each cell is a line `3 of 20`, in a terminal or not.
    """
    from i2v_lab.cost.timing import duration
    from i2v_lab.sweep import SweepProgress

    class Screen(SweepProgress):
        def __init__(self) -> None:
            self.tasks: dict[str, Any] = {}
            self.lines: list[Any] = []  # of the workers of a cluster

        def cell(self, status: SweepStatus) -> None:
            if numbered:
                remark(f"{status.cell} of {status.cells}")

        def updated(self, status: SweepStatus) -> None:
            if not bars:
                return
            if status.sweep not in self.tasks:
                for bar in self.tasks.pop("", ()):  # of the wait for the workers, before there was a plan
                    bars.remove_task(bar)
                self.tasks[status.sweep] = (bars.add_task(status.sweep, total=status.cells, left=""), bars.add_task("", left=""))
            cells, steps = self.tasks[status.sweep]
            left = "" if status.seconds_left is None or status.over else f"about {duration(status.seconds_left)} left"
            bars.update(cells, completed=status.done + status.failed, total=status.cells, left=left)
            about = status.note or f"  cell {status.cell}: {printable(status.label)[:50]} {status.stage}"
            bars.update(
                steps, description=about, completed=status.step, total=status.steps, visible=not (status.over or status.workers)
            )
            while len(self.lines) < len(status.workers):
                self.lines.append(bars.add_task("", left=""))
            for line, one in zip_longest(self.lines, status.workers):
                if one is None:
                    bars.update(line, visible=False)
                else:
                    doing = one.note or (f"cell {one.cell} {one.stage}" if one.cell else "nothing to do")
                    about = f"  {printable(one.host)[:12]} {printable(one.device)[:8]} {printable(doing)[:20]}"
                    bars.update(
                        line, description=about, completed=one.step, total=one.steps, left=printable(one.label)[:20], visible=True
                    )

    if not sys.stderr.isatty():
        bars = None
        yield Screen()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Bars(*columns, console=err) as bars:
        yield Screen()
