"""The whole grid of a sweep as one labelled video to send to somebody, all clips in step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from i2v_lab.clip import ffmpeg, video
from i2v_lab.clip.params import parse_fps
from i2v_lab.clip.publish import temporary_folder
from i2v_lab.errors import InputError, WriteError
from i2v_lab.portable import replace
from i2v_lab.report.player.fonts import drawable, font, wrap
from i2v_lab.report.player.grid import Grid, GridCell, Label, arrange, in_words
from i2v_lab.report.player.media import look_at_all

if TYPE_CHECKING:
    import pandas as pd

WIDTH_MAX = 1920  # pixels
HEIGHT_AIM, HEIGHT_MAX = 2160, 8192  # clips get smaller down to CLIP_MIN to stay below the first; beyond the second: an error
CLIP_MIN = 96  # pixels: in narrower clips nothing can be seen, unless they were made so
SHRUNK_LEAST = 0.75  # of the size of the clips: rather so much smaller than the last columns in a band of their own
HEAD_MIN = 110  # pixels: the least width of a label
STRETCH_BYTES = 256 * 2**20  # of frames that are made at once
GAP = 12
TEXT, SMALL = 18, 14  # pixels
BACK, FRONT, MUTED, BAD, PANEL = "#ffffff", "#1b1f24", "#57606a", "#a40e26", "#f0f2f5"


@dataclass(frozen=True)
class Place:
    """A cell in the picture: the left, the top and the size of its box, in pixels."""

    cell: GridCell
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class TextBox:
    """A text in the picture: its lines, and the box that it must stay in, in pixels."""

    lines: tuple[str, ...]
    left: int
    top: int
    width: int
    size: int = TEXT
    centred: bool = True
    colour: str = FRONT


@dataclass(frozen=True)
class VideoLayout:
    """The places of all clips and texts in the video. `width` and `height` are even."""

    width: int
    height: int
    places: tuple[Place, ...]
    texts: tuple[TextBox, ...]


def grid_video(
    table: pd.DataFrame,
    axes: Sequence[str],
    path: Path,
    *,
    where: str | Mapping[str, Any] | None = None,
    fps: Fraction | float | str | None = None,
) -> Path:
    """Write the whole grid as one video: all clips in step by time, with row and column labels.

    A clip that is shorter than the longest holds its last frame; clips of other rates show the frame of that time. Clips are
    scaled down to fit, and none is generated again. Cells without a clip show their status and reason. Where there are many
    columns, they continue in a second band below.

    Args:
        table: one row a run.
        axes: the swept columns, outermost first; arranged as the page arranges them.
        path: an .mp4, .webm or .gif; replaced, in one instant, where it exists.
        where: the runs to show: a query as pandas has it ("seed == 0"), or values by column ({"seed": 0, "fps": [8, 24]}).
        fps: frames a second of the video; None: that of the fastest clip.

    Returns:
        `path`, absolute.

    Raises:
        InputError: no run is left, an axis or column is unknown, or the grid is too large for one video.
        WriteError: it could not be written; the file that was at `path` before is still there.
    """
    path = Path(path).absolute()
    grid = arrange(_selected(table, where), axes)
    if not grid.cells:
        raise InputError("grid video: expected at least one run in the table, got none" + (f" where {where}" if where else ""))
    infos = look_at_all(grid.cells, video.probe)
    clips = [info for info in infos if isinstance(info, video.VideoInfo)]
    rate = _rate(fps, clips)
    layout = lay_out(grid, infos)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that it replaces the old file in one instant.
    with temporary_folder(path.parent, f".{path.name}") as folder:
        made = video.write(_frames(layout, infos, rate), folder, stem="grid", fps=rate, format=path.suffix[1:].lower())
        try:
            replace(made.path, path)
        except OSError as error:
            raise WriteError(f"{path}: cannot be replaced ({error.strerror or error}); close what has it open") from None
    return path


def _selected(table: pd.DataFrame, where: str | Mapping[str, Any] | None) -> pd.DataFrame:
    if where is None:
        return table
    if isinstance(where, str):
        try:
            return table.query(where)
        except Exception as error:  # noqa: BLE001 - pandas raises whatever the expression does
            raise InputError(f"where: expected a condition on the table such as 'seed == 0', got {where!r} ({error})") from None
    for name, value in where.items():
        if name not in table.columns:
            raise InputError(f"where: expected columns of the table, got {name!r}")
        table = table[table[name].isin(value if isinstance(value, (list, tuple, set)) else [value])]
    return table


def _rate(fps: Fraction | float | str | None, clips: Sequence[video.VideoInfo]) -> Fraction:
    try:
        return max((info.fps for info in clips), default=Fraction(8)) if fps is None else parse_fps(fps)
    except ValueError as error:
        raise InputError(f"fps: {error}") from None


# Places


def _label_lines(label: Label, width: int) -> list[str]:
    return [line for name, value in label for line in wrap(drawable(f"{name} {value}"), width, TEXT)]


def _natural(labels: Sequence[Label]) -> int:
    """Pixels that the longest line of the labels takes when nothing is wrapped."""
    texts = [drawable(f"{name} {value}") for label in labels for name, value in label]
    return max((int(font(TEXT, text).getlength(text)) + 1 for text in texts), default=0)


def _tall(lines: Sequence[str] | int, size: int = TEXT) -> int:
    return (lines if isinstance(lines, int) else len(lines)) * (size * 5 // 4)


def lay_out(grid: Grid, infos: Sequence[video.VideoInfo | str]) -> VideoLayout:
    """Find the largest size of the clips at which the grid fits, and the places of everything at that size.

    Raises:
        InputError: it does not fit at any size.
    """
    clips = [info for info in infos if isinstance(info, video.VideoInfo)]
    widest = max((info.width for info in clips), default=240)
    shape = max((info.height / info.width for info in clips), default=0.5)
    head = 0 if grid.wraps else min(_natural(grid.rows), WIDTH_MAX // 5)
    width = min(widest, WIDTH_MAX - head - 3 * GAP)
    in_one_band = (WIDTH_MAX - head - 2 * GAP) // len(grid.columns) - GAP
    if not grid.wraps and in_one_band >= SHRUNK_LEAST * width:
        width = min(width, in_one_band)
    while True:
        layout = _at_width(grid, head, width, round(width * shape))
        if layout.height <= HEIGHT_AIM or width <= CLIP_MIN:
            break
        width = max(CLIP_MIN, width * 9 // 10)
    if layout.height > HEIGHT_MAX:
        raise InputError(
            f"grid video: {len(grid.rows)} x {len(grid.columns)} cells do not fit into one video, even {CLIP_MIN} pixels wide; "
            "choose some of them with where, such as seed == 0"
        )
    return layout


def _at_width(grid: Grid, head: int, width: int, height: int) -> VideoLayout:
    """The layout with clips in boxes of this size."""
    labels = [cell.label for cell in grid.cells] if grid.wraps else grid.columns
    pitch = max(width, min(_natural(labels), 2 * HEAD_MIN), HEAD_MIN if any(labels) else 0)  # room for a column and its label
    left = head + 2 * GAP if head else GAP
    many = max(1, min(len(grid.columns), (WIDTH_MAX - left) // (pitch + GAP)))
    if grid.wraps:  # lines of about one length
        many = -(-len(grid.columns) // -(-len(grid.columns) // many))
    by_place = {(cell.row, cell.column): cell for cell in grid.cells}
    places: list[Place] = []
    texts: list[TextBox] = []
    total = left + many * (pitch + GAP)
    top = GAP
    if grid.common:
        lines = wrap(drawable("in all: " + in_words(grid.common)), total - 2 * GAP, SMALL)
        texts.append(TextBox(tuple(lines), GAP, top, total - 2 * GAP, size=SMALL, centred=False, colour=MUTED))
        top += _tall(lines, SMALL) + GAP
    for start in range(0, len(grid.columns), many):
        band = range(start, min(start + many, len(grid.columns)))
        heads = [_label_lines(grid.columns[column], pitch) for column in band]
        tallest = max(map(_tall, heads))
        for place, lines in enumerate(heads):
            texts.append(TextBox(tuple(lines), left + place * (pitch + GAP), top + tallest - _tall(lines), pitch))
        top += tallest + (GAP // 2 if tallest else 0)
        for row, label in enumerate(grid.rows):
            lines = _label_lines(label, head)
            room = max(height, _tall(lines))
            texts.append(TextBox(tuple(lines), GAP, top + (room - _tall(lines)) // 2, head, centred=False))
            for place, column in enumerate(band):
                if cell := by_place.get((row, column)):
                    x = left + place * (pitch + GAP) + (pitch - width) // 2
                    places.append(Place(cell, x, top + (room - height) // 2, width, height))
            top += room + GAP
    places.sort(key=lambda place: (place.cell.row, place.cell.column))  # as the cells of the grid
    return VideoLayout(total + total % 2, top + top % 2, tuple(places), tuple(text for text in texts if text.lines))


# Pictures


def _draw(layout: VideoLayout, infos: Sequence[video.VideoInfo | str]) -> npt.NDArray[np.uint8]:
    """Everything that does not move: uint8 RGB, (height, width, 3)."""
    image = Image.new("RGB", (layout.width, layout.height), BACK)
    draw = ImageDraw.Draw(image)
    for box in layout.texts:
        _write(draw, box)
    for place, info in zip(layout.places, infos, strict=True):
        if isinstance(info, str):
            edges = (place.left, place.top, place.left + place.width - 1, place.top + place.height - 1)
            draw.rectangle(edges, fill=PANEL, outline=BAD)
            for box in reason_boxes(place, info):
                _write(draw, box)
    return np.asarray(image)


def _write(draw: ImageDraw.ImageDraw, box: TextBox) -> None:
    for number, line in enumerate(box.lines):
        face = font(box.size, line)
        indent = (box.width - face.getlength(line)) / 2 if box.centred else 0
        draw.text((box.left + indent, box.top + _tall(number, box.size)), line, font=face, fill=box.colour)


def reason_boxes(place: Place, reason: str) -> list[TextBox]:
    """Status and reason in the box of a cell without a clip; a reason that is too long ends with an ellipsis."""
    room = place.width - 12
    status = wrap("no clip" if place.cell.status == "done" else place.cell.status.replace("_", " "), room, SMALL)
    below = place.top + 6 + _tall(status, SMALL)
    for size in (SMALL, 12, 10):
        lines = wrap(drawable(reason), room, size)
        fits = (place.top + place.height - 6 - below) // _tall(1, size)
        if len(lines) <= fits:
            break
    if len(lines) > fits:
        lines = [line if number < fits - 1 else line[:-1] + "…" for number, line in enumerate(lines[: max(fits, 0)])]
    left = place.left + 6
    return [
        TextBox(tuple(status), left, place.top + 6, room, size=SMALL, centred=False, colour=BAD),
        TextBox(tuple(lines), left, below, room, size=size, centred=False),
    ]


def _decode(info: video.VideoInfo, place: Place, first: int, last: int) -> npt.NDArray[np.uint8]:
    """The frames `first` to `last` of a clip at its size in the grid: uint8 RGB, (F, H, W, 3)."""
    scale = min(place.width / info.width, place.height / info.height)  # its own shape, the whole box in one direction
    width, height = (max(1, round(side * scale)) for side in (info.width, info.height))
    kernel = "area" if width < info.width else "bicubic"
    filters = (f"select='between(n,{first},{last})',"
               f"scale={width}:{height}:flags=accurate_rnd+full_chroma_int+full_chroma_inp+{kernel}")  # fmt: skip
    plain = ["-frames:v", str(last - first + 1), "-c:v", "rawvideo", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    data = ffmpeg.ask(info.path, ["-map", "0:v:0", "-vf", filters, "-fps_mode", "passthrough", *plain])
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


def _frames(layout: VideoLayout, infos: Sequence[video.VideoInfo | str], rate: Fraction) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of the video, one at a time: uint8 RGB, (height, width, 3).

    A stretch of them is made at once, clip by clip, so that neither memory nor the disk holds the frames of all clips.
    """
    still = _draw(layout, infos)
    clips = [(place, info) for place, info in zip(layout.places, infos, strict=True) if isinstance(info, video.VideoInfo)]
    total = max(1, math.ceil(max((info.frames / info.fps for _, info in clips), default=2 / rate) * rate))
    stretch = max(1, STRETCH_BYTES // still.nbytes)
    for start in range(0, total, stretch):
        # The middle of each frame: at its border two frames of a clip would be right.
        moments = [(number + Fraction(1, 2)) / rate for number in range(start, min(start + stretch, total))]
        frames = np.repeat(still[None], len(moments), axis=0)  # (F, height, width, 3)
        for place, info in clips:
            wanted = [min(int(moment * info.fps), info.frames - 1) for moment in moments]
            pictures = _decode(info, place, wanted[0], wanted[-1])  # (F, H, W, 3)
            height, width = pictures.shape[1:3]
            top, left = place.top + (place.height - height) // 2, place.left + (place.width - width) // 2
            frames[:, top : top + height, left : left + width] = pictures[np.array(wanted) - wanted[0]]
        yield from frames
