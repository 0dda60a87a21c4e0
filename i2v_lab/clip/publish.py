"""A file gets its name only when it is whole.

It is written under a hidden temporary name in the same folder and then published by a hard link, which fails where the
name is taken. So nothing is overwritten, and no half-written file ever has a clip's name.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from i2v_lab.errors import WriteError, printable
from i2v_lab.portable import replace
from i2v_lab.rights import make_folder, opener

_PARTIAL = re.compile(r"\..*\.([^.]+)-(\d{1,9})-[0-9a-f]{12}\.partial\.\w+", re.DOTALL)
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}  # EINVAL: exFAT on Windows
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DISK = "the disk that holds "


@contextmanager
def partial_file(directory: Path, stem: str, format: str) -> Iterator[Path]:
    """An empty temporary file in `directory`, which is made if missing. What is left of it at the end is deleted."""
    with writing(directory):
        make_folder(directory)
        remove_stale(directory)
        # The stem is shortened: the whole name must fit where the final one does.
        name = f".{stem[:30]}.{host_name()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.partial.{format}"
        partial = directory.absolute() / name
        open(partial, "xb", opener=opener).close()
    try:
        yield partial
    finally:
        for left in (partial, partial.with_suffix(".txt"), partial.with_suffix(".wav")):
            with suppress(OSError):
                left.unlink()


def publish(partial: Path, directory: Path, stem: str, format: str) -> Path:
    """Give a whole file its name, `stem.format`, or one with a number where that is taken. Returns its path."""
    for number in itertools.count():
        final = directory / (f"{stem}_{number}.{format}" if number else f"{stem}.{format}")
        try:
            os.link(partial, final)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not claim_without_links(partial, final):
                continue
        return final
    raise AssertionError("unreachable")


def claim_without_links(partial: Path, final: Path) -> bool:
    """Where the file system has no hard links: take the name with an empty file that only one can make, then replace it."""
    try:
        final.open("xb").close()
    except FileExistsError:
        return False
    try:
        replace(partial, final)
    except OSError:
        final.unlink()
        raise
    return True


def remove_stale(directory: Path) -> None:
    """Delete the temporary files that processes of this host left in `directory` when they died.

    Files of living processes and of other hosts, which may share the folder, are not touched.
    """
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".")]
    for name in names:
        if (match := _PARTIAL.fullmatch(name)) and match[1] == host_name() and not psutil.pid_exists(int(match[2])):
            with suppress(OSError):  # another process may be cleaning up too
                (directory / name).unlink()


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder of this process in `parent`, which only this user can open. Those that processes of this host left behind are deleted."""
    name = f"{name}.{host_name()[:20]}."
    for old in parent.iterdir():
        number = old.name.removeprefix(name).partition(".")[0]
        if old.name.startswith(name) and number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}{os.getpid()}.", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn the operating system's errors on `directory` into one line."""
    try:
        yield
    except OSError as error:
        raise cannot_write(directory, error) from None


def cannot_write(directory: Path, error: OSError) -> WriteError:
    """One line for an error of the operating system on `directory`."""
    if is_full(error):
        return WriteError(disk_full(directory))
    return WriteError(
        f"cannot write into {printable(directory)} ({error.strerror or error}): choose another folder with --output-dir"
    )


def is_full(error: BaseException | str) -> bool:
    """Whether an error, or its text, says that a disk or a user's quota of it is full."""
    return error.startswith(_DISK) if isinstance(error, str) else isinstance(error, OSError) and error.errno in _FULL


def disk_full(directory: Path, needed: float = 0.0) -> str:
    """Which disk is full, how much is free on it and needed (bytes), what is kept, and how to go on."""
    wanted = f", about {needed / 1e6:.3g} MB needed" if needed else ""
    return (
        f"{_DISK}{printable(directory)} is full ({free_bytes(directory) / 1e6:.1f} MB free{wanted}): what was finished is kept; "
        "free some space on it and run the same command again, or choose another folder with --output-dir"
    )


def free_bytes(directory: Path) -> int:
    """What is free on the disk of a folder, which need not be there yet."""
    place = next(place for place in (directory.absolute(), *directory.absolute().parents) if place.is_dir())
    return shutil.disk_usage(place).free


def host_name() -> str:
    # No dot, so that the host's part of a temporary name cannot be confused with the stem's.
    return re.sub(r"[./\\\s]", "_", socket.gethostname()) or "host"
