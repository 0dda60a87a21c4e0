"""Who may read the files that are written: this user alone, unless the settings share them.

Folders and files that are there already keep their rights.
"""

from __future__ import annotations

import os
from pathlib import Path

_shared = False


def share(shared: bool) -> None:
    """From now on, what this process writes is for everybody whom its umask lets in (True), or for this user alone."""
    global _shared  # noqa: PLW0603 - of the process, as the umask is
    _shared = shared


def make_folder(folder: Path, *, exist_ok: bool = True) -> None:
    """Make a folder where there is none, and those above it."""
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(0o777 if _shared else 0o700, exist_ok=exist_ok)


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=opener)`: a file that is made has the rights."""
    return os.open(path, flags, 0o666 if _shared else 0o600)


def make_file(path: Path) -> None:
    """Make an empty file where there is none."""
    os.close(opener(str(path), os.O_CREAT | os.O_WRONLY))
