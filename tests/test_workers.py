"""Several workers of one server: as many jobs at once, each with its own clip."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from servers import Server, data_url, jobs_of, picture, shows, wait_for
from test_jobs import held, long, settings_of, until

from i2v_lab.devices.turns import turn
from i2v_lab.errors import SettingsError, Stop
from i2v_lab.jobs import DIED, JobRunner
from i2v_lab.jobs.crew import devices_of_workers
from i2v_lab.settings import Server as ServerSettings
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import forecast

CLIP = {"model": "closed-form", "resolution": "64x64", "num_frames": 8, "num_inference_steps": 30}


@pytest.fixture(autouse=True)
def own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices are each test's alone."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


def free() -> bool:
    """Whether nobody has the turn of the CPU."""

    def taken(line: str) -> None:
        raise Stop(line)

    try:
        with turn(("cpu",), "a test", taken):
            return True
    except Stop:
        return False


@pytest.mark.slow
def test_two_workers_make_two_jobs_at_once_and_one_killed_costs_its_own_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, workers=2)
    runner = JobRunner(Store(settings.output.directory), settings)
    runner.start()
    try:
        jobs = [runner.jobs.add_clip(long(seed=seed)) for seed in range(3)]
        runner.wake()
        with ExitStack() as both:
            first, second = (both.enter_context(held(runner.jobs, job)) for job in jobs[:2])
            assert first.pid != second.pid
            assert not free()
            until(lambda: [one.state for one in runner.workers()] == ["works"] * 2)
            assert {one.job.id: one.pid for one in runner.workers() if one.job} == {jobs[0].id: first.pid, jobs[1].id: second.pid}
            third = runner.status(jobs[2].id)
            assert third and (third.job.state, third.place) == ("waiting", 1)
            first.kill()
            until(lambda: runner.jobs.get(jobs[0].id).ended)
            lost = runner.jobs.get(jobs[0].id)
            assert lost and (lost.state, lost.reason) == ("failed", DIED)
            with held(runner.jobs, jobs[2]) as next_one:  # by a new worker in its place
                assert next_one.pid not in (first.pid, second.pid)
                for job in jobs[1:]:
                    runner.stop(job.id, "a test")
        for job in jobs[1:]:
            until(lambda job=job: runner.jobs.get(job.id).state == "stopped")
        until(free)  # it is given back while the workers wait for jobs
    finally:
        runner.close()
    assert all(post.process is None or post.process.poll() is not None for post in runner.posts)


@pytest.mark.slow
def test_serve_makes_twenty_clips_two_at_a_time_though_it_is_killed_in_between(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    server = Server(folder, "--workers", "2").start()
    turn_of_another = ExitStack()
    try:
        with pytest.MonkeyPatch.context() as patch:
            turn_of_another.enter_context(server.device_taken(patch))
            bodies = [{"image": data_url(picture(number)), **CLIP} for number in range(20)]
            with ThreadPoolExecutor(4) as pool:
                ids = list(pool.map(lambda body: server.send("POST", "/api/clips", json=body).json()["id"], bodies))

            def workers() -> list[dict[str, object]]:
                return server.get("/api/workers").json()["workers"]  # type: ignore[no-any-return]

            wait_for(lambda: [one["state"] for one in workers()] == ["waits"] * 2, lambda: str(workers()))
            assert "a test" in str(workers()[0]["note"])
            assert {server.job(id)["state"] for id in ids} == {"waiting"}
        turn_of_another.close()
        wait_for(lambda: sum(server.job(id)["state"] == "done" for id in ids) >= 4)
        server.kill()
        server = Server(folder, "--workers", "2").start()
        ended = [server.ended(id) for id in ids]
        assert [job["state"] for job in ended] == ["done"] * 20
        for number, job in enumerate(ended):
            assert shows(server.get(job["result"]["url"]).content, number, folder)
    finally:
        turn_of_another.close()
        server.end()
    assert len(Store(folder / "results").records()) == 20  # none twice
    jobs = [job for id in ids if (job := jobs_of(folder / "results").get(id))]
    made: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        made.setdefault(job.worker, []).append((job.started or 0, job.finished or 0))
    assert len(made) >= 3  # two of each server, unless one had nothing left to do
    for spans in made.values():
        spans.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(spans))  # one at a time each
    pairs = [(first, second) for one, other in combinations(made.values(), 2) for first in one for second in other]
    assert any(first[0] < second[1] and second[0] < first[1] for first, second in pairs)  # and two at once
    wait_for(lambda: server.workers() == [])


def test_the_time_left_counts_the_jobs_that_are_made_at_once(tmp_path: Path) -> None:
    queue = jobs_of(tmp_path)
    jobs = [queue.add_clip(long(seed=seed), expected=10.0) for seed in range(5)]
    assert list(forecast(jobs, None, 0).values()) == [10, 20, 30, 40, 50]
    assert list(forecast(jobs, None, 0, 2).values()) == [10, 10, 20, 20, 30]


def test_a_device_for_each_worker_or_one_line() -> None:
    several = ServerSettings(workers=3)
    assert devices_of_workers(Settings(device="cpu", server=several)) == ["cpu"] * 3
    with pytest.raises(SettingsError, match=r"server.workers: expected a GPU for each \(cuda:0 to cuda:5\), got 3 workers"):
        devices_of_workers(Settings(device="cuda", parallel=2, server=several))
