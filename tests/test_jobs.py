"""The job runner: real worker processes on one output folder, stopped, killed and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from held import held, until

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import Stop
from i2v_lab.jobs import DIED, JobRunner, environment
from i2v_lab.jobs.progress import ClipProgress
from i2v_lab.settings import Log, Output, Server, Settings, load_settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, Jobs
from i2v_lab.store.processes import own_name
from i2v_lab.sweep import Sweep

SMALL = {"model": "fake", "image": "sample:coffee", "resolution": "64x64", "num_frames": 2}
LONG = {"model": "closed-form", "image": "sample:coffee", "prompt": "zoom in", "resolution": "64x96", "num_frames": 256}


def params(**fields: object) -> ClipParams:
    return ClipParams(**{**SMALL, **fields})


def long(**fields: object) -> ClipParams:
    """A clip that nobody waits for: its worker is suspended at an early step (`held`), and then it is stopped."""
    return ClipParams(**{**LONG, "num_inference_steps": 1000, **fields})


@pytest.fixture(scope="module", autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The devices are this file's alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


def settings_of(folder: Path, **server: float) -> Settings:
    return Settings(
        output=Output(directory=folder / "results"), log=Log(directory=folder / "logs"), server=Server(**{"stop_seconds": 0, **server})
    )  # fmt: skip


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobRunner]:
    """One runner for the tests that need no folder of their own; its worker stays between them."""
    settings = settings_of(tmp_path_factory.mktemp("jobs"))
    made = JobRunner(Store(settings.output.directory), settings)
    made.start()
    yield made
    made.close()
    assert made.posts[0].process is None or made.posts[0].process.poll() is not None


def add(runner: JobRunner, clip: ClipParams, **more: object) -> Job:
    job = runner.jobs.add_clip(clip, **more)
    runner.wake()
    return job


def ended(runner: JobRunner, job: Job) -> Job:
    until(lambda: runner.status(job.id).job.ended)
    return runner.status(job.id).job


def test_jobs_are_made_in_their_order_and_each_change_is_reported(runner):
    seen = []

    def look() -> None:
        seen.append([(status.job.id, status.place) for status in runner.active])

    def broken() -> None:
        raise ValueError("no screen")  # harms no clip

    runner.listen(broken)
    runner.listen(look)
    jobs = [runner.jobs.add_clip(params(seed=seed)) for seed in range(3)]
    runner.wake()
    found = [ended(runner, job) for job in jobs]
    runner.ignore(look)
    runner.ignore(broken)
    assert [job.state for job in found] == ["done"] * 3
    assert found[0].finished <= found[1].started and found[1].finished <= found[2].started
    assert [job.id for job in jobs] in [[job for job, _ in look] for look in seen]
    assert [runner.store.get(job.id).params.seed for job in jobs] == [0, 1, 2]
    assert runner.last.id == jobs[2].id
    again = ended(runner, add(runner, params(seed=0)))
    assert json.loads(again.result)["made_before"]
    forced = ended(runner, add(runner, params(seed=0), force=True))
    assert json.loads(forced.result)["run"] == forced.id
    assert runner.status("no such") is None


def test_one_that_waits_is_stopped_at_once_and_one_that_runs_within_a_step(runner):
    first, second = add(runner, long()), add(runner, params(seed=10))
    with held(runner.jobs, first):
        until(lambda: runner.status(second.id).place == 1)
        assert runner.stop(second.id, "taken out").state == "stopped"
        step = runner.jobs.get(first.id).step
        assert runner.stop(first.id, "stopped by hand").state == "running"
    found = ended(runner, first)
    assert step <= found.step < 1000
    assert (found.state, found.reason) == ("stopped", "stopped by hand")
    record = runner.store.get(first.id)
    assert (record.status, record.reason) == ("stopped", "stopped by hand")
    assert runner.store.get(second.id) is None
    assert runner.status(second.id).job.reason == "taken out"


def test_a_stop_ends_the_clip_at_its_next_step(tmp_path):
    jobs = Jobs(Store(tmp_path).database)
    jobs.add_clip(params())
    job, bytes_came = jobs.claim("a worker"), []
    progress = ClipProgress(jobs, job, lambda: bool(bytes_came))
    progress.stage("denoise", 10)
    progress.step()
    jobs.stop(job.id, "stopped by hand")
    bytes_came.append(b"")  # the runner wakes its worker
    with pytest.raises(Stop, match="stopped by hand"):
        progress.step()
    assert jobs.get(job.id).step == 2


def test_a_preview_is_made_only_while_somebody_looks(runner, tmp_path):
    jobs = Jobs(Store(tmp_path).database)
    jobs.add_clip(params())
    job, frames = jobs.claim("a worker"), np.zeros((2, 8, 8, 3), np.uint8)
    progress = ClipProgress(jobs, job, lambda: True)
    progress.stage("denoise", 10)
    progress.step(lambda: frames)
    assert jobs.preview(job.id) == b""
    jobs.watch(time.time() + 60)
    progress.step()  # it hears of it
    progress.step(lambda: frames)
    assert jobs.preview(job.id)[8:12] == b"WEBP"
    assert json.loads(jobs.get(job.id).status)["previews"] == 1
    assert jobs.end(jobs.get(job.id), "done")
    assert jobs.preview(job.id) == b""


def test_a_runner_says_that_somebody_looks(runner):
    def look() -> None:
        pass

    job = add(runner, long(seed=1))
    with held(runner.jobs, job):
        assert runner.jobs.get(job.id).watched == 0
        runner.listen(look, previews=True)
        until(lambda: runner.jobs.get(job.id).watched > time.time())
        runner.ignore(look)
        runner.stop(job.id, "seen enough")
    assert ended(runner, job).state == "stopped"


@pytest.mark.slow
def test_a_sweep_is_a_job_and_stops_after_a_cell(runner):
    sweep = Sweep(name="words", base=params().plain(), axes={"seed": "0..2 step 1", "prompt": ["a: b", "# 'c'\n{x}"]})
    found = ended(runner, _add(runner, sweep))
    assert found.state == "done", found.reason
    result = json.loads(found.result)
    assert (result["counts"], json.loads(found.status)["done"]) == ({"done": 6}, 6)
    assert runner.store.runs(sweep=result["sweep"])["prompt"].tolist().count("# 'c'\n{x}") == 3
    base = long(num_frames=64, num_inference_steps=250).plain()
    slow = _add(runner, Sweep(name="slow", base=base, axes={"seed": "0..9 step 1"}))
    with held(runner.jobs, slow):
        assert runner.stop(slow.id, "stopped by hand", "cell").state == "running"
    found = ended(runner, slow)
    assert (found.state, found.reason) == ("stopped", "stopped by hand")
    assert json.loads(found.result)["counts"] == {"done": 1, "planned": 9}


def _add(runner: JobRunner, sweep: Sweep) -> Job:
    job = runner.jobs.add_sweep(sweep)
    runner.wake()
    return job


def test_a_killed_worker_fails_its_job_and_the_next_is_made(runner):
    first, second = add(runner, long(seed=2)), add(runner, params(seed=11))
    with held(runner.jobs, first) as worker:
        worker.kill()
        found = ended(runner, first)
    assert (found.state, found.reason) == ("failed", DIED)
    assert runner.store.get(first.id).reason == "the process ended before the clip was done"
    assert ended(runner, second).state == "done"


def test_the_settings_come_with_the_job(runner):
    theirs = load_settings(output={"directory": runner.store.directory, "format": "gif", "prefix": "mine_"}, device="cpu")
    job = Jobs(runner.store.database, theirs).add_clip(params(seed=12))
    runner.wake()
    clip = json.loads(ended(runner, job).result)["clip"]
    assert clip.startswith("clips/mine_") and clip.endswith(".gif")


def test_a_worker_that_cannot_start_fails_the_job_with_a_remedy(tmp_path, monkeypatch):
    settings = settings_of(tmp_path)
    runner = JobRunner(Store(settings.output.directory), settings)
    monkeypatch.setenv("I2V_LAB_NO_SUCH", "1")  # the worker's settings are wrong
    monkeypatch.setattr("i2v_lab.jobs.runner.STARTS_MAX", 2)  # between two starts it waits a second, then two
    runner.start()
    job = add(runner, params())
    found = ended(runner, job)
    runner.close()
    assert (found.state, found.reason) == ("failed", "the worker's process ends before it takes a clip; the log has the details")


def test_a_runner_started_again_finds_what_waits_and_an_idle_worker_ends(tmp_path):
    settings = settings_of(tmp_path, idle_seconds=0.5)
    store = Store(settings.output.directory)
    job = Jobs(store.database, settings).add_clip(params())  # nobody runs it
    runner = JobRunner(store, settings)
    runner.start()
    assert ended(runner, job).state == "done"
    worker = runner.posts[0].process
    until(lambda: worker.poll() == 0)
    runner.close()


ASK = """
import sys, time
from i2v_lab.jobs import shared_runner
from i2v_lab.settings import load_settings
from i2v_lab.store import Store
from i2v_lab.clip.params import ClipParams
settings = load_settings()
runner = shared_runner(Store(settings.output.directory), settings)
for text in sys.argv[1:]:
    runner.jobs.add_clip(ClipParams.model_validate_json(text))
runner.wake()
print("asked", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_worker_stops_with_the_process_that_asked_and_another_takes_what_waits(tmp_path):
    settings = settings_of(tmp_path)
    texts = [clip.model_dump_json() for clip in (long(), params(seed=1))]
    other = subprocess.Popen(
        [sys.executable, "-c", ASK, *texts], env={**os.environ, **environment(settings)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    store = Store(settings.output.directory)
    jobs = Jobs(store.database)
    until(lambda: len(jobs.active()) == 2)
    running, waiting = jobs.active()
    assert running.owner.split(":")[1] == str(other.pid)
    with held(jobs, running) as worker:
        runner = JobRunner(store, settings)
        runner.start()  # on the same folder: leaves alone what belongs to a process that lives
        mine = add(runner, params(seed=2))
        until(lambda: runner.posts[0].process and runner.status(mine.id).job.state != "waiting")
        assert runner.status(waiting.id).job.state == "waiting"
        other.kill()
        other.wait()
    other.communicate()
    found = ended(runner, running)
    assert (found.state, found.reason) == ("stopped", "the process that asked for it has ended")
    assert store.get(running.id).status == "stopped"
    psutil.wait_procs([worker], 30)
    assert not worker.is_running()
    assert [ended(runner, job).state for job in (waiting, mine)] == ["done", "done"]
    assert runner.status(waiting.id).job.worker == runner.status(mine.id).job.worker
    runner.close()


@pytest.mark.slow
def test_two_runners_share_a_folder_and_make_each_job_once(tmp_path):
    settings = settings_of(tmp_path)
    store = Store(settings.output.directory)
    runners = [JobRunner(store, settings) for _ in range(2)]
    jobs = [runners[0].jobs.add_clip(params(seed=seed)) for seed in range(8)]
    for runner in runners:
        runner.start()
    found = [ended(runners[0], job) for job in jobs]
    assert [job.state for job in found] == ["done"] * 8
    assert len(store.records()) == 8
    until(lambda: runners[1].waiting == 0)
    assert runners[0].jobs.owner == runners[1].jobs.owner == own_name()
    for runner in runners:
        runner.close()


def test_a_job_that_is_done_without_a_result_counts_in_no_rate(tmp_path):
    jobs = JobRunner(Store(tmp_path), settings_of(tmp_path)).jobs
    added = jobs.add_clip(params())
    taken = jobs.claim(own_name())
    assert taken and taken.id == added.id
    assert jobs.end(taken, "done")
    assert jobs.rate() is None
