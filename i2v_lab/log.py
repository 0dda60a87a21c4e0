"""The log of a process: a file of its own for each start."""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime
from pathlib import Path

from i2v_lab.rights import make_file, make_folder

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogFile(logging.FileHandler):
    """Writes to a file, which is made with its first line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)
        self.setFormatter(logging.Formatter(FORMAT))
        self.setLevel(logging.INFO)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk ends the log, not the run, and shows nobody a traceback."""


def start_log(directory: Path) -> Path | None:
    """Log this process to a file of its own, once.

    Args:
        directory: the folder of logs; made where it is missing.

    Returns:
        The file; None where it cannot be written, which a line on standard error says.
    """
    if path := log_path():
        return path
    path = directory / f"i2v-lab_{datetime.now():%Y%m%d_%H%M%S}_{os.getpid()}.log"
    try:
        make_folder(directory)
        make_file(path)
    except OSError as error:
        sys.stderr.write(f"no log is written: {path}: {error.strerror}\n")
        return None
    log_to(path)
    logging.getLogger("i2v_lab").info("start: %s", " ".join(sys.argv[1:]))
    return path


def log_to(path: Path, *more: str) -> LogFile:
    """Log what this package says to a file that is given, and what loggers of these names say; Python's warnings are py.warnings."""
    handler = LogFile(path)
    logging.captureWarnings("py.warnings" in more)  # libraries announce changes to come; they are not the user's
    for name in ("i2v_lab", *more):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    return handler


def log_path() -> Path | None:
    """The log of this process, if one was begun."""
    handlers = logging.getLogger("i2v_lab").handlers
    return next((Path(handler.baseFilename) for handler in handlers if isinstance(handler, LogFile)), None)
