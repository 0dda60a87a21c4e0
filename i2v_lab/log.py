"""The log of a start: a file of its own for each process."""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime
from pathlib import Path


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk ends the log, not the run, and shows nobody a traceback."""


def start_log(directory: Path) -> Path | None:
    """Log this start to a file of its own, made with its first line. Returns its path, or None where it cannot be written."""
    path = directory / f"i2v-lab_{datetime.now():%Y%m%d_%H%M%S}_{os.getpid()}.log"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        sys.stderr.write(f"no log is written: {path}: {error.strerror}\n")
        return None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("i2v_lab")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.info("start: %s", " ".join(sys.argv[1:]))
    return path


def log_path() -> Path | None:
    """The log of this start, if one was begun."""
    handlers = logging.getLogger("i2v_lab").handlers
    return next((Path(handler.baseFilename) for handler in handlers if isinstance(handler, _LogFile)), None)
