"""A day in `serve`, in some minutes: what 500 jobs leave behind in memory, descriptors and threads; none of them is lost.

`pytest --slow -s tests/test_server_day.py` prints the figures.
"""

from __future__ import annotations

from collections import Counter

import psutil
import pytest
from servers import Server, wait_for

from i2v_lab.jobs import DIED
from i2v_lab.store import Store

pytest_plugins = ("server_fixtures",)
JOBS, AT_ONCE = 500, 8
SMALL = {"image": "sample:coffee", "resolution": "64x64", "num_frames": 4}


def figures(server: Server) -> dict[str, int]:
    """Of the server's process, while nothing is asked of it."""
    assert server.process
    process = psutil.Process(server.process.pid)
    return {"MB": process.memory_info().rss // 2**20, "descriptors": process.num_fds(), "threads": process.num_threads()}


def lose_the_database(server: Server) -> None:
    for file in (server.folder / "results").glob("runs.db*"):
        file.rename(server.folder / f"lost-{file.name}")


@pytest.mark.slow
def test_a_day(own_server):
    server = own_server(I2V_LAB_SERVER__QUEUE_LIMIT=str(AT_ONCE + 2))
    for seed in range(20):  # what is loaded and cached once
        assert server.ended(server.ask(seed=10_000 + seed))["state"] == "done"
    before = figures(server)
    asked, ended, refused = [], Counter(), 0
    for number in range(JOBS):
        if number % 25 == 0:
            bad = server.send("POST", "/api/clips", json={**SMALL, "image": "data:image/png;base64,aGVsbG8="})
            assert (bad.status_code, bad.json()["error"]["field"]) == (422, "image")
            refused += 1
        if number in (150, 350):
            server.workers()[0].kill()
        if number == 250:
            lose_the_database(server)
        asked.append(_ask(server, seed=number, num_inference_steps=1 + number % 2))
        if number % 20 == 0:
            assert server.send("DELETE", f"/api/clips/{asked[-1]}").status_code in (200, 202, 409)
        if number >= AT_ONCE:
            ended[_how(server, asked[number - AT_ONCE])] += 1
    for id in asked[-AT_ONCE:]:
        ended[_how(server, id)] += 1
    wait_for(lambda: server.get("/api/clips", params={"state": "running"}).json()["clips"] == [])
    after = figures(server)
    print(f"\n{JOBS} jobs: {dict(ended)}; {refused} bad pictures refused; before {before}, after {after}")
    assert sum(ended.values()) == JOBS
    assert set(ended) <= {"done", "stopped", "out_of_memory", DIED}
    assert ended[DIED] <= 2
    assert ended["stopped"] <= JOBS // 20
    assert after["MB"] < before["MB"] + 60
    assert after["descriptors"] <= before["descriptors"] + 5
    assert after["threads"] <= before["threads"] + 5
    done = Store(server.folder / "results").records(status="done")
    assert len({run.params.seed for run in done if run.params and run.params.seed < JOBS}) == ended["done"]


def _ask(server: Server, **fields: int) -> str:
    """Ask for a clip, again where the database is being lost and the answer says so."""
    while (answer := server.send("POST", "/api/clips", json={**SMALL, **fields})).status_code == 503:
        print(answer.text)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _how(server: Server, id: str) -> str:
    job = server.ended(id)
    if job["state"] == "out_of_memory":  # where others on this machine take its memory
        print(job["reason"])
    return job["reason"] if job["reason"] == DIED else job["state"]
