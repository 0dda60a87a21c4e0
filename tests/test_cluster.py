"""Sweeps and servers on a cluster of two Ray nodes on this machine: the clips of a plain sweep, and what happens when something breaks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkpoints import BASE as BASE_XL
from checkpoints import make_checkpoint
from clusters import BASE, LONG, NODE, Once, cells, cluster_of, made, on_head, raylet_of, settings_on
from conftest import environment, finish, start
from held import until
from servers import Server, data_url, picture, shows

from i2v_lab import models
from i2v_lab.clip.record import RunRecord
from i2v_lab.cluster import Pool, connect
from i2v_lab.cluster.share import Wish, divide
from i2v_lab.cluster.staff import other_versions
from i2v_lab.devices.hardware import versions
from i2v_lab.errors import InputError
from i2v_lab.run import run_clip
from i2v_lab.run.task import Task
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepProgress, SweepStatus, plan_sweep, run_sweep
from i2v_lab.sweep.status import CellProgress


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one slot each."""
    with cluster_of({}, {}) as found:
        yield found


@pytest.mark.slow
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
    result = run_sweep(cells(5, **LONG), store, settings=settings_on(cluster, store.directory), progress=Strike(),
                       on_cell=lambda cell, record: ended.append(cell.number))  # fmt: skip
    assert result.counts == {"done": 5}
    records = store.records()
    assert len(records) == 5
    again = [record for record in records if record.notes]
    assert len(struck) == len(again) == 2
    assert all("made again: its first worker died" in record.notes[0] for record in again)


AT_WORK = ("encode", "denoise", "decode", "write")


@pytest.mark.slow
def test_a_cell_that_ends_two_workers_has_failed_and_the_others_are_made(cluster, tmp_path):
    killed: list[int] = []

    class Strike(SweepProgress):
        def updated(self, status: SweepStatus) -> None:
            for one in status.workers:
                if one.cell == 1 and one.stage in AT_WORK and one.pid not in killed:
                    killed.append(one.pid)
                    os.kill(one.pid, signal.SIGKILL)

    store = Store(tmp_path / "s")
    result = run_sweep(cells(3, **LONG), store, settings=settings_on(cluster, store.directory), progress=Strike())
    assert result.counts == {"done": 2, "failed": 1}
    assert len(killed) == 2
    (failed,) = [record for record in store.records() if record.status == "failed"]
    assert failed.params.seed == 1
    assert failed.reason.startswith("its workers died: ")
    assert all(f":{pid}" in failed.reason for pid in killed)


DRIVER = """
import sys
from pathlib import Path
from clusters import LONG, cells
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import run_sweep
folder = Path(sys.argv[1])
import ray
sys.stdin.readline()
settings = Settings(output={"directory": folder}, cluster={"address": sys.argv[2], "workers": 2})
print(run_sweep(cells(int(sys.argv[3]), **LONG), Store(folder), settings=settings).ran)
"""


def _driver(folder: Path, address: str, count: int, **more: str) -> subprocess.Popen[str]:
    """So many cells, in a process of their own, which begins at `_go`; it says how many it made."""
    env = {
        **environment(folder.parent),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]]),
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), address, str(count)],
        env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _go(driver: subprocess.Popen[str]) -> None:
    assert driver.stdin
    driver.stdin.write("go\n")
    driver.stdin.flush()


def test_the_driver_killed_and_started_again_makes_no_finished_clip_twice(cluster, tmp_path):
    first, store = _driver(tmp_path / "s", cluster.address, 4), Store(tmp_path / "s")
    with first:
        _go(first)
        until(lambda: store.records(status="done") and store.records(status="running"), 180)
        first.kill()
    before = {record.id for record in store.records(status="done")}
    with _driver(tmp_path / "s", cluster.address, 4) as second:
        _go(second)
        out, _ = second.communicate(timeout=240)
    store = Store(tmp_path / "s")
    assert int(out) == 4 - len(before)
    assert len(made(store)) == 4
    assert before <= {record.id for record in store.records(status="done")}
    assert not store.records(status="running")


def test_shares_are_equal_and_nothing_is_left_over():
    one, many = Wish(1), Wish(9)
    assert divide({"a": many, "b": many}, 4) == {"a": 2, "b": 2}
    assert divide({"a": many, "b": many, "c": one}, 6) == {"a": 3, "b": 2, "c": 1}
    assert divide({"a": one, "b": many}, 4) == {"a": 1, "b": 3}
    assert divide({}, 4) == {}
    pairs = Wish(8, each=2)  # workers of two devices
    assert divide({"a": pairs, "b": pairs}, 2) == {"a": 2, "b": 0}
    assert divide({"a": pairs, "b": many}, 5) == {"a": 2, "b": 3}
    idle = Wish(1, idle=True)
    assert divide({"a": idle, "b": idle, "c": many}, 4) == {"a": 0, "b": 0, "c": 4}
    assert divide({"a": idle, "b": idle, "c": one}, 2) == {"a": 1, "b": 0, "c": 1}


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


def test_a_wrong_address_is_one_line(inside, monkeypatch):
    monkeypatch.setattr(connect, "PROBE_SECONDS", 1.0)
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
    counts = (16, 4)  # the first has both workers until the second is there
    folders = [tmp_path / name / "s" for name in ("one", "two")]
    drivers, stores = [], [Store(folder) for folder in folders]
    for folder, count in zip(folders, counts, strict=True):
        locks = folder.parent / "locks"  # as on two machines
        locks.mkdir(parents=True)
        drivers.append(_driver(folder, cluster.address, count, XDG_RUNTIME_DIR=str(locks)))
    _go(drivers[0])
    until(lambda: len(stores[0].records(status="running")) == 2, 180)
    _go(drivers[1])
    for driver, count in zip(drivers, counts, strict=True):
        with driver:
            assert driver.communicate(timeout=240)[0] == f"{count}\n"
    for store, count in zip(stores, counts, strict=True):
        assert len(made(store)) == count
    # As long as both had something to make, each had one worker.
    runs = [store.records() for store in stores]
    begin = min(record.created for record in runs[1])
    end = min(max(record.finished for record in of if record.finished) for of in runs)
    meanwhile = [[record.pid for record in of if begin <= record.created < end] for of in runs]
    print("made by each meanwhile:", *map(len, meanwhile))
    assert [len(set(pids)) for pids in meanwhile] == [1, 1], meanwhile
    assert abs(len(meanwhile[0]) - len(meanwhile[1])) <= 2, meanwhile  # one, and one for a core that was busy
    assert len({record.pid for record in runs[0]}) >= 2


@pytest.mark.slow
def test_the_clips_of_a_server_are_made_on_the_cluster_two_at_a_time(cluster, tmp_path):
    folder, words = tmp_path / "own", ("--workers", "2", "--cluster", cluster.address)
    server = Server(folder, *words).start()
    try:
        bodies = [{"image": data_url(picture(number)), **SERVED} for number in range(8)]
        ids = [server.send("POST", "/api/clips", json=body).json()["id"] for body in bodies]

        def working() -> list[dict[str, Any]]:
            return [one for one in server.get("/api/workers").json()["workers"] if one["where"]]

        until(lambda: len(working()) == 2, 180)
        assert {one["device"] for one in working()} <= {"cluster"}
        until(lambda: sum(server.job(id)["state"] == "done" for id in ids) >= 2, 120)
        server.kill()  # its workers finish what they make
        server = Server(folder, *words).start()
        until(lambda: all(server.job(id)["state"] not in ("waiting", "running") for id in ids), 240)
        ended = [server.job(id) for id in ids]
        assert [job["state"] for job in ended] == ["done"] * 8, ended
        for number, job in enumerate(ended):
            assert shows(server.get(job["result"]["url"]).content, number, folder)
        records = {record.id: record for record in Store(folder / "results").records()}
        assert [f"{records[job['id']].host}:{records[job['id']].pid}" for job in ended] == [job["worker"] for job in ended]
        assert len(records) == 8  # none twice
        assert len({record.pid for record in records.values()}) >= 2
        assert all(record.metrics for record in records.values())
        for pid in {record.pid for record in records.values()}:  # those that rest, and are kept
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        another = server.send("POST", "/api/clips", json={**bodies[0], "seed": 1}).json()["id"]
        until(lambda: server.job(another)["state"] not in ("waiting", "running"), 120)
        assert server.job(another)["state"] == "done", server.job(another)
        long = server.send("POST", "/api/clips", json={**LONG, "num_frames": 200}).json()["id"]
        until(lambda: server.job(long)["stage"] == "write", 120)
        server.send("DELETE", f"/api/clips/{long}")
        assert server.ended(long)["state"] == "stopped"
    finally:
        server.end()


@pytest.mark.slow
def test_a_worker_of_two_devices_makes_the_clip_that_two_make_here(tmp_path):
    params = BASE_XL.replace(model=str(make_checkpoint(tmp_path / "checkpoint")), image="sample:coffee")
    here = run_clip(params, None, Store(tmp_path / "here"), settings=Settings(device="cpu", parallel=2))
    models.unload()
    sweep = Sweep(name="two", base=params.plain(), seeds=[params.seed])
    with cluster_of({"num_cpus": 2}) as cluster:
        settings = settings_on(cluster, tmp_path / "s").model_copy(update={"device": "cpu", "parallel": 2})
        result = run_sweep(sweep, Store(tmp_path / "s"), settings=settings)
        (record,) = result.store.records()
        assert (record.status, record.parallel, record.key) == ("done", 2, here.key), record.reason
        assert record.frames_sha256 == here.frames_sha256
        assert record.pid != os.getpid()
        with pytest.raises(InputError, match="parallel: expected a machine of the cluster with 4 CPUs, got none; use fewer"):
            run_sweep(sweep, Store(tmp_path / "four"), settings=settings.model_copy(update={"parallel": 4}))


SERVED = {"model": "closed-form", "resolution": "64x64", "num_frames": 8, "num_inference_steps": 30}


@pytest.mark.slow
def test_a_frozen_node_holds_nobody_up(tmp_path):
    stopped: list[psutil.Process] = []
    others: list[int] = []  # the workers of the clips that ended since
    kept: list[bool] = []  # of each of these clips: whether the frozen worker still counted as one that makes something

    def freeze(one: Any) -> None:
        stopped.extend([psutil.Process(one.pid), raylet_of(one.pid)])
        for process in stopped:
            process.suspend()

    store = Store(tmp_path / "s")
    with cluster_of({}, {}) as cluster:
        strike = Once(cluster, "write", freeze)

        def ended(cell: Any, record: RunRecord) -> None:
            if stopped:
                others.append(record.pid)
                kept.append(any(one.pid == stopped[0].pid for one in strike.workers))

        settings = settings_on(cluster, tmp_path / "s")
        try:
            result = run_sweep(cells(4, **LONG), store, settings=settings, progress=strike, on_cell=ended)
        finally:
            for process in stopped:
                if process.is_running():
                    process.resume()
    assert result.counts == {"done": 4}
    assert stopped[0].pid not in others
    assert any(kept)
    assert not kept[-1]
    (again,) = [record for record in store.records() if record.notes]
    assert "made again: its first worker died" in again.notes[0]


def test_memory_that_is_exhausted_ends_none_of_the_others(cluster, tmp_path):
    import resource

    limited: list[int] = []

    def limit(one: Any) -> None:
        limited.append(one.pid)
        resource.prlimit(one.pid, resource.RLIMIT_AS, (psutil.Process(one.pid).memory_info().vms, resource.RLIM_INFINITY))

    def lift(cell: Any, record: RunRecord) -> None:
        if record.status != "done" and limited and psutil.pid_exists(limited[0]):
            resource.prlimit(limited[0], resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    store = Store(tmp_path / "s")
    settings = settings_on(cluster, tmp_path / "s")
    result = run_sweep(cells(5, **LONG), store, settings=settings, progress=Once(cluster, "write", limit), on_cell=lift)
    records = store.records()
    assert len(records) == 5
    # That cell ran out, failed (no thread could be begun, say) or ended its worker; so did perhaps the one that this worker had next.
    others = [record for record in records if record.status != "done"]
    assert {record.status for record in others} <= {"out_of_memory", "failed"}, [record.reason for record in others]
    assert others or any(record.notes for record in records)
    assert {record.pid for record in others if record.pid != os.getpid()} <= set(limited)
    assert result.counts["done"] >= 3
    print("exhausted:", [record.reason for record in others])
