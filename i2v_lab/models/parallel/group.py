"""The processes that make a clip together, as the process of the run sees them: started, asked, and ended together."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from i2v_lab.clip.progress import Progress
from i2v_lab.errors import I2VLabError, RunError
from i2v_lab.portable import APART

log = logging.getLogger(__name__)
PULSE_SECONDS = 0.1  # between two looks whether to stop
GUILTY_SECONDS = 5.0  # an error of one process may come of the death of another, which is looked for as long
PREVIEW_SECONDS = 60.0  # to wait for a preview: on a GPU it comes after the step that goes on


class Group:
    """Processes, one a device. After any error none of them is left, and the group cannot be used again.

    Attributes:
        alive: whether it can be used.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        """Args: the device of each process."""
        self.devices = tuple(devices)
        self._answers: SimpleQueue[tuple[int, tuple[Any, ...]]] = SimpleQueue()
        self._previews: SimpleQueue[Any] = SimpleQueue()
        self._folder = Path(tempfile.mkdtemp(prefix="i2v-lab-parallel-"))
        self._processes = [self._start(number) for number in range(len(self.devices))]
        # Also where this process ends, or nobody needs the group any more.
        self.end = weakref.finalize(self, _end, self._processes, self._folder)

    @property
    def alive(self) -> bool:
        return self.end.alive

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        with (self._folder / f"{number}.log").open("wb") as remarks:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "i2v_lab.models.parallel.rank", str(number), str(len(self.devices)), self.devices[number],
                 str(self._folder / "meeting")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=remarks, **APART, env={**os.environ, **_environment()},
            )  # fmt: skip
        arguments = number, process.stdout, self._answers, self._previews
        threading.Thread(target=_listen, args=arguments, name=f"process {number} of a clip", daemon=True).start()
        return process

    def ask(self, what: str, progress: Progress, *request: Any) -> list[tuple[Any, ...]]:
        """Ask all processes for the same; what each answered.

        Args:
            what: what the answer begins with.
            progress: hears the stages and steps of the first process. What it raises (Stop) ends all processes at once.

        Raises:
            RunError: a process ended. I2VLabError: of a process.
        """
        try:
            for process in self._processes if request else ():
                with suppress(OSError):  # it ended, which its answer says
                    _send(process, *request)
            return self._answered(what, progress)
        except BaseException:
            self.end()
            raise

    def _answered(self, what: str, progress: Progress) -> list[tuple[Any, ...]]:
        found: dict[int, tuple[Any, ...]] = {}
        while len(found) < len(self.devices):
            try:
                number, (said, *rest) = self._answers.get(timeout=PULSE_SECONDS)
            except Empty:
                progress.pulse()
                continue
            if said == what:
                found[number] = tuple(rest)
            elif said == "stage":
                progress.stage(*rest)
            elif said == "step":
                progress.step(self._preview if rest[0] else None)
            elif said == "ended":
                raise self._ended(number)
            elif said == "error":
                raise self._guilty(number, rest[0])
        return [found[number] for number in range(len(self.devices))]

    def _preview(self) -> Any:
        _send(self._processes[0], "preview")
        if (made := self._previews.get(timeout=PREVIEW_SECONDS)) is None:
            raise RunError("there is no preview")
        return made

    def _guilty(self, number: int, error: Exception) -> Exception:
        """The error to raise where a process failed: it may be that another one ended, and this one lost it."""
        log.error("process %d of %d: %s", number + 1, len(self.devices), self._said(number))
        if isinstance(error, I2VLabError):
            return error
        until = time.monotonic() + GUILTY_SECONDS
        while time.monotonic() < until:
            with suppress(Empty):
                other, (said, *_) = self._answers.get(timeout=PULSE_SECONDS)
                if said == "ended":
                    return self._ended(other)
        return error

    def _ended(self, number: int) -> RunError:
        process = self._processes[number]
        code = process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        said = self._said(number) if code > 0 else ""
        log.error("process %d of %d %s: %s", number + 1, len(self.devices), how, said)
        last = f" ({said.splitlines()[-1][:300]})" if said else ""
        return RunError(f"parallel: process {number + 1} of {len(self.devices)} (on {self.devices[number]}) {how}{last}; the others were "
                        "ended too; make it again, or with less memory: a smaller resolution or fewer frames")  # fmt: skip

    def _said(self, number: int) -> str:
        with suppress(OSError):
            return (self._folder / f"{number}.log").read_text("utf-8", "replace").strip()
        return ""


def _send(process: subprocess.Popen[bytes], *request: Any) -> None:
    assert process.stdin  # noqa: S101 - a pipe
    pickle.dump(request, process.stdin)
    process.stdin.flush()


def _environment() -> dict[str, str]:
    """Of each process: the network of this machine alone."""
    loopback = next((name for name, found in psutil.net_if_addrs().items() if any(one.address == "127.0.0.1" for one in found)), "")
    network = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback} if loopback else {}
    return {**network, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _listen(number: int, answers: Any, found: SimpleQueue[tuple[int, tuple[Any, ...]]], previews: SimpleQueue[Any]) -> None:
    """Read what a process says, in a thread, until it ends."""
    with suppress(Exception):  # the end of the pipe, in whatever form
        while True:
            said = pickle.load(answers)  # noqa: S301 - a process that this one started
            if said[0] == "preview":
                previews.put(said[1])
            else:
                found.put((number, said))
    previews.put(None)
    found.put((number, ("ended",)))


def _end(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Kill them: one that waits for another in the middle of a step hears nothing else."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError, ValueError):
                if pipe:
                    pipe.close()
    shutil.rmtree(folder, ignore_errors=True)
