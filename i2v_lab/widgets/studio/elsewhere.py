"""Clips that other processes make without the queue: a command in a terminal, a cell of a notebook."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress

from i2v_lab.clip.record import RunRecord
from i2v_lab.jobs import JobStatus
from i2v_lab.store import Store
from i2v_lab.store.processes import is_there


def made_elsewhere(store: Store, active: Sequence[JobStatus]) -> list[RunRecord]:
    """The runs that are being made and belong to no job of the queue.

    Raises:
        StoreError: the record cannot be read.
    """
    jobs = {status.job.id for status in active}
    sweeps = {json.loads(status.job.status or "{}").get("sweep") for status in active if status.job.kind != "clip"}
    return [record for record in store.records(status="running") if record.id not in jobs and record.sweep not in sweeps - {""}]


def can_stop(record: RunRecord) -> bool:
    """Whether its process is one of this machine's, that understands Ctrl-C."""
    here = record.host == socket.gethostname() and record.pid != os.getpid()
    return os.name == "posix" and here and is_there(record.pid, record.created.timestamp())


def stop(record: RunRecord) -> None:
    """Press Ctrl-C in its process: a command records the clip as stopped."""
    if can_stop(record):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            os.kill(record.pid, signal.SIGINT)
