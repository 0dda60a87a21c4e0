"""The record of runs: several processes at once, what others left, and real faults."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from records import FULL, fault, python, record

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.store import Store

pytest_plugins = ("disks",)


# Several at once, and what others left


WRITER = """
import sys
from pathlib import Path
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.store import Store
print("ready", flush=True)
sys.stdin.readline()
store = Store(Path(sys.argv[1]))
for i in range(25):
    run = RunRecord(id=new_id(), status="running", params=ClipParams(image="x.png", seed=i), sweep=sys.argv[2])
    store.save(run)
    store.save(run.model_copy(update={"status": "done"}))
"""


@pytest.mark.slow
def test_eight_processes_write_at_once(tmp_path: Path) -> None:
    writers = [python(WRITER, tmp_path / "new", i) for i in range(8)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all begin by making the same folder and database
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    frame = Store(tmp_path / "new").runs()
    assert len(frame) == 200
    assert set(frame["status"]) == {"done"}
    assert {(sweep, seed) for sweep, seed in zip(frame["sweep"], frame["seed"], strict=True)} == {
        (str(i), seed) for i in range(8) for seed in range(25)
    }


def test_threads_share_a_store(store: Store) -> None:
    def write(sweep: str) -> None:
        for _ in range(5):
            store.save(record(sweep=sweep))

    threads = [threading.Thread(target=write, args=[str(i)]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.runs()) == 20


RUNNER = """
import sys
from pathlib import Path
from i2v_lab.clip.record import RunRecord
from i2v_lab.store import Store
Store(Path(sys.argv[1])).save(RunRecord(id=sys.argv[2], status="running"))
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_killed_run_is_marked_and_a_live_one_is_not(store: Store) -> None:
    killed, live = python(RUNNER, store.directory, "killed"), python(RUNNER, store.directory, "live")
    for runner in (killed, live):
        assert runner.stdout is not None
        assert runner.stdout.readline() == "ready\n"
    assert store.mark_dead() == 0
    killed.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the list of processes
    store.save(record("running", id="here"))
    store.save(record("running", id="elsewhere", host="another-host", pid=killed.pid))
    # The number of a process that died comes again: this one was given to us after the record was made.
    store.save(record("running", id="number again", pid=os.getpid(), created=datetime(2020, 1, 1, tzinfo=UTC)))
    opened = Store(store.directory)
    statuses = {run.id: (run.status, run.reason) for run in opened.records()}
    dead = ("failed", "the process ended before the clip was done")
    assert statuses == {"killed": dead, "number again": dead, "live": ("running", ""), "here": ("running", ""),
                        "elsewhere": ("running", "")}  # fmt: skip
    assert (found := opened.get("killed")) is not None
    assert found.finished is not None
    for runner in (killed, live):
        runner.communicate()
    assert opened.mark_dead() == 1


def old_database(folder: Path) -> Path:
    """A database as an older version might have left it: few columns, one that is not known any more, one run."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "runs.db")) as connection:
        connection.execute("CREATE TABLE runs (id TEXT PRIMARY KEY, status TEXT, created TEXT, image TEXT, prompt TEXT, gone TEXT)")
        connection.execute("INSERT INTO runs VALUES ('old', 'done', '2025-01-01T00:00:00.000000+00:00', 'x.png', 'a cat', 'kept')")
        connection.commit()
    return folder


def test_an_older_database_gets_its_columns(tmp_path: Path) -> None:
    store = Store(old_database(tmp_path / "old"))
    store.save(FULL)
    assert (found := store.get("old")) is not None
    assert found.params == ClipParams(image="x.png", prompt="a cat")
    assert (found.seconds, found.clip, found.metrics) == ({}, "", {})
    assert store.get(FULL.id) == FULL
    frame = store.runs()
    assert list(frame["id"]) == ["old", FULL.id]
    assert frame["prompt"][0] == "a cat"
    assert frame.iloc[0][["seed", "height", "seconds_total"]].isna().all()
    with closing(sqlite3.connect(store.file)) as connection:
        assert connection.execute("SELECT gone FROM runs WHERE id = 'old'").fetchone() == ("kept",)


def test_params_that_are_no_longer_allowed_do_not_hide_a_run(store: Store) -> None:
    store.save(FULL)
    with closing(sqlite3.connect(store.file)) as connection:
        connection.execute("UPDATE runs SET num_frames = 100000")
        connection.commit()
    (found,) = store.records()
    assert found.params is None
    assert "num_frames" in found.notes[-1]
    assert store.runs()["num_frames"][0] == 100000


# Faults


def test_a_newer_database(store: Store) -> None:
    store.save(FULL)
    with closing(sqlite3.connect(store.file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "newer version" in fault(Store, store.directory)


def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("these are my notes on the runs\n" * 100)
    assert "is not a record of runs, or is damaged" in fault(Store, tmp_path)
    assert (tmp_path / "runs.db").read_text().startswith("these are my notes")


def test_a_damaged_database(store: Store) -> None:
    store.save_many(record() for _ in range(100))
    data = bytearray(store.file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)  # all but the page of the schema
    store.file.write_bytes(data)
    assert "damaged" in fault(store.runs)


def test_odd_values_in_a_row(store: Store) -> None:
    store.save(FULL)
    with closing(sqlite3.connect(store.file)) as connection:
        connection.execute("UPDATE runs SET versions = '[', seed = 'many'")
        connection.commit()
    assert FULL.id in fault(store.records)
    assert "cannot be read" in fault(store.runs)


def test_a_locked_database(store: Store) -> None:
    store.save(record(id="first"))
    impatient = Store(store.directory, timeout=0.05)
    with closing(sqlite3.connect(store.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "locked by another program for more than 0.05 s" in fault(impatient.save, FULL)
        assert [run.id for run in impatient.records()] == ["first"]  # readers need not wait
        other.execute("ROLLBACK")
    impatient.save(FULL)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    assert "expected a folder, got a file" in fault(Store, tmp_path / "results")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everywhere: do it as somebody who may not."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_folder_without_rights() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which nobody else may even enter
        folder = Path(name)
        store = Store(folder / "results")
        store.save(FULL)
        store.file.chmod(0o444)
        store.directory.chmod(0o555)
        folder.chmod(0o555)
        try:
            with as_nobody():
                assert "cannot be made" in fault(Store(folder / "new").save, FULL)
                assert Store(folder / "results").records() == [FULL]  # it can be read all the same
                assert "check the rights" in fault(store.save, FULL)
        finally:
            for path in (folder, store.directory):
                path.chmod(0o755)


def fill(disk: Path, name: str) -> None:
    """Leave not one byte free."""
    with (disk / name).open("wb", buffering=0) as file, pytest.raises(OSError, match="No space") as caught:
        while True:
            file.write(b"\0" * 4096)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.root
def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(b"picture" * 10000)
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    store = Store(small_disk / "results")
    store.save(FULL.model_copy(update={"status": "running", "host": RunRecord(id="1", status="done").host, "pid": os.getpid()}))
    fill(small_disk, "others")
    assert "is full" in fault(store.keep_picture, picture, digest)
    assert not store.pictures.exists() or not list(store.pictures.iterdir())
    failed = FULL.model_copy(update={"status": "failed", "reason": "the disk is full" * 10})
    store.save(failed)  # in the room that was held back
    assert store.records() == [failed]
    fill(small_disk, "others2")
    assert "full" in fault(store.save, failed.model_copy(update={"reason": "x" * 500_000}))
    for name in ("others", "others2"):
        (small_disk / name).unlink()
    opened = Store(store.directory)
    assert opened.records() == [failed]
    opened.save(failed)
    assert (opened.directory / "runs.db-spare").stat().st_size == 256 * 1024


@pytest.mark.root
def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    fill(small_disk, "others")
    text = fault(Store(small_disk / "results").save, FULL)
    assert "full" in text or "No space" in text
