"""A Ray cluster on this machine for tests: nodes of one slot each, the first of them its head; and the sweeps that run on it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from i2v_lab.cluster import WorkerState
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepProgress, SweepStatus

ROOT = Path(__file__).parent.parent
TOKEN = "0" * 32
START_SECONDS = 240.0  # that a node may take to start
NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20, "num_cpus": 1}
BASE = {
    "image": "sample:coffee",
    "prompt": "zoom in",
    "model": "closed-form",
    "resolution": "64x64",
    "num_frames": 4,
    "num_inference_steps": 4,
}
LONG = {"image": "sample:coffee", "model": "fake", "resolution": "512p", "num_frames": 48}  # some seconds, most of them in "write"


@contextmanager
def cluster_of(*nodes: dict[str, Any]) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of these nodes, the first of them its head. Its address is `.address`."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path holds 107 bytes
    env = {
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_NUM_REDIS_GET_RETRIES": "1",
        "RAY_worker_niceness": "0",
        "RAY_agent_register_timeout_ms": str(int(START_SECONDS * 1000)),  # after which a node that is slow to start ends itself
        "RAY_worker_register_timeout_seconds": str(int(START_SECONDS)),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ["PYTHONPATH"]])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with ExitStack() as opened:
        opened.enter_context(patch.dict(os.environ, env))
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        import ray
        from ray._private import services
        from ray.cluster_utils import Cluster

        # A node that is slow to start would end the test after 30 s.
        opened.enter_context(patch.object(services, "get_node", partial(_patient, services.get_node)))
        quiet = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
        made = Cluster(initialize_head=True, head_node_args={**NODE, **nodes[0], **quiet})
        opened.callback(made.shutdown)
        opened.callback(ray.shutdown)
        for node in nodes[1:]:
            made.add_node(wait=False, **{**NODE, **node})
        made.wait_for_nodes(START_SECONDS)
        yield made


def _patient(get_node: Callable[[str, str], Any], address: str, node: str) -> Any:
    """What Ray knows of a node that begins; it is asked until it is there."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return get_node(address, node)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def settings_on(cluster: Any, folder: Path, **more: Any) -> Settings:
    """The settings of a sweep on the cluster, with its output folder."""
    return Settings(output={"directory": folder}, cluster={"address": cluster.address, "workers": 2, **more})


class Once(SweepProgress):
    """Strikes once: a worker on the node that is not the head, when it is at a stage."""

    def __init__(self, cluster: Any, stage: str, strike: Callable[[WorkerState], None]) -> None:
        self.cluster, self.stage_wanted, self.strike, self.done = cluster, stage, strike, False
        self.workers: tuple[WorkerState, ...] = ()

    def updated(self, status: SweepStatus) -> None:
        self.workers = status.workers
        for one in status.workers:
            if not self.done and one.stage == self.stage_wanted and not on_head(self.cluster, one.pid):
                self.done = True
                self.strike(one)


def on_head(cluster: Any, pid: int) -> bool:
    """Whether a worker is on the head's node."""
    return raylet_of(pid).pid in {info.process.pid for info in cluster.head_node.all_processes["raylet"]}


def raylet_of(pid: int) -> psutil.Process:
    """Ray's own process on the node of a worker."""
    found = psutil.Process(pid).parent()
    assert found
    return found


def cells(count: int, **base: Any) -> Sweep:
    """A sweep of so many seeds."""
    return Sweep(name="cells", base={**BASE, **base}, seeds=list(range(1, count + 1)))


def made(store: Store) -> dict[int, str]:
    """{seed: frames} of the done runs; each has its clip."""
    done = store.records(status="done")
    assert len({record.params.seed for record in done if record.params}) == len(done)
    assert all((store.directory / record.clip).is_file() for record in done)
    return {record.params.seed: record.frames_sha256 for record in done if record.params}
