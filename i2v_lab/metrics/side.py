"""Measuring in the background: a second process measures finished clips while the next one is made.

On a machine with one core the clip is measured at once. The process reads the ids of runs from a pipe and opens the clip
files itself, so nothing is lost if it dies: the runs that it did not reach have no metrics, and `i2v-lab measure --missing`
fills them in. When its parent ends, in whatever way, it finishes what it was given and then ends too. No command waits for
it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import I2VLabError
from i2v_lab.metrics import measure_run
from i2v_lab.store import Store

log = logging.getLogger(__name__)

ON = True  # False: clips are not measured after their runs
NICE = 10


def measure_later(record: RunRecord, store: Store) -> RunRecord:
    """Have the clip of a run measured, and its record saved again with the metrics. Never raises for what a clip is like.

    Returns:
        The record: with its metrics where there is no second core, and they were computed at once.
    """
    if not ON or record.status != "done" or not record.clip:
        return record
    if not _second_core():
        return fill_in(record.id, store) or record
    try:
        _side().add(store.directory, record.id)
    except OSError as error:
        log.warning("no process for measuring clips can be started: %s", error)
    return record


def fill_in(id: str, store: Store) -> RunRecord | None:
    """Measure the clip of a run now and save its record with the metrics; None where it cannot be, and the log says why."""
    try:
        record = store.get(id)
        if record is None or record.status != "done":
            return None
        measured = measure_run(record, store)
        store.set_metrics(id, measured.values)
        return record.model_copy(update={"metrics": measured.values})
    except (I2VLabError, MemoryError, OSError) as error:
        log.warning("run %s was not measured: %s", id, error)
    except Exception:  # a fault of ours or of a library must not cost a clip that is made
        log.exception("unexpected error: run %s was not measured", id)
    return None


def wait(store: Store | None = None, seconds: float | None = None) -> int:
    """Wait until the clips of a store (None: of all) are measured, or for so many seconds. Returns how many are not."""
    return _own.wait(store.directory if store else None, seconds) if _own and _own.pid == os.getpid() else 0


def missing(store: Store, sweep: str | None = None) -> list[RunRecord]:
    """The runs that are done and have no metrics, though their clip is there."""
    done = store.records(sweep=sweep, status="done")
    return [record for record in done if not record.metrics and record.clip and (store.directory / record.clip).is_file()]


def _second_core() -> bool:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > 1


class _Side:
    """The other process, seen from its parent: what it was given and has not answered."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._pending: dict[tuple[str, str], subprocess.Popen[str]] = {}  # and the process that has it
        self._change = threading.Condition()
        self._writing = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def add(self, directory: Path, id: str) -> None:
        job = (str(directory), id)
        with self._change:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = self._start()
            self._pending[job] = process
        assert process.stdin  # noqa: S101 - for the type checker
        try:
            with self._writing:  # where some 500 clips wait, this waits for one of them
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
        except (OSError, ValueError):  # it has just ended
            self._drop(*job)

    def _start(self) -> subprocess.Popen[str]:
        """Begin the process. Nothing that ends this process reaches it: no Ctrl-C, no terminal."""
        lines = "import sys; from i2v_lab.metrics.side import main; main(sys.stdin, sys.stdout)"
        # One thread each: the cores belong to the clip in the making.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # Not from the current folder, which may have a statistics.py, but from this package's folder.
        paths = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, text=True, env=environment,
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(process,), name="metrics", daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout  # noqa: S101
        with suppress(OSError, ValueError), process.stdout:
            for line in process.stdout:
                self._drop(*json.loads(line))
        process.wait()
        with suppress(OSError):  # what was still to be written cannot be
            if process.stdin:
                process.stdin.close()
        with self._change:
            # Its own alone: a clip that came since has another process already.
            lost = [job for job, own in self._pending.items() if own is process]
            for job in lost:
                del self._pending[job]
            if lost:
                log.warning("the process that measures clips ended; %d clips have no metrics yet: i2v-lab measure --missing",
                            len(lost))  # fmt: skip
            self._change.notify_all()

    def _drop(self, directory: str, id: str) -> None:
        with self._change:
            self._pending.pop((directory, id), None)
            self._change.notify_all()

    def _left(self, directory: Path | None) -> int:
        return sum(directory is None or str(directory) == folder for folder, _ in self._pending)

    def wait(self, directory: Path | None, seconds: float | None) -> int:
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._change:
            while left := self._left(directory):
                room = None if deadline is None else deadline - time.monotonic()
                if room is not None and room <= 0:
                    return left
                self._change.wait(0.2 if room is None else min(room, 0.2))  # Ctrl-C is heard in between
        return 0


_own: _Side | None = None


def _side() -> _Side:
    global _own  # noqa: PLW0603
    if _own is None or _own.pid != os.getpid():  # after a fork the other one's pipe is not ours
        _own = _Side()
    return _own


def main(given: Iterable[str], answers: TextIO) -> None:
    """The other process: a line in (folder, run) is measured and answered by the same line."""
    import cv2

    cv2.setNumThreads(1)
    with suppress(OSError, AttributeError):
        os.nice(NICE)
    stores: dict[str, Store] = {}
    for line in given:
        folder, id = json.loads(line)
        with suppress(Exception):  # any error here concerns one clip
            if (Path(folder) / "runs.db").is_file():  # a store that was deleted meanwhile is not made again
                stores[folder] = stores.get(folder) or Store(Path(folder))
                fill_in(id, stores[folder])
        with suppress(OSError):  # the parent has ended: go on
            print(line.strip(), file=answers, flush=True)
