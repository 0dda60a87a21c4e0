"""What the command line shows: progress bars, runs, lines of text; Stop on Ctrl-C; a log file a start.

Texts may come from a clip or a file name, so they pass through `printable` and are never markup.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console

from i2v_lab.cli.interrupt import STOPPED, stops
from i2v_lab.cli.tables import WRAPPED_MIN, lay_out, wrapped
from i2v_lab.clip.progress import Listeners, Preview, Progress, StopSwitch
from i2v_lab.errors import I2VLabError, InputError, Stop, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from i2v_lab.clip.record import RunRecord
    from i2v_lab.settings import Settings

err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def answers_alone(settings: Settings) -> Iterator[None]:
    """With a cluster, standard output has our answers alone: what Ray and its core write there goes to standard error."""
    try:
        own = bool(settings.cluster.address) and sys.stdout.fileno() == 1
    except OSError:  # it is no file
        own = False
    if not own:
        yield
        return
    sys.stdout.flush()
    kept: Any = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    os.dup2(2, 1)
    out.file = kept
    try:
        yield
    finally:
        sys.stdout.flush()
        kept.flush()
        os.dup2(kept.fileno(), 1)
        out.file = None  # type: ignore[assignment]  # sys.stdout again
        kept.close()


def tell(text: object, style: str = "") -> None:
    """A line on standard output: an answer."""
    _say(out, text, style)


def tell_json(answer: object) -> None:
    """One line of JSON on standard output, in ASCII; a program that reads gets it at once. What is no number (NaN) is null."""
    strict = json.loads(json.dumps(answer), parse_constant=lambda name: None)
    out.file.write(json.dumps(strict, allow_nan=False) + "\n")
    out.file.flush()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output: no wider than the terminal; complete where a program reads it."""
    head, *lines = lay_out(columns, rows, width_of(out))
    tell_lines([head], "bold")
    tell_lines(lines)


def tell_lines(lines: Iterable[str], style: str = "") -> None:
    """Lines that are laid out and printable already, on standard output."""
    with _terminal_may_be_gone():
        for line in lines:
            out.print(line, style=style)


def show_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values on standard output; long values go on below themselves in a terminal."""
    first, *others = [[f"{name}:", str(value)] for name, value in pairs] or [["", ""]]
    tell_lines(lay_out(first, others, width_of(out)))


def width_of(console: Console) -> int | None:
    """Cells of the terminal; None where it is none: lines for a program are never broken."""
    return console.width if console.is_terminal else None


def remark(text: object, style: str = "") -> None:
    """A line on standard error: all that is not the answer."""
    _say(err, text, style)


def _say(console: Console, text: object, style: str) -> None:
    line, width = printable(text), width_of(console)
    # Only between words: a path stays whole, so that it can be copied.
    long = width is not None and len(line) > width and " " in line
    parts = textwrap.wrap(line, width or 80, break_long_words=False, break_on_hyphens=False) if long else [line]
    with _terminal_may_be_gone():
        for part in parts:
            console.print(part, style=style)


def code_of(error: I2VLabError) -> int:
    """The exit code of a command that an error ended."""
    return 2 if isinstance(error, InputError) else STOPPED if isinstance(error, Stop) else 1


def each(clips: Sequence[Path], work: Callable[[Path], int]) -> int:
    """Do some work with each clip; an error is a line, and the next one goes on. Returns the highest exit code."""
    codes = []
    for clip in clips:
        try:
            codes.append(work(clip))
            if codes[-1] == STOPPED:
                break
        except I2VLabError as error:
            if len(clips) == 1 or isinstance(error, Stop):
                raise
            remark(f"error: {error}", "red")
            codes.append(code_of(error))
    return max(codes)


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
def working(what: str) -> Iterator[None]:
    """While the block runs a terminal shows what is being done; nothing of it is left, and a program sees nothing of it."""
    if not err.is_terminal:
        yield
        return
    with err.status(what):
        yield


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


def runs_in_words(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


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


def show_runs(rows: Sequence[tuple[RunRecord, bool]]) -> None:
    """The runs, the newest last: a line each where that fits, otherwise the figures in a line and what was made below it.

    Args:
        rows: each run, and whether its clip is gone.
    """
    heads = ["made (UTC)", "size", "frames", "steps", "guidance", "seed", "s"]
    figures, asked = [_figures(record) for record, _ in rows], [_asked(record) for record, _ in rows]
    ends = [record.clip or f"{record.status} {record.id}" for record, _ in rows]  # by the id `delete` knows it
    reasons = ["its clip is gone" if gone else record.reason for record, gone in rows]
    width = width_of(out)
    columns = [*heads, "picture", "clip or status", "prompt", *(["why"] if any(reasons) else [])]
    whole = [[*one, picture, end, prompt, *([why] if any(reasons) else [])] for one, (picture, prompt), end, why in
             zip(figures, asked, ends, reasons, strict=True)]  # fmt: skip
    if width is None or max(map(cell_len, lay_out(columns[:-1], [row[:-1] for row in whole], None))) + 2 + WRAPPED_MIN <= width:
        show_table(columns, whole)
        return
    head, *lines = lay_out(heads, figures, None)
    tell_lines([head], "bold")
    for line, (picture, prompt), end, why in zip(lines, asked, ends, reasons, strict=True):
        tell_lines([line])
        below = (f"{picture}: {prompt}", f"{end}: {why}" if why else end)
        tell_lines("    " + part for text in below for part in wrapped(printable(text), width - 4))


def _asked(record: RunRecord) -> tuple[str, str]:
    """The name of the picture, and the prompt."""
    if record.params is None:
        return "", ""
    image = record.params.image
    return image if image.startswith("sample:") else PurePath(image).name, record.params.prompt


def _figures(record: RunRecord) -> list[str]:
    made, seconds, asked = f"{record.created:%m-%d %H:%M}", f"{record.seconds.get('total', 0):.1f}", record.params
    if asked is None:
        return [made, *[""] * 5, seconds]
    figures = asked.resolution, asked.num_frames, asked.num_inference_steps, f"{asked.guidance_scale:g}", asked.seed
    return [made, *map(str, figures), seconds]
