"""Turns: what computes on one device runs one after the other, also when it is two processes.

The lock is the operating system's, on an open file: it is released when the process that held it ends, however it ends.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from i2v_lab.devices.gpus import gpu
from i2v_lab.errors import I2VLabError, Message

LOOK_SECONDS = 0.2  # between two looks whether the device is free


_held = threading.local()  # .devices: those whose turn this thread has


@contextmanager
def turn(devices: tuple[str, ...], name: str, waiting: Callable[[str], None]) -> Iterator[bool]:
    """Hold the devices for the time of the block. A thread that holds a device already may ask for it again.

    Args:
        devices: such as "cpu", "cuda:0".
        name: of what holds them, for those who wait: "the sweep guidance", "a clip".
        waiting: called several times a second while another has the device, with a line that says which. What it raises
            (Stop) ends the waiting.

    Returns:
        Whether there was a wait: what was known before may be old.
    """
    mine: set[str] = getattr(_held, "devices", set())
    wanted = {_name(device) for device in devices} - mine
    waited = False
    with ExitStack() as held:
        for device in sorted(wanted):  # in one order, so that two never wait for each other
            lock = FileLock(lock_folder() / f"{device}.lock", thread_local=False)
            holder = lock_folder() / f"{device}.json"
            while True:
                try:
                    held.enter_context(lock.acquire(timeout=0))
                    break
                except Timeout:
                    waited = True
                    waiting(_whose(holder, device))
                    time.sleep(LOOK_SECONDS)
            with suppress(OSError):  # a full disk; who waits is told less
                holder.write_text(json.dumps({"pid": os.getpid(), "name": name}), encoding="utf-8")
        with lent(devices):
            yield waited


@contextmanager
def lent(devices: tuple[str, ...]) -> Iterator[None]:
    """This thread computes on the devices in the block, whose turn it or another process has for it."""
    mine: set[str] = getattr(_held, "devices", set())
    _held.devices = mine | {_name(device) for device in devices}
    try:
        yield
    finally:
        _held.devices = mine


def lock_folder() -> Path:
    """The folder of this user's locks: in the runtime folder where the system has one, otherwise beside other temporary files.

    Raises:
        I2VLabError: somebody else made it.
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    user = str(os.getuid()) if hasattr(os, "getuid") else re.sub(r"\W", "_", os.environ.get("USERNAME", "user"))
    base = Path(given) if Path(given).is_absolute() and Path(given).is_dir() else Path(tempfile.gettempdir())
    folder = base / f"i2v-lab-{user}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
        raise I2VLabError(f"{folder}: expected a folder of this user, for the locks of devices; remove it")
    return folder


def _name(device: str) -> str:
    """The device as the machine knows it: two processes may each call another GPU cuda:0."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return re.sub(r"\W", "_", device)
    if (found := gpu(device)) and found.uuid:
        return re.sub(r"[^\w-]", "_", f"cuda-{found.uuid}")
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    number = int(index or 0)
    return re.sub(r"[^\w-]", "_", f"cuda-{visible[number] if number < len(visible) else number}")


def _whose(holder: Path, device: str) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        name, pid = found["name"], int(found["pid"])
        return Message(f"waiting for {name} of process {pid} on {device}", "device.taken", name=name, pid=pid, device=device)
    except (OSError, ValueError, KeyError, TypeError):
        return Message(f"waiting for another process on {device}", "device.taken_unknown", device=device)
