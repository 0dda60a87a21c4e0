"""What people give to `compare` as a table: runs, an output folder, files, folders and patterns of names, frames in memory."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ClipError, InputError, ParamsError, WriteError, printable
from i2v_lab.report.player.foreign import written
from i2v_lab.store import Store

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".webp"))
FILE_PARAMS = "file_has_params"  # a column of tables of files

_EXPECTED = "expected a table such as runs() gives, clips' files, a folder of them, {name: clip}, or frames as uint8 (F, H, W, 3)"


def table_of(given: Any, fps: float = 8) -> pd.DataFrame:
    """One row a clip, with the columns clip, status, reason, and the params that are known.

    Args:
        given: see `compare`.
        fps: of frames in memory.

    Raises:
        InputError: it is nothing that can be compared, or a file is not there.
    """
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        if "clip" not in given.columns:
            found = ", ".join(map(str, given.columns)) or "none"
            raise InputError(f"compare: expected a table with a column clip, such as runs() gives; got {found}")
        return given
    if isinstance(given, (str, os.PathLike)) and (Path(given) / "runs.db").is_file():
        return Store(Path(given)).runs()
    rows = _rows(given, Fraction(fps).limit_denominator(1001))
    return pd.DataFrame(rows, columns=None if rows else ["clip"])


def _rows(given: Any, fps: Fraction) -> list[dict[str, Any]]:
    names: Sequence[str] = ()
    if isinstance(given, Mapping):
        names, items = [str(name) for name in given], list(given.values())
    elif isinstance(given, (str, os.PathLike)) or _is_clip(given):
        items = [given]
    elif isinstance(given, Iterable):
        items = list(given)
    else:
        raise InputError(f"compare: {_EXPECTED}; got {type(given).__name__}")
    found: list[Path | np.ndarray[Any, Any]] = []
    for item in items:
        more = [np.asarray(item)] if _is_clip(item) else _files(item)
        if names and len(more) != 1:
            raise InputError(f"compare: expected one clip for each name, got {len(more)} for {names[len(found)]!r}")
        found += more
    if missing := [item for item in found if isinstance(item, Path) and not item.is_file()]:
        more_missing = f", nor {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(f"compare: {printable(missing[0])}: there is no such file{more_missing}")
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:  # each waits for FFmpeg
        files = list(pool.map(_file_row, [item for item in found if isinstance(item, Path)]))
    rows = []
    for number, item in enumerate(found):
        row = files.pop(0) if isinstance(item, Path) else _frames_row(item, number, fps)
        rows.append({"name": names[number], **row} if names else row)
    return rows


def _is_clip(item: Any) -> bool:
    """Whether it is the frames of one clip, as an array or a tensor of a CPU."""
    return hasattr(item, "shape") and hasattr(item, "dtype") and len(item.shape) != 1


def _files(item: Any) -> list[Path]:
    """The files that an item names: itself, those of a folder, or those that fit a pattern."""
    if not isinstance(item, (str, os.PathLike)):
        raise InputError(f"compare: {_EXPECTED}; got {printable(item)[:80]!r}")
    path = Path(item)
    if path.is_dir():
        found = [one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and not one.name.startswith(".")]
        if not found:
            raise InputError(f"compare: {printable(path)}: expected clips in this folder, found none")
    elif glob.has_magic(str(path)) and not path.is_file():
        found = [Path(one) for one in glob.glob(str(path), recursive=True) if Path(one).is_file()]  # noqa: PTH207
        if not found:
            raise InputError(f"compare: {printable(path)}: no file has such a name")
    else:
        return [path]
    return sorted(found, key=lambda one: [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", one.name)])


def _file_row(path: Path) -> dict[str, Any]:
    """The file of a clip as a row, with the params that it carries if this version can read them."""
    row = _row(printable(path.name), path.absolute())
    with suppress(ClipError, ParamsError, TypeError):
        inside = video.read_settings(path)
        if isinstance(inside.get("params"), dict):
            row |= {**ClipParams(**inside["params"]).plain(), FILE_PARAMS: True}
    return row


def _frames_row(frames: np.ndarray[Any, Any], number: int, fps: Fraction) -> dict[str, Any]:
    """Frames in memory as a row: they are written into a file of this process."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise InputError(f"compare: expected frames as uint8 (F, H, W, 3), got {frames.dtype} {frames.shape}")
    try:
        clip = written(frames, fps).path
    except WriteError as error:
        raise InputError(f"compare: {error}") from None
    return _row(f"array {number + 1}", clip)


def _row(name: str, clip: Path) -> dict[str, Any]:
    return {"file": name, "clip": str(clip), "status": "done", "reason": "", FILE_PARAMS: False}
