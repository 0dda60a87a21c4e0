"""Records from the clips: what the files in clips/ say of their runs, where the database does not say it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import I2VLabError

log = logging.getLogger(__name__)
SUFFIXES = {".mp4", ".webm", ".gif"}
READERS = 4  # clips that are read at once: each is a process of FFmpeg
NOTE = "its record was made again from the clip"


def carried(clips: Iterable[Path], find_picture: Callable[[str], Path | None]) -> list[RunRecord]:
    """The records that clips carry; those without one are left out.

    Args:
        find_picture: finds the kept picture of a sha256.
    """

    def read(clip: Path) -> RunRecord | None:
        try:
            inside = video.read_settings(clip)
            return _record(clip, inside["params"], inside["record"], find_picture)
        except (I2VLabError, ValidationError, OSError, KeyError, TypeError, ValueError) as error:
            log.info("%s is no run: %s", clip.name, " ".join(str(error).split())[:300])
            return None

    with ThreadPoolExecutor(READERS) as pool:
        return [record for record in pool.map(read, clips) if record]


def _record(clip: Path, params: Any, record: dict[str, Any], find_picture: Callable[[str], Path | None]) -> RunRecord:
    """The record inside a clip, which is not trusted, with what only the file itself says."""
    about, picture = clip.lstat(), find_picture(str(record["image_sha256"]))
    sample = str(params["image"]).startswith("sample:")
    return RunRecord.model_validate({
        **{name: value for name, value in record.items() if name in RunRecord.model_fields},
        "status": "done", "clip": f"{clip.parent.name}/{clip.name}", "file_bytes": about.st_size, "host": "", "pid": 0,
        "params": ClipParams(**{**params, **({"image": str(picture)} if picture and not sample else {})}),
        "finished": datetime.fromtimestamp(about.st_mtime, UTC), "notes": (*record.get("notes", ()), NOTE),
    })  # fmt: skip
