"""What the command line shows: progress bars, runs, lines of text; Stop on Ctrl-C; a log file a start.

Texts may come from a clip or a file name, so they pass through `printable` and are never markup.
"""

from __future__ import annotations

import errno
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from i2v_lab.cli.interrupt import stops
from i2v_lab.clip.progress import Listeners, Preview, Progress, StopSwitch
from i2v_lab.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from i2v_lab.clip.record import RunRecord

err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

WIDE = 120  # columns of a terminal from which on the table of runs says more


def tell(text: object, style: str = "") -> None:
    """One line on standard output: an answer."""
    with _terminal_may_be_gone():
        out.print(printable(text), style=style)


def tell_json(answer: object) -> None:
    """One line of JSON on standard output, in ASCII; a program that reads gets it at once. What is no number (NaN) is null."""
    strict = json.loads(json.dumps(answer), parse_constant=lambda name: None)
    sys.stdout.write(json.dumps(strict, allow_nan=False) + "\n")
    sys.stdout.flush()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output."""
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*map(printable, row))
    out.print(table)


def remark(text: object, style: str = "") -> None:
    """One line on standard error: all that is not the answer."""
    with _terminal_may_be_gone():
        err.print(printable(text), style=style)


@contextmanager
def _terminal_may_be_gone() -> Iterator[None]:
    """After SIGHUP there is nobody to read; what was made is kept all the same."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


class StageBars(Progress):
    """A bar a stage, with steps and time left."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self._stage = ""
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        if self._task is not None and name == self._stage:  # now its length is known
            self.bars.update(self._task, total=total)
            return
        self.end()
        self._stage, self._task = name, self.bars.add_task(name, total=total)

    def step(self, preview: Preview | None = None) -> None:
        if self._task is not None:
            self.bars.advance(self._task)

    def end(self) -> None:
        """The stage is done: its bar is full and stays."""
        if self._task is not None:
            task = self.bars.tasks[self.bars.task_ids.index(self._task)]
            self.bars.update(self._task, total=task.total or 1, completed=task.total or 1)


@contextmanager
def listening() -> Iterator[Progress]:
    """A listener for one run: bars where standard error is a terminal, and Stop at the first Ctrl-C or SIGTERM.

    The second Ctrl-C interrupts at once, as Python does.
    """
    switch = StopSwitch()
    with stops(lambda after, reason: switch.stop(reason), ["step"]):
        if not sys.stderr.isatty():
            yield switch
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=err) as bars:
            screen = StageBars(bars)
            yield Listeners(switch, screen)
            screen.end()


def record_fields(record: RunRecord, directory: Path) -> dict[str, Any]:
    """A record as JSON has it; the clip is an absolute path."""
    return {**record.model_dump(mode="json"), "clip": str(directory / record.clip) if record.clip else ""}


def show_record(record: RunRecord, directory: Path, *, made_before: bool = False) -> None:
    """One run for people: the clip and what it cost on standard output, or why there is none on standard error."""
    if record.status != "done":
        remark(f"{record.status}: {record.reason}", "red")
        return
    tell(directory / record.clip)
    if made_before:
        remark(f"made before, on {record.created:%Y-%m-%d %H:%M} UTC; --force makes it again")
    remark(cost(record))
    for note in record.notes:
        remark(f"note: {note}")


def cost(record: RunRecord) -> str:
    """Seconds a stage and peak memory of a run, in one line."""
    stages = ", ".join(f"{name} {value:.2f}" for name, value in record.seconds.items() if name != "total")
    peaks = (("VRAM allocated", record.peak_vram_allocated_gib), ("VRAM reserved", record.peak_vram_reserved_gib),
             ("RAM", record.peak_ram_gib))  # fmt: skip
    memory = ", ".join(f"{name} {value:.2f} GiB" for name, value in peaks if value is not None)
    return f"{record.seconds.get('total', 0):.2f} s ({stages}); peak {memory}; on {record.device_name}"


def show_runs(records: list[RunRecord]) -> None:
    """A line a run, the newest last. One that has no clip says why, below its line where there is no room."""
    from rich.text import Text

    wide = out.width >= WIDE
    heads = ["made (UTC)", "size", "frames", "steps", "guidance", *(("seed", "GiB") if wide else ()), "s"]
    table = [heads, *(_cells(record, wide) for record in records)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    head, *lines = [
        "".join(
            cell.ljust(width + 2) if place < 2 else cell.rjust(width) + "  "
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    tell(head + "clip or status", "bold")
    for record, line in zip(records, lines, strict=True):
        if record.clip:
            prompt = Text(printable(record.params.prompt) if wide and record.params else "")
            prompt.truncate(max(0, out.width - len(line) - len(record.clip) - 2), overflow="ellipsis")
            tell(f"{line}{record.clip}  {prompt}".rstrip())
            continue
        text = f"{record.status}: {record.reason}" if record.reason else record.status
        fits = len(line) + len(text) <= out.width
        tell(line + (text if fits else record.status))
        for part in [] if fits else textwrap.wrap(record.reason, max(40, out.width - 12)):
            tell(" " * 12 + part)


def _cells(record: RunRecord, wide: bool) -> list[str]:
    made, seconds = f"{record.created:%m-%d %H:%M}", f"{record.seconds.get('total', 0):.1f}"
    peak = record.peak_vram_reserved_gib or record.peak_ram_gib
    asked = record.params
    clip = ["", "", "", ""]
    if asked:
        clip = [asked.resolution, str(asked.num_frames), str(asked.num_inference_steps), f"{asked.guidance_scale:g}"]
    more = [str(asked.seed) if asked else "", f"{peak:.2f}" if peak else ""] if wide else []
    return [made, *clip, *more, seconds]
