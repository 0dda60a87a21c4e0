"""What the command line shows: progress bars, runs, lines of text; Stop on Ctrl-C; a log file a start.

Texts may come from a clip or a file name, so they pass through `printable` and are never markup.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from i2v_lab.clip.progress import Listeners, Preview, Progress, StopSwitch
from i2v_lab.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from i2v_lab.clip.params import Advice
    from i2v_lab.clip.record import RunRecord

err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

WIDE = 120  # columns of a terminal from which on the table of runs says more


def tell(text: object, style: str = "") -> None:
    """One line on standard output: an answer."""
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
    err.print(printable(text), style=style)


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
    from i2v_lab.sweep.stop import stop_on_signals

    switch = StopSwitch()
    with stop_on_signals(lambda after, reason: switch.stop(reason), ["step"], say=lambda text: remark(text, "yellow")):
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


def show_advice(found: list[Advice]) -> None:
    """Each warning on a line of standard error."""
    for advice in found:
        remark(f"advice: {advice}", "yellow")


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
    peaks: Mapping[str, float | None] = {
        "VRAM allocated": record.peak_vram_allocated_gib,
        "VRAM reserved": record.peak_vram_reserved_gib,
        "RAM": record.peak_ram_gib,
    }
    memory = ", ".join(f"{name} {value:.2f} GiB" for name, value in peaks.items() if value is not None)
    return f"{record.seconds.get('total', 0):.2f} s ({stages}); peak {memory}; on {record.device_name}"


def show_runs(records: list[RunRecord]) -> None:
    """A line a run, the newest last. One that has no clip says why, below its line where there is no room."""
    wide = out.width >= WIDE
    table = [_cells(record, wide) for record in records]
    heads = ["made (UTC)", "size", "frames", "steps", "guidance", *(("seed", "GiB") if wide else ()), "s"]
    widths = [max(len(row[column]) for row in [heads, *table]) for column in range(len(heads))]
    indent = sum(widths) + 2 * len(widths)
    tell(_line(heads, widths) + "clip or status", "bold")
    for record, cells in zip(records, table, strict=True):
        line = _line(cells, widths)
        if record.clip:
            room = out.width - indent - len(record.clip) - 2
            prompt = _cut(printable(record.params.prompt), room) if wide and record.params and room > 10 else ""
            tell(f"{line}{record.clip}  {prompt}".rstrip())
            continue
        text = printable(f"{record.status}: {record.reason}" if record.reason else record.status)
        if indent + len(text) <= out.width:
            tell(line + text)
            continue
        tell(line + record.status)
        for part in textwrap.wrap(record.reason, max(40, out.width - 12)):
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


def _line(cells: list[str], widths: list[int]) -> str:
    left, right = cells[:2], cells[2:]
    parts = [cell.ljust(width) for cell, width in zip(left, widths, strict=False)]
    parts += [cell.rjust(width) for cell, width in zip(right, widths[2:], strict=True)]
    return "".join(f"{part}  " for part in parts)


def _cut(text: str, room: int) -> str:
    """The text, or as much of it as fits into so many columns of a terminal, where some letters take two."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= room else set_cell_size(text, room - 1) + "…"
