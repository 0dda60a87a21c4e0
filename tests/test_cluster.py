"""Sweeps on a cluster of two Ray nodes on this machine: the clips of a plain sweep, and what happens when something breaks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import BASE, LONG, NODE, Once, cells, cluster_of, made, on_head, raylet_of, settings_on
from conftest import environment, finish, start
from held import until

from i2v_lab.clip.record import RunRecord
from i2v_lab.cluster import Pool
from i2v_lab.cluster.share import divide
from i2v_lab.cluster.staff import other_versions
from i2v_lab.devices.hardware import versions
from i2v_lab.run.task import Task
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepProgress, SweepStatus, plan_sweep, run_sweep
from i2v_lab.sweep.status import CellProgress


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two nodes of one slot each."""
    with cluster_of({}, {}) as found:
        yield found


def test_24_clips_are_those_of_a_plain_sweep_each_made_once(cluster, photograph, tmp_path):
    sweep = cells(12, image=str(photograph)).changed(axes={"guidance_scale": [1, 4]})
    seen: set[tuple[int, int]] = set()

    class Watch(SweepProgress):
        def updated(self, status: SweepStatus) -> None:
            seen.update((one.pid, one.cell) for one in status.workers if one.cell)

    folder = tmp_path / "pool"
    settings = settings_on(cluster, folder)
    result = run_sweep(sweep, Store(folder), settings=settings, progress=Watch())
    assert (result.counts, result.ran, result.stopped) == ({"done": 24}, 24, "")
    runs, plain = result.table(), run_sweep(sweep, Store(tmp_path / "plain"), settings=Settings()).table()
    assert runs["frames_sha256"].tolist() == plain["frames_sha256"].tolist()
    assert (runs["key"].tolist(), runs["image"].tolist()) == (plain["key"].tolist(), plain["image"].tolist())
    assert runs["metric_motion"].notna().all()
    assert len(Store(folder).records()) == 24  # a run each
    assert runs["pid"].nunique() == 2
    assert {pid for pid, _ in seen} == set(runs["pid"])
    # Read by this machine alone, with another key perhaps, it is done.
    assert plan_sweep(sweep, Store(folder), settings).counts == {"done": 24}
    assert run_sweep(sweep, Store(folder), settings=settings, retry="none").counts == {"done": 24}


def test_a_worker_that_is_killed_and_one_whose_node_is_lost_cost_a_try_each(cluster, tmp_path):
    struck: list[int] = []  # the cells
    ended: list[int] = []

    class Strike(SweepProgress):
        def updated(self, status: SweepStatus) -> None:
            for one in status.workers:
                if one.stage not in AT_WORK or one.cell in struck:
                    continue
                if not struck and not on_head(cluster, one.pid):
                    struck.append(one.cell)
                    (node,) = cluster.worker_nodes
                    cluster.remove_node(node, allow_graceful=False)
                    cluster.add_node(**NODE, wait=False)
                elif len(struck) == 1 and struck[0] in ended:  # the same cell twice would have failed
                    struck.append(one.cell)
                    os.kill(one.pid, signal.SIGKILL)

    store = Store(tmp_path / "s")
    result = run_sweep(cells(7, **LONG), store, settings=settings_on(cluster, store.directory), progress=Strike(),
                       on_cell=lambda cell, record: ended.append(cell.number))  # fmt: skip
    assert result.counts == {"done": 7}
    records = store.records()
    assert len(records) == 7
    again = [record for record in records if record.notes]
    assert len(struck) == len(again) == 2
    assert all("made again: its first worker died" in record.notes[0] for record in again)


AT_WORK = ("encode", "denoise", "decode", "write")


DRIVER = """
import sys, time
from pathlib import Path
from clusters import LONG, cells
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, run_sweep
folder = Path(sys.argv[1])
settings = Settings(output={"directory": folder}, cluster={"address": sys.argv[2], "workers": 2})
print(run_sweep(cells(int(sys.argv[3]), **LONG), Store(folder), settings=settings).ran)
"""


def _driver(folder: Path, address: str, count: int = 5, **more: str) -> subprocess.Popen[str]:
    """So many cells, in a process of their own; it says how many it made."""
    env = {
        **environment(folder.parent),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]]),
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), address, str(count)], env=env, text=True, stdout=subprocess.PIPE
    )


@pytest.mark.slow
def test_the_driver_killed_and_started_again_makes_no_finished_clip_twice(cluster, tmp_path):
    first, store = _driver(tmp_path / "s", cluster.address), Store(tmp_path / "s")
    with first:
        until(lambda: store.records(status="done") and store.records(status="running"))
        first.kill()
    before = {record.id for record in store.records(status="done")}
    with _driver(tmp_path / "s", cluster.address) as second:
        out, _ = second.communicate(timeout=120)
    store = Store(tmp_path / "s")
    assert int(out) == 5 - len(before)
    assert len(made(store)) == 5
    assert before <= {record.id for record in store.records(status="done")}
    assert not store.records(status="running")


def test_shares_are_equal_and_nothing_is_left_over():
    assert divide({"a": 9, "b": 9}, 4) == {"a": 2, "b": 2}
    assert divide({"a": 9, "b": 9, "c": 1}, 6) == {"a": 3, "b": 2, "c": 1}
    assert divide({"a": 1, "b": 9}, 4) == {"a": 1, "b": 3}
    assert divide({}, 4) == {}


def test_other_versions_are_named():
    assert other_versions(versions()) == ""
    assert other_versions({**versions(), "torch": "1.0"}).startswith("torch 1.0 (here ")
    assert "diffusers none" in other_versions({name: found for name, found in versions().items() if name != "diffusers"})


def test_no_name_and_no_place_of_a_worker_is_used(store, params):
    pool, task = Pool(store, Settings()), Task(1, params, sweep="mine")
    said = RunRecord(
        id="theirs",
        status="done",
        params=params.replace(image="/etc/passwd", model="/theirs"),
        sweep="theirs",
        clip="clips/evil.sh",
    )
    kept = pool.keep(task, said.model_dump_json(), b"bytes")
    assert (kept.id, kept.sweep, kept.params) == (task.id, "mine", params)
    (clip,) = store.clips.iterdir()
    assert (store.directory / kept.clip, clip.suffix, clip.read_bytes()) == (clip, ".mp4", b"bytes")
    for text in (said.model_dump_json().replace("clips/evil.sh", "../evil"), "{}", "no JSON"):
        refused = pool.keep(Task(2, params), text, b"bytes")
        assert (refused.status, refused.clip) == ("failed", "")
    assert len(list(store.clips.iterdir())) == 1


def test_a_wrong_address_is_one_line(inside, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        other = silent.getsockname()[1]
        for address, expected in ((f"127.0.0.1:{nobody}", "expected a Ray cluster"), (f"127.0.0.1:{other}", "expected a Ray cluster"),
                                  ("nowhere", "HOST:PORT"), ("10.255.255.1:6379", "guarded by a token")):  # fmt: skip
            done = inside("sweep", "--axis", "seed=1,2", "--base", "image=sample:coffee", "--cluster", address, "--json",
                          env={"RAY_AUTH_MODE": ""})  # fmt: skip
            assert (done.returncode, done.stdout) == (2, "")
            (line,) = done.stderr.splitlines()
            assert expected in line


def test_without_ray_a_line_says_what_to_install(inside, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    done = inside("sweep", "--axis", "seed=1,2", "--base", "image=sample:coffee", "--cluster", "local")
    assert (done.returncode, done.stderr.splitlines()) == (2, ["error: --cluster needs Ray: pip install 'i2v_lab[cluster]'"])


@pytest.mark.slow
def test_a_local_cluster_answers_json_alone_and_ctrl_c_leaves_no_process(tmp_path):
    mark = f"I2V-{os.getpid()}"
    (tmp_path / "s.yaml").write_text(json.dumps({"name": "s", "base": BASE, "axes": {"seed": [1, 2, 3]}}))
    env = {"I2V_TESTS_MARK": mark, "RAY_TMPDIR": "", "RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": ""}
    words = ("sweep", "s.yaml", "--no-report", "--json", "--cluster", "local", "--workers", "2")
    done = finish(start(*words, cwd=tmp_path, env=env, cold=True), 300)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["counts"] == {"done": 3}
    until(lambda: not _marked(mark))
    (tmp_path / "s.yaml").write_text(json.dumps({"name": "s", "base": LONG, "axes": {"seed": [1, 2, 3, 4, 5, 6, 7, 8]}}))
    process = start(*words, cwd=tmp_path, env=env, cold=True)
    store = Store(tmp_path / "results")
    until(lambda: store.records(status="running"))
    assert len(_marked(mark)) > 3
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    ended = finish(process, 120)
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    until(lambda: not _marked(mark))
    assert not store.records(status="running")


def _marked(mark: str) -> list[psutil.Process]:
    """The processes that have the mark in their environment, whoever began them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("I2V_TESTS_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_cells_that_only_a_large_device_holds_go_there_and_nobody_waits(tmp_path, monkeypatch):
    small, large = 8, 32
    sweep = Sweep(name="kinds", base={**BASE, "resolution": "512p"}, seeds=list(range(1, 15)), axes={"num_frames": [small, large]},
                  where=f"num_frames < {large} or seed < 3")  # fmt: skip
    idle: list[Any] = []
    hear = CellProgress.workers

    def look(watch: CellProgress, states: Any) -> None:
        busy = sum(one.cell > 0 for one in states)
        if watch.status.ran and busy < len(states) and watch.status.ran + busy < watch.status.to_run:
            idle.append(states)
        hear(watch, states)

    monkeypatch.setattr(CellProgress, "workers", look)
    with cluster_of({"memory": 2**30}, {"memory": int(0.34 * 2**30)}) as cluster:
        settings = settings_on(cluster, tmp_path / "s")
        result = run_sweep(sweep, Store(tmp_path / "s"), settings=settings)
    runs = result.table()
    assert result.counts == {"done": 16}
    assert not idle
    of_large = runs[runs["num_frames"] == large]["pid"].unique()
    assert len(of_large) == 1
    mine = runs[runs["pid"] == of_large[0]].sort_values("created")
    assert mine["num_frames"].tolist()[:2] == [large, large]
    assert len(mine) < 16


@pytest.mark.slow
def test_two_sweeps_at_once_have_a_worker_each(cluster, tmp_path):
    counts, stores, drivers = (40, 8), [], []  # the first has both workers until the second is there
    for name, count in zip(("one", "two"), counts, strict=True):
        (tmp_path / name / "locks").mkdir(parents=True)
        stores.append(Store(tmp_path / name / "s"))
        locks = str(tmp_path / name / "locks")  # as on two machines
        drivers.append(_driver(tmp_path / name / "s", cluster.address, count, XDG_RUNTIME_DIR=locks))
        until(lambda: stores[-1].records(status="running"), 180)

    def at(status: Any) -> list[int]:
        return [len(store.records(status=status)) for store in stores]

    before, seen = at("done"), 0
    while at("done")[1] < counts[1] - 1:
        seen += at("running") == [1, 1]
    after = at("done")
    print("made by each meanwhile:", after[0] - before[0], after[1] - before[1])
    assert seen
    # A cell each way for the two moments of looking, and one for a machine that is busy.
    assert abs((after[0] - before[0]) - (after[1] - before[1])) <= 3, (before, after)
    for driver, store, count in zip(drivers, stores, counts, strict=True):
        with driver:
            assert driver.communicate(timeout=180)[0] == f"{count}\n"
        assert len(made(store)) == count


@pytest.mark.slow
def test_a_frozen_node_holds_nobody_up(tmp_path):
    stopped: list[psutil.Process] = []

    def freeze(one: Any) -> None:
        stopped.extend([psutil.Process(one.pid), raylet_of(one.pid)])
        for process in stopped:
            process.suspend()

    others: list[int] = []
    store = Store(tmp_path / "s")
    with cluster_of({}, {}) as cluster:
        try:
            result = run_sweep(cells(4, **LONG), store, settings=settings_on(cluster, tmp_path / "s"), progress=Once(cluster, "write", freeze),
                               on_cell=lambda cell, record: others.append(record.pid))  # fmt: skip
        finally:
            for process in stopped:
                if process.is_running():
                    process.resume()
    assert result.counts == {"done": 4}
    frozen = stopped[0].pid
    assert frozen not in others
    (again,) = [record for record in store.records() if record.notes]
    assert again.finished == max(record.finished for record in store.records() if record.finished)  # the others were made before


@pytest.mark.slow
def test_memory_that_is_exhausted_costs_one_cell_at_most(cluster, tmp_path):
    import resource

    limited: list[int] = []

    def limit(one: Any) -> None:
        limited.append(one.pid)
        resource.prlimit(one.pid, resource.RLIMIT_AS, (psutil.Process(one.pid).memory_info().vms, resource.RLIM_INFINITY))

    def lift(cell: Any, record: Any) -> None:
        if limited and record.pid == limited[0] and psutil.pid_exists(limited[0]):
            resource.prlimit(limited[0], resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    store = Store(tmp_path / "s")
    result = run_sweep(
        cells(6, **LONG), store, settings=settings_on(cluster, tmp_path / "s"), progress=Once(cluster, "write", limit), on_cell=lift
    )
    assert limited
    assert result.counts.get("done", 0) >= 5 - 1  # that one, or with it the one that the worker had been given since
    assert sum(result.counts.values()) == 6
    for record in store.records():
        assert record.status == "done" or (record.status == "out_of_memory" and "memory" in record.reason), record.reason
