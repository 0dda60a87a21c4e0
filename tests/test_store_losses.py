"""Databases that go away, and clips without a record: each loss is a real one."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from records import FULL, PARAMS, fault, python, record

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.jobs import JobRunner
from i2v_lab.report.player.page import clip_grid
from i2v_lab.run import run_clip
from i2v_lab.settings import Output, Settings
from i2v_lab.store import Store
from i2v_lab.store.database import Database
from i2v_lab.store.jobs import Jobs
from i2v_lab.store.processes import own_name
from i2v_lab.widgets.compare import compare

pytest_plugins = ("disks",)


def made(folder: Path, number: int = 1) -> list[RunRecord]:
    """Clips of the fake model in this output folder."""
    settings = Settings(output=Output(directory=folder))
    params = [
        ClipParams(model="fake", image="sample:coffee", resolution="64x64", num_frames=2, seed=seed) for seed in range(number)
    ]
    runs = [run_clip(each, None, Store(folder), settings=settings) for each in params]
    return [found for run in runs if (found := Store(folder).get(run.id))]


def test_a_database_that_was_deleted_is_made_again_from_the_clips(tmp_path: Path) -> None:
    before = made(tmp_path / "results", 3)
    (tmp_path / "results" / "clips" / "note.mp4").write_text("no clip")
    for file in (tmp_path / "results").glob("runs.db*"):
        file.unlink()
    store = Store(tmp_path / "results")
    after = store.records()
    assert [(run.id, run.status, run.clip) for run in after] == [(run.id, "done", run.clip) for run in before]
    for name in ("params", "key", "frames_sha256", "image_sha256", "created", "versions", "model_name", "file_bytes"):
        assert [getattr(run, name) for run in after] == [getattr(run, name) for run in before], name
    assert store.rebuild() == 0
    again = run_clip(before[1].params, None, store, settings=Settings(output=Output(directory=store.directory)))  # type: ignore[arg-type]
    assert again.id == before[1].id  # a finished clip is not made again


@pytest.mark.parametrize("loss", ["deleted", "moved", "other number", "table", "all tables", "folder"])
def test_a_store_that_is_open_gets_over_the_loss_of_its_database(store: Store, loss: str, tmp_path: Path) -> None:
    jobs = Jobs(store.database)
    store.save(FULL)
    jobs.add_clip(PARAMS)
    if loss in ("deleted", "moved", "other number"):
        for file in store.directory.glob("runs.db*"):
            file.rename(tmp_path / file.name) if loss != "deleted" else file.unlink()
    if loss == "other number":
        store.file.touch()
    if loss == "folder":
        shutil.rmtree(store.directory)
    if loss in ("table", "all tables"):
        with closing(sqlite3.connect(store.file)) as connection:
            everything = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            for name in ["jobs"] if loss == "table" else [name for (name,) in everything]:
                connection.execute(f"DROP TABLE {name}")
            connection.commit()
    assert jobs.active() == []
    job = jobs.add_clip(PARAMS)
    assert jobs.claim("a worker") is not None
    assert jobs.note(job.id, "denoise", 1, 2, 0.0) is not None
    store.save(FULL)
    assert store.records() == [FULL]
    assert [changed.id for changed in jobs.look(99)[1]] == [job.id]


def test_jobs_are_entered_again_where_the_database_was_lost(store: Store) -> None:
    jobs = Jobs(store.database)
    asked = [jobs.add_clip(PARAMS) for _ in range(3)]
    running = jobs.claim("a worker")
    assert running
    store.file.unlink()
    jobs.restore([running, *asked[1:]])
    jobs.restore(asked)  # changes nothing
    assert [(job.id, job.state) for job in jobs.active()] == [
        (asked[0].id, "running"),
        (asked[1].id, "waiting"),
        (asked[2].id, "waiting"),
    ]
    assert jobs.end(running, "done")


FOREIGN = {
    "another program's": "CREATE TABLE notes (id, text); INSERT INTO notes VALUES (1, 'mine')",
    "one with runs of its own": "CREATE TABLE runs (distance REAL, day TEXT); PRAGMA user_version = 2",
    "one with jobs of its own": "CREATE TABLE jobs (id, state); PRAGMA journal_mode = WAL",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_database_is_refused_and_never_altered(tmp_path: Path, name: str) -> None:
    file = tmp_path / "runs.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(FOREIGN[name])
    before = file.read_bytes()
    assert "another program's database" in fault(Store, tmp_path)
    assert "another program's database" in fault(Database(tmp_path).check)
    assert "another program's database" in fault(Jobs(Database(tmp_path)).add_clip, PARAMS)
    assert file.read_bytes() == before


def test_a_damaged_database_is_found_by_the_check(store: Store) -> None:
    assert "none yet" in store.database.check()
    store.save_many(record() for _ in range(100))
    assert "100 runs, 0 jobs" in store.database.check()
    with store.file.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xa5" * 4096)
    assert "damaged" in fault(store.database.check)


KILLED = """
import os, signal, sys
from pathlib import Path
from i2v_lab.clip.params import ClipParams
from i2v_lab.run import run_clip
from i2v_lab.settings import Output, Settings
from i2v_lab.store import Store
save = Store.save
def killed(self, record):  # at the instant between the clip and its record
    if record.status == "done":
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    save(self, record)
Store.save = killed
folder = Path(sys.argv[1])
params = ClipParams(model="fake", image="sample:coffee", resolution="64x64", num_frames=2, prompt="kept")
run_clip(params, None, Store(folder), settings=Settings(output=Output(directory=folder)), id=sys.argv[3], sweep="s")
"""


@pytest.mark.parametrize("by", ["SIGKILL", "SIGHUP"])
def test_a_clip_published_without_its_record_is_adopted_at_the_next_start(tmp_path: Path, by: str) -> None:
    jobs = Jobs(Store(tmp_path / "results").database)
    id = jobs.add_clip(PARAMS).id
    process = python(KILLED, tmp_path / "results", by, id)
    jobs.claim(own_name(process.pid))
    process.communicate()
    assert process.returncode == -getattr(signal, by)
    (clip,) = (tmp_path / "results" / "clips").glob("[!.]*")
    (run,) = Store(tmp_path / "results").records()
    assert (run.id, run.status, run.reason, run.clip, run.sweep) == (id, "done", "", f"clips/{clip.name}", "s")
    assert run.params and run.params.prompt == "kept" and run.pid == process.pid
    assert run.frames_sha256 == video.read_settings(clip)["record"]["frames_sha256"]
    assert Store(tmp_path / "results").find_done(run.key) == run
    status = JobRunner(Store(tmp_path / "results"), Settings()).status(id)
    assert status and status.job.state == "done" and json.loads(status.job.result)["clip"] == run.clip


def test_a_clip_that_was_deleted_is_gone_and_one_that_was_renamed_is_found(tmp_path: Path, i2v_lab) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "results"
    deleted, renamed = made(folder, 2)
    (folder / deleted.clip).unlink()
    (folder / renamed.clip).rename(folder / "clips" / "the best.mp4")
    listed = i2v_lab("runs", "--rebuild").stdout
    assert "its clip is gone" in listed
    assert "clips/the best.mp4" in listed
    shown = [json.loads(line) for line in i2v_lab("runs", "--json").stdout.splitlines()]
    assert {line["id"]: line.get("gone", False) for line in shown} == {deleted.id: True, renamed.id: False}


@pytest.mark.root
def test_results_on_a_read_only_disk_are_listed(small_disk: Path, i2v_lab) -> None:  # type: ignore[no-untyped-def]
    folder = small_disk / "results"
    runs = made(folder, 2)
    Store(folder).save(
        runs[0].model_copy(update={"id": "dead", "status": "running", "clip": "", "host": socket.gethostname(), "pid": 2**22})
    )
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        store = Store(folder)
        assert [run.id for run in store.records(status="done")] == [run.id for run in runs]
        assert len(store.runs()) == 3
        assert repr(clip_grid(store.runs(status="done"), ["seed"])) == "ClipGrid(1 x 2, 2 clips)"
        assert compare(store.runs(status="done")).data["cells"]
        assert "3 runs" in store.database.check()
        assert "runs.db cannot be opened for writing" in fault(store.save, FULL)
        for words in (("runs",), ("runs", "--csv"), ("runs", "--rebuild")):
            done = i2v_lab(*words, "--output-dir", folder)
            assert (done.returncode, "clips/" in done.stdout) == (0, True), done.stderr
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
