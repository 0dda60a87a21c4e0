"""The processes of a server: started, stopped and really killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import requests
from conftest import start as start_command
from held import suspend
from servers import TOKEN, Server, jobs_of, wait_for

from i2v_lab.clip.params import ClipParams
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store

pytest_plugins = ("server_fixtures",)


def hold_a_clip(server):
    """(id, worker) of a long clip that is being denoised, whose worker was suspended."""
    id = server.ask(model="closed-form", resolution="256p", num_frames=256, num_inference_steps=1000)
    wait_for(lambda: server.job(id)["stage"] == "denoise" and server.job(id)["step"] > 0, lambda: str(server.job(id)))
    (worker,) = server.workers()
    suspend(worker, server.folder / "results" / "runs.db")
    return id, worker


def waits_for(process, number):
    """Whether a suspended process was sent this signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"ShdPnd:\s*(\w+)", status)[1], 16) >> (number - 1) & 1


@pytest.mark.slow
def test_a_worker_killed_in_mid_job_costs_that_job_and_no_other(own_server):
    server = own_server()
    victim, worker = hold_a_clip(server)
    others = [server.ask(seed=seed) for seed in range(3)]
    worker.kill()
    lost = server.ended(victim)
    assert lost["state"] == "failed"
    assert "process ended" in lost["reason"]
    assert [server.ended(id)["state"] for id in others] == ["done"] * 3
    assert Store(server.folder / "results").get(victim).status == "failed"
    assert worker.pid not in [process.pid for process in server.workers()]


def params(**fields):
    return ClipParams(image="sample:coffee", resolution="64x64", num_frames=2, **fields)


@pytest.mark.slow
def test_a_run_that_was_done_when_its_worker_died_is_done(own_server, tmp_path):
    folder = tmp_path / "own" / "results"
    store = Store(folder)
    queue = jobs_of(folder)
    asked = params(model="fake", seed=4)
    queue.add_clip(asked)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    job = queue.claim(f"{socket.gethostname()}:{gone.pid}:1.0")
    record = run_clip(asked, None, store, settings=Settings(output={"directory": folder}), id=job.id)
    server = own_server(I2V_LAB_SERVER__IDLE_SECONDS="0.2")
    ended = server.ended(job.id)
    assert (ended["state"], ended["result"]["run"]) == ("done", record.id)
    assert server.get(ended["result"]["url"]).status_code == 200
    assert len(store.records()) == 1
    # After an idle time the model is given back; the next clip loads it again.
    for seed in (1, 2):
        assert server.ended(server.ask(seed=seed))["state"] == "done"
        wait_for(lambda: server.workers() == [])


def test_a_server_ends_though_somebody_follows_a_clip(own_server, monkeypatch):
    server = own_server(I2V_LAB_SERVER__STOP_SECONDS="1")
    with server.device_taken(monkeypatch):
        id = server.ask(seed=1)
        stream = server.get(f"/api/clips/{id}/events", stream=True)
        assert next(stream.iter_lines())
        wait_for(lambda: server.job(id)["stage"] == "wait")  # a job that no worker has taken yet would wait for the next server
        server.end()
    assert server.process.returncode == 0
    assert jobs_of(server.folder / "results").get(id).state == "stopped"


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["database", "folder"])
def test_a_server_gets_over_the_loss_of_its_database(own_server, monkeypatch, loss):
    """The jobs that ran or waited are made all the same, and what was made before is found by its clip."""
    server = own_server()
    before = server.ask(seed=1)
    server.ended(before)
    results = server.folder / "results"
    with server.device_taken(monkeypatch):
        running = server.ask(seed=2)
        wait_for(lambda: server.job(running)["stage"] == "wait")
        waiting = [server.ask(seed=3 + number) for number in range(3)]
        if loss == "folder":
            results.rename(server.folder / "gone")
        else:
            for file in results.glob("runs.db*"):
                file.rename(server.folder / file.name)
        wait_for(lambda: [job.id for job in jobs_of(results).active()] == [running, *waiting])
        assert server.answers()
        follower = ThreadPoolExecutor(1).submit(lambda: server.get(f"/api/clips/{waiting[-1]}/events").text)
    assert [server.ended(id)["state"] for id in (running, *waiting)] == ["done"] * 4
    assert "event: done" in follower.result(60)
    assert server.ended(server.ask(seed=9))["state"] == "done"
    records = {run.id: run.status for run in Store(results).records()}
    assert records == dict.fromkeys(records, "done")
    assert (before in records) == (loss == "database")


@pytest.mark.slow
def test_a_foreign_database_is_refused_and_health_says_so(own_server):
    server = own_server()
    assert server.ended(server.ask(seed=1))["state"] == "done"
    results = server.folder / "results"
    for file in results.glob("runs.db*"):
        file.unlink()
    with closing(sqlite3.connect(results / "runs.db")) as connection:
        connection.executescript("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')")
    before = (results / "runs.db").read_bytes()
    for method, path in (("GET", "/api/health"), ("GET", "/api/clips"), ("POST", "/api/clips")):
        answer = server.send(method, path, json={"image": "sample:coffee"} if method == "POST" else None)
        assert (answer.status_code, answer.json()["error"]["field"]) == (503, "store"), answer.text
        assert answer.json()["error"]["message"].startswith("runs.db is not a record of runs, but another program's database")
    done = subprocess.run(
        [sys.executable, "-m", "i2v_lab", "doctor", "--output-dir", results], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "missing  record of runs" in done.stdout
    assert (results / "runs.db").read_bytes() == before
    (results / "runs.db").unlink()
    assert server.answers()
    assert server.ended(server.ask(seed=2))["state"] == "done"
    assert (server.folder / "server.log").read_text().count("the queue could not be looked at") == 1


@pytest.mark.slow
def test_a_server_killed_with_five_jobs_waiting_leaves_none_forgotten_and_makes_none_twice(own_server, monkeypatch):
    first = own_server()
    with first.device_taken(monkeypatch):
        running = first.ask(seed=100)
        wait_for(lambda: first.job(running)["stage"] == "wait")
        waiting = [first.ask(seed=101 + number) for number in range(5)]
        first.kill()
        second = own_server()
        states = [second.job(id)["state"] for id in waiting]
        assert states[0] in ("waiting", "running")  # the second server's worker may have begun with it
        assert states[1:] == ["waiting"] * 4
    ended = [second.ended(id) for id in (running, *waiting)]
    assert [job["state"] for job in ended] == ["done"] * 6
    records = Store(second.folder / "results").records()
    assert sorted(record.id for record in records) == sorted([running, *waiting])


@pytest.mark.slow
@pytest.mark.parametrize("host", ["::1", "::"])
def test_the_address_of_a_server_on_ipv6_is_one_that_answers(host, tmp_path):
    server = Server(tmp_path)
    begun = start_command("serve", "--host", host, "--port", server.port, "--background", cwd=tmp_path, env=server.environment())
    out, err = begun.communicate(timeout=120)
    assert begun.returncode == 0, err
    try:
        address = f"http://[::1]:{server.port}/?token={TOKEN}"
        assert f"i2v_lab is at {address}\n" in out
        assert not re.search(r"http://\d+\.", out)  # it serves IPv6 alone
        assert requests.get(address, timeout=60).ok
    finally:
        ended = start_command("serve", "--stop", "--port", server.port, cwd=tmp_path, env=server.environment())
        assert ended.communicate(timeout=120) and ended.returncode == 0


@pytest.mark.slow
def test_the_server_runs_in_the_background_and_ends_gracefully(tmp_path):
    server = Server(tmp_path, I2V_LAB_SERVER__STOP_SECONDS="0")
    env = server.environment()
    words = ("serve", "--port", server.port, "--background")
    begun = start_command(*words, cwd=tmp_path, env=env)
    out, err = begun.communicate(timeout=120)
    assert begun.returncode == 0, err
    assert f"http://127.0.0.1:{server.port}/?token={TOKEN}" in out
    (log,) = (tmp_path / "logs").glob("app_*.log")
    assert re.fullmatch(r"app_\d{8}_\d{6}\.log", log.name)
    assert str(log) in out
    again = start_command("serve", "--port", server.port, "--output-dir", tmp_path / "other", cwd=tmp_path, env=env)
    out, err = again.communicate(timeout=120)
    assert (again.returncode, out) == (0, f"already running at http://127.0.0.1:{server.port}/?token={TOKEN}\n")
    assert f"its clips go to {tmp_path / 'results'}, not to {tmp_path / 'other'}" in err
    running, worker = hold_a_clip(server)
    waiting = server.ask(seed=1)
    ended = start_command("serve", "--stop", "--port", server.port, cwd=tmp_path, env=env)
    wait_for(lambda: waits_for(worker, signal.SIGTERM))
    worker.resume()
    out, err = ended.communicate(timeout=120)
    assert ended.returncode == 0, err
    assert not psutil.pid_exists(worker.pid)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/api/health", timeout=5)
    queue = jobs_of(tmp_path / "results")
    assert (queue.get(running).state, queue.get(running).reason) == ("stopped", "the server was stopped")
    assert queue.get(waiting).state == "waiting"
    assert Store(tmp_path / "results").get(running).status == "stopped"
    assert TOKEN not in log.read_text()
    gone = start_command("serve", "--stop", "--port", server.port, cwd=tmp_path, env=env)
    out, err = gone.communicate(timeout=120)
    assert gone.returncode != 0
    assert err.count("\n") == 1


def test_a_taken_port_is_one_line_that_names_who_has_it(inside):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = inside("serve", "--port", taken.getsockname()[1])
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"taken by process {os.getpid()}" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
def test_without_a_token_only_this_machine_is_served(inside, host):
    done = inside("serve", "--host", host, "--no-token")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--no-token: expected a server on 127.0.0.1" in done.stderr
