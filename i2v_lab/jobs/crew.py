"""The worker processes of a runner: one a device, one a worker of a cluster, or several on the CPU, with one turn for all of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Literal, NoReturn

from i2v_lab.devices.gpus import default_device, gpu
from i2v_lab.devices.turns import turn
from i2v_lab.errors import SettingsError, Stop
from i2v_lab.portable import APART
from i2v_lab.settings import Settings
from i2v_lab.store.jobs import Job

log = logging.getLogger(__name__)
KILL_SECONDS = 15.0  # how long a worker may take to end once its clip was stopped
WITH_PARENT = "--stop-with-parent"  # arguments of a worker
OWN_DEVICE = "--own-device"
SHARED_TURN = "--shared-turn"
ON_CLUSTER = "cluster"  # the device of a worker whose clips are made by a worker of a Ray cluster
LOOK, TURN_IS_OURS, TURN_IS_OVER = b"\n", b"+", b"-"  # what a worker is told


def devices_of_workers(settings: Settings) -> list[str]:
    """The device of each worker of a server: "cpu" for all, "cluster" for all, or a GPU each, of which each takes `parallel`.

    Raises:
        SettingsError: there are fewer GPUs.
    """
    count, each = settings.server.workers, settings.parallel
    if settings.cluster.has_address:
        return [ON_CLUSTER] * count
    device = default_device() if settings.device == "auto" else settings.device
    kind, _, first = device.partition(":")
    if kind == "cpu":
        return ["cpu"] * count
    if kind == "mps" and count == 1:  # Apple's has no number
        return [device]
    start = int(first or 0)
    found = [f"{kind}:{start + number * each}" for number in range(count)]
    if count > 1 and gpu(last := f"{kind}:{start + count * each - 1}") is None:
        raise SettingsError(f"server.workers: expected a GPU for each ({found[0]} to {last}), got {count} workers and a machine with fewer; "
                            "use fewer workers")  # fmt: skip
    return found


@dataclass
class Post:
    """The place of one worker.

    Attributes:
        number: from 1. device: of its clips.
        process: the worker, while there is one.
        taken: the newest job that was taken when it was started.
    """

    number: int
    device: str
    process: subprocess.Popen[bytes] | None = None
    taken: int = 0

    def start(self, settings: Settings, environment: dict[str, str], taken: int, *, alone: bool, stop_with_process: bool) -> None:
        """Start its worker. Ctrl-C in the terminal is not for it.

        Args:
            environment: variables. alone: it is the only post.
        """
        words = [WITH_PARENT] * stop_with_process
        if not alone and self.device != ON_CLUSTER:
            words.append(SHARED_TURN if self.device == "cpu" else OWN_DEVICE)
            environment = {**environment, "I2V_LAB_DEVICE": self.device}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "i2v_lab.jobs.worker", *words],
            stdin=subprocess.PIPE, bufsize=0, **APART, env={**os.environ, **environment},
        )  # fmt: skip
        assert self.process.stdin  # noqa: S101 - a pipe
        with suppress(AttributeError):  # Windows has none in Python 3.11
            os.set_blocking(self.process.stdin.fileno(), False)  # a full pipe wakes as well, and must not hold up the one who asks
        self.taken = taken
        log.info("worker %d started on %s, process %d", self.number, self.device, self.process.pid)

    def tell(self, what: bytes) -> None:
        process = self.process  # a thread may end it meanwhile, and close its pipe
        if process and process.stdin:
            with suppress(OSError, ValueError):
                process.stdin.write(what)

    def ended(self) -> int | None:
        """The code with which its worker ended; then the post is free. None while it lives or there is none."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        log.log(logging.INFO if code == 0 else logging.ERROR, "worker %d ended with %d", self.process.pid, code)
        if self.process.stdin:
            self.process.stdin.close()
        self.process = None
        return code


@dataclass(frozen=True)
class WorkerStatus:
    """A worker at the last look.

    Attributes:
        number: from 1. pid: None while it has no process: one is started where there is a job for it.
        state: off, idle, waits (for the turn of the device, or an answer from the cluster: `note` says which) or works.
        job: that it makes.
        where: HOST:PID of the worker of a cluster that makes it.
    """

    number: int
    device: str
    pid: int | None
    state: Literal["off", "idle", "waits", "works"]
    note: str = ""
    job: Job | None = None
    where: str = ""


def end(posts: list[Post], stop_seconds: float) -> None:
    """End all workers at once: their clips may be finished within `stop_seconds`, then they are stopped. Waits for that."""
    processes = [post.process for post in posts if post.process]
    for process in processes:
        if process.stdin:
            process.stdin.close()  # it takes no other job
    for seconds, and_then in ((stop_seconds, "terminate"), (KILL_SECONDS, "kill"), (10.0, "")):
        until, left = time.monotonic() + seconds, []
        for process in processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                left.append(process)
        for process in left if and_then else ():
            getattr(process, and_then)()
        processes = left


class SharedTurn:
    """The turn of the CPU, for all workers of a runner: two that each waited for it would never work at once.

    Its methods are called by one thread.
    """

    def __init__(self, posts: list[Post]) -> None:
        self.posts, self._held, self._over = posts, ExitStack(), False
        self.is_ours = False
        self.line = ""  # who has it instead

    def keep(self, *, wanted: bool) -> None:
        """Take it where there is something to make, and give it back where there is nothing left."""
        if not self.is_ours:
            if wanted:
                self._take()
        elif wanted and self._over:
            self._over = False
            self.tell(TURN_IS_OURS)
        elif not wanted and not self._over:  # a worker may be taking a job at this moment: the next look will show it
            self._over = True
            self.tell(TURN_IS_OVER)
        elif not wanted:
            self.close()

    def _take(self) -> None:
        def not_now(line: str) -> NoReturn:
            self.line = line
            raise Stop(line)

        with suppress(Stop):
            self._held.enter_context(turn(("cpu",), "the workers of a server", not_now))
            self.is_ours, self._over, self.line = True, False, ""
            self.tell(TURN_IS_OURS)

    def tell(self, what: bytes) -> None:
        for post in self.posts:
            post.tell(what)

    def close(self) -> None:
        self.is_ours = False
        self._held.close()
