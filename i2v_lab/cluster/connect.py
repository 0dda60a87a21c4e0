"""open_pool: the Ray cluster that the settings name, or one of this machine's own; its workers; and the end of both."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from i2v_lab.clip.publish import temporary_folder
from i2v_lab.cluster.pool import Pool
from i2v_lab.cluster.share import NAMESPACE
from i2v_lab.errors import InputError
from i2v_lab.settings import Settings
from i2v_lab.store import Store

log = logging.getLogger(__name__)

PROBE_SECONDS = 4.0
STORE_BYTES = 256 * 2**20  # of memory for clips and pictures on their way, where the cluster is our own
FOLDER_MAX = 45  # characters of Ray's folder: the path of a socket in it holds 107
LOOPBACK = ("127.", "localhost", "[::1]")


@contextmanager
def open_pool(store: Store, settings: Settings, waiting: Callable[[str], None] | None = lambda line: None) -> Iterator[Pool]:
    """The workers of the cluster in `settings.cluster`. At the end of the block they are gone, whatever they were doing.

    Args:
        store: where clips and records go; this process alone writes it.
        waiting: called several times a second until the workers are there, with a line. It may raise Stop. None: do not wait.

    Raises:
        InputError: Ray is not installed, there is no such cluster, its versions are others, or no machine has as many devices as
            `parallel` says.
    """
    address = find_cluster(settings)
    with ExitStack() as opened:
        scratch = opened.enter_context(_connected(settings, address))
        pool = opened.enter_context(Pool(store, settings, scratch))
        if waiting:
            pool.open(waiting)
        yield pool


@contextmanager
def _connected(settings: Settings, address: str) -> Iterator[Path | None]:
    """Connect to the cluster, or start one. The folder for what its workers leave behind, if it was started here."""
    # Ray reads these when it starts. Its workers would be the last to get a core, and it would try a wrong address for minutes.
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_NUM_REDIS_GET_RETRIES", "1"), ("RAY_worker_niceness", "0")):
        os.environ.setdefault(name, value)
    # Ray's core reads the mode when it is imported.
    if address == "local" and "ray" not in sys.modules and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray
    from ray._private import ray_constants

    # Otherwise Ray uses, and listens on, the address that other machines see, also where 127.0.0.1 was asked for.
    ray_constants.ENABLE_RAY_CLUSTER = not (address == "local" or address.startswith(LOOPBACK))
    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False, "namespace": NAMESPACE}
    if address == "local":
        quiet |= {
            "num_cpus": (settings.cluster.workers or 1) * settings.parallel,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    folder = Path(tempfile.gettempdir())
    with ExitStack() as opened:
        if address == "local" and not os.environ.get("RAY_TMPDIR"):
            folder = opened.enter_context(temporary_folder(folder, "ray"))
            quiet |= {"_temp_dir": str(folder)} if len(str(folder)) < FOLDER_MAX else {}
        with _signals_kept():
            try:
                _begin(ray, address, quiet)
            except Exception as error:  # Ray raises all kinds
                log.exception("no cluster %s", address)
                raise InputError(f"cluster {address}: Ray says: {' '.join(str(error).split())[:300]}") from None
        try:
            yield folder if address == "local" else None
        finally:
            with _signals_kept():
                ray.shutdown()


def _begin(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Begin or join; a start on a busy machine may take longer than the half minute that Ray waits, and is tried again."""
    try:
        ray.init(address=address, **options)
    except Exception as error:
        if address != "local":
            raise
        log.warning("Ray did not start, and is tried again: %s", error)
        ray.shutdown()
        ray.init(address=address, **options)


def find_cluster(settings: Settings) -> str:
    """HOST:PORT of the cluster in the settings, which answers, or local.

    Raises:
        InputError: Ray is not installed; it does not answer, or is open to others without a token.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("--cluster needs Ray: pip install 'i2v_lab[cluster]'")
    asked = settings.cluster.address
    if asked == "auto":
        asked = os.environ.get("RAY_ADDRESS", "") or _running()
    if asked == "local":
        return asked
    host, _, port = asked.rpartition(":")
    if not host or not port.isdecimal() or "/" in asked:
        raise InputError(f"cluster: expected local, auto or HOST:PORT, such as 10.0.0.5:6379, got {asked!r}")
    if not host.startswith(LOOPBACK) and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(f"cluster {asked}: expected a cluster guarded by a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN on all its "
                         "machines and here; docs/cluster.md says how")  # fmt: skip
    if problem := _probe(host.strip("[]"), int(port)):
        raise InputError(
            f"cluster {asked}: expected a Ray cluster, got {problem}; `ray start --head` on that machine shows its address"
        )
    return asked


def _running() -> str:
    """The cluster that `ray start` began on this machine, where it is still there; otherwise local."""
    from ray._private.utils import read_ray_address

    with suppress(OSError):
        host, _, port = (read_ray_address() or "").rpartition(":")
        if host and port.isdecimal() and not _probe(host, int(port)):
            return f"{host}:{port}"
    return "local"


def _probe(host: str, port: int) -> str:
    """Why no Ray cluster answers there; "" where one may. Ray itself would try for minutes."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_SECONDS) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # as gRPC begins
            answer = connection.recv(9)
    except (OSError, OverflowError, UnicodeError) as error:
        return f"no answer ({getattr(error, 'strerror', None) or error})"
    return "" if len(answer) >= 4 and answer[3:4] == b"\x04" else "another service"  # a frame of settings, first of all


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray sets a handler of SIGTERM of its own: put back what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
