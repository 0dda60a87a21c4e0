"""What differs between operating systems and would otherwise be handled in many places."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

APART: Mapping[str, Any] = {
    "start_new_session": True,  # POSIX
    "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # Windows
}
"""Options of `subprocess.Popen` for a process that must not hear the Ctrl-C of this one's terminal."""

NOT_IN_NAMES = frozenset('<>:"|?*/\\')
"""What the name of a file on Windows or exFAT cannot have, beside control characters."""
_DEVICES = frozenset(["CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³")])

IN_USE = (5, 32, 33)  # errors of Windows: access denied, sharing violation, lock violation
PATIENCE = 2.0  # seconds


def is_device(name: str) -> bool:
    """Whether a file name is that of a device on Windows, such as NUL or com1.txt."""
    return name.partition(".")[0].strip().upper() in _DEVICES


def cache_folder(name: str) -> Path | None:
    """A folder of ours in the user's cache: $XDG_CACHE_HOME/i2v_lab/NAME, or that below ~/.cache; None for a user without a home."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with suppress(RuntimeError):  # a user without a home
        return (given if given.is_absolute() else Path.home() / ".cache") / "i2v_lab" / name
    return None


def replace(source: Path, target: Path) -> None:
    """Give a file another name, in place of the file that has it. Windows refuses that while another program reads one of them."""
    when_free(lambda: source.replace(target))


def write_whole(place: Path, text: str) -> None:
    """Write a file of text, whole or not at all: until then a reader finds the file that was there before.

    Raises:
        OSError: it cannot be written.
    """
    part = place.with_name(f".{place.name[:40]}-{secrets.token_hex(4)}.part")
    try:
        part.write_text(text, encoding="utf-8")
        replace(part, place)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def when_free(work: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Do some work on files; where Windows says that another program has one of them open, try it again for so long.

    Raises:
        PermissionError: it is still open then, or the error is another one.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE or time.monotonic() >= deadline:
                raise
        time.sleep(0.02)
