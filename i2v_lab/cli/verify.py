"""The command `i2v-lab verify`: does this workbench work on this machine's GPU, and what can it do?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from i2v_lab.cli.options import with_settings
from i2v_lab.cli.terminal import listening, remark, show_table, tell, working
from i2v_lab.errors import ParamsError
from i2v_lab.portable import write_whole

if TYPE_CHECKING:
    from i2v_lab.settings import Settings
    from i2v_lab.verify.result import Report, Result

COLOURS = {"passed": "green", "failed": "red", "not run": "yellow"}


@with_settings("output_dir", "device")
def verify(
    settings: Settings,
    model: Annotated[str | None, typer.Option(help="this model alone; by default several families, the most telling first")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="how long it may take; what it did not reach is listed")] = 10,
    report: Annotated[
        str | None, typer.Option("--json", metavar="<file>", help="write the report here; - is standard output")
    ] = None,
) -> None:
    """Check this workbench on this machine's GPU: clips, memory, speed, levers. Forecasts learn from what it measures.

    No weights are needed: on a GPU it makes networks of the real size with random ones, in its memory alone. On a CPU networks are small.
    """
    if report not in (None, "-") and not Path(report).absolute().parent.is_dir():
        raise ParamsError(f"--json: expected a file in a folder that is there, got {report}")
    with working("loading torch"):
        from i2v_lab.verify.command import verify as run

    with listening() as progress:
        found = run(model or "", device=settings.device, minutes=minutes, directory=settings.output.directory, progress=progress,
                    began=lambda name: remark(f"{name} ..."), ended=_say)  # fmt: skip
    if report == "-":
        sys.stdout.write(json.dumps(found.plain(), indent=1) + "\n")
    else:
        show(found)
    if report not in (None, "-"):
        _write(Path(report), found.plain())
    raise typer.Exit(int(bool(found.failed)))


def _say(result: Result) -> None:
    remark(f"  {result.status}: {result.line}", COLOURS[result.status])


def _write(place: Path, content: dict[str, Any]) -> None:
    write_whole(place, json.dumps(content, indent=1) + "\n")
    remark(f"{place} has the report; it names no user, no host and no path")


def show(report: Report) -> None:
    """The report for people, on standard output."""
    show_table(("", "check: what was found"), ((one.status, f"{one.name}: {one.line}") for one in report.results))
    if report.predictions:
        tell("")
        show_table(("predicted here", "clip", "tier", "peak GiB", "time"), (
            (f"{one['model']} {one['preset']}", f"{one['resolution']}·{one['num_frames']}", "no" if one["tier"] is None else one["tier"],
             f"{one['peak_gib']:.1f}", _time(one)) for one in report.predictions
        ))  # fmt: skip
    counts = {status: sum(one.status == status for one in report.results) for status in COLOURS}
    for package, version in report.pinned.items():
        remark(f"{package} is {version}")
    tell(f"{counts['passed']} passed, {counts['failed']} failed, {counts['not run']} not run, in {report.seconds:.0f} s")


def _time(prediction: dict[str, Any] | Any) -> str:
    from i2v_lab.cost.timing import span

    return span(*prediction["seconds_range"]) if prediction["seconds_range"] else "not known"
