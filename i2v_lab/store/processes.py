"""Which process it was, and whether it is still there: numbers of processes come again, soon so in containers."""

from __future__ import annotations

import os
import socket

MAKER = "I2V_JOBS_MADE_BY"  # variable of the environment: the process whose worker makes what this one asks for
CLOCK_SLACK_SECONDS = 5.0  # between a process's start, by the clock at boot, and a time that it noted


def own_name(pid: int | None = None) -> str:
    """A process (this one by default), as no other is called: host, number, and when it began."""
    import psutil

    pid = pid or os.getpid()
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time()}"


def pid_of(process_name: str) -> int | None:
    """The number of a process of this host; None of another one."""
    host, _, rest = process_name.partition(":")
    number = rest.partition(":")[0]
    return int(number) if host == socket.gethostname() and number.isdigit() else None


def asker_name() -> str:
    """Who asks for a job: this process. Where the worker of another makes it, "@" and that one follow: of a page, the server."""
    maker = os.environ.get(MAKER, "")
    return f"{own_name()}@{maker}" if maker and lives(maker) else own_name()


def lives(process_name: str) -> bool:
    """Whether the process of this name is still there; one of another host is taken to be."""
    host, _, rest = process_name.partition(":")
    pid, _, began = rest.partition(":")
    try:
        return host != socket.gethostname() or is_there(int(pid), float(began))
    except ValueError:
        return False


def is_there(pid: int, seen: float) -> bool:
    """Whether the process of this number that was there at this time, in seconds since 1970, still is."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= seen + CLOCK_SLACK_SECONDS
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError, TypeError, OverflowError):
        return False


def may_take(job_owner: str, owner: str) -> bool:
    """Whether a worker of `owner` may take a waiting job: its own, and those of processes that have ended or that are elsewhere.

    Args:
        job_owner: see `asker_name`; what is after an "@" counts.
    """
    maker = job_owner.rpartition("@")[2]
    return maker == owner or maker.partition(":")[0] != socket.gethostname() or not lives(maker)
