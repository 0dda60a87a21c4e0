"""The record of runs: what goes in comes out, by our own reader and by others; and real faults."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import COLUMNS, RunRecord, new_id
from i2v_lab.errors import StoreError
from i2v_lab.store import Store

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
PARAMS = ClipParams(
    model="i2vgen-xl", image="pictures/ä b.png", prompt="a cat; \"walking\",\n走着", negative_prompt="blur", resolution="704x1280",
    num_frames=24, fps="24000/1001", condition_fps=8, num_inference_steps=30, guidance_scale=7.5, seed=2**63 - 1, scheduler="heun",
    dtype="float16",
)  # fmt: skip
FULL = RunRecord(
    id=new_id(NOON), status="done", reason="-", params=PARAMS, seconds_per_step=0.3,
    seconds={"load": 1.5, "denoise": 9.25, "metrics": 0.5, "total": 12.0},
    peak_ram_gib=3.5, peak_vram_allocated_gib=8.25, peak_vram_reserved_gib=9.0, predicted_peak_gib=8.0,
    requested_tier=0, actual_tier=1, clip="clips/a.mp4", retimed_from="r", file_bytes=12345, frames_sha256="f" * 64, padded_rows=1, padded_columns=1,
    metrics={"motion": 1.25, "flicker": None}, notes=("first frame of 3", "näxt"), sweep="guidance", key="k" * 64, created=NOON,
    finished=NOON + timedelta(seconds=12), image_sha256="a" * 64, model_name="i2vgen-xl", model_fingerprint="b" * 64,
    device="cuda:0", device_name="a GPU", dtype="bfloat16", versions={"torch": "2.13.0"}, host="elsewhere", pid=17,
)  # fmt: skip


def record(status: str = "done", **fields: object) -> RunRecord:
    return RunRecord.model_validate({"id": new_id(), "status": status, "params": ClipParams(image="x.png"), **fields})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def fault(work: object, *args: object, **options: object) -> str:
    """The text of the error, which is one line."""
    with pytest.raises(StoreError) as caught:
        work(*args, **options)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """Another process, whose standard input and output are ours."""
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code, *map(str, args)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip


# What goes in comes out


def test_every_field_comes_back(store: Store) -> None:
    for name, field in RunRecord.model_fields.items():
        assert getattr(FULL, name) != field.get_default(call_default_factory=True), f"FULL leaves {name} at its default"
    for name, field in ClipParams.model_fields.items():
        assert getattr(PARAMS, name) != field.default, f"PARAMS leaves {name} at its default"
    store.save(FULL)
    assert store.get(FULL.id) == FULL


def test_a_record_of_params_that_were_not_valid(store: Store) -> None:
    bad = RunRecord(id=new_id(), status="failed", reason="resolution: expected ...")
    store.save(bad)
    assert store.get(bad.id) == bad
    row = store.runs().iloc[0]
    assert row["reason"] == bad.reason
    assert row[["prompt", "height", "fps", "clip", "seconds_total", "finished"]].isna().all()


def test_what_utf8_and_json_cannot_hold_does_not_lose_a_record(store: Store) -> None:
    reason = os.fsdecode(b"caf\xe9.png: no such file \0")
    store.save(RunRecord(id="1", status="failed", reason=reason, notes=(reason,), metrics={"motion": float("nan")}))
    assert (found := store.get("1")) is not None
    assert (found.reason, found.metrics) == ("caf\\udce9.png: no such file \0", {"motion": None})
    assert len(store.runs()) == 1


def test_saving_again_replaces(store: Store) -> None:
    store.save(FULL.model_copy(update={"status": "running", "clip": "", "finished": None}))
    store.save(FULL)
    assert store.records() == [FULL]


def test_every_field_is_a_column_for_plain_sqlite(store: Store) -> None:
    store.save(FULL)
    with closing(sqlite3.connect(store.file)) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM runs").fetchone())
        assert connection.execute("PRAGMA journal_mode").fetchone()["journal_mode"] == "wal"
    assert set(ClipParams.model_fields) <= set(row)
    assert {name for name in RunRecord.model_fields if name not in ("params", "seconds", "dtype")} <= set(row)
    assert {name: row[name] for name in ClipParams.model_fields if name != "fps"} == {
        name: value for name, value in PARAMS.plain().items() if name != "fps"
    }
    assert (row["fps"], row["actual_dtype"], row["dtype"]) == ("24000/1001", "bfloat16", "float16")
    assert (row["seconds_denoise"], row["seconds_encode"], row["seconds_total"]) == (9.25, None, 12.0)
    assert json.loads(row["versions"]) == FULL.versions
    assert row["created"] == "2026-11-22T12:00:00.123456+00:00"


def test_times_are_utc_and_need_a_zone(store: Store) -> None:
    there = NOON.astimezone(timezone(timedelta(hours=9)))
    store.save(record(id="1", created=there))
    assert (found := store.get("1")) is not None
    assert found.created == NOON
    assert found.created.utcoffset() == timedelta(0)
    with pytest.raises(ValidationError, match="zone"):
        record(created=NOON.replace(tzinfo=None))


@pytest.mark.parametrize("clip", ["../up.mp4", "/etc/passwd", "clips/../../up.mp4", "clips\\..\\up.mp4"])
def test_a_clip_lies_inside_the_output_folder(clip: str) -> None:
    with pytest.raises(ValidationError, match="inside the output folder"):
        record(clip=clip)


def test_ids_sort_by_time_and_never_meet() -> None:
    ids = [new_id(NOON + timedelta(microseconds=i)) for i in range(1000)]
    assert ids == sorted(ids)
    assert len({new_id(NOON) for _ in range(1000)}) == 1000
    assert ids[0].startswith("20261122T120000.123456-")


# Finding


def test_find_done_is_the_newest_whose_clip_is_there(store: Store) -> None:
    for i, status in enumerate(["done", "done", "done", "failed"]):
        store.save(record(status, id=str(i), key="k", clip=f"clips/{i}.mp4", created=NOON + timedelta(seconds=i)))
    assert store.find_done("k") is None
    store.clips.mkdir()
    for i in (0, 1, 3):
        (store.clips / f"{i}.mp4").touch()
    assert (found := store.find_done("k")) is not None
    assert found.id == "1"
    (store.clips / "2.mp4").touch()
    assert {key: [run.id for run in found] for key, found in store.find_all_done(["k", "other", "", "k"]).items()} == {"k": ["2"]}
    assert store.find_done("") is None
    (store.clips / "4.gif").touch()
    store.save(record("done", id="4", key="k", clip="clips/4.gif", created=NOON + timedelta(seconds=4)))
    for ending, id in ((".mp4", "2"), (".gif", "4"), ("", "4")):
        assert (found := store.find_done("k", ending)) is not None
        assert found.id == id


def test_records_of_a_sweep_a_status_and_a_number(store: Store) -> None:
    store.save_many(
        record("done" if i % 2 else "failed", id=str(i), sweep="s" if i < 6 else "", created=NOON + timedelta(seconds=i))
        for i in (3, 1, 2, 0, 5, 4, 7, 6)
    )
    assert [run.id for run in store.records()] == list("01234567")
    assert [run.id for run in store.records(sweep="s", status="done")] == list("135")
    assert [run.id for run in store.records(limit=2)] == list("67")
    assert store.records(limit=0) == []
    assert list(store.runs(sweep="s", status="failed")["id"]) == list("024")
    assert store.get("none") is None


def test_pictures_are_kept_once(store: Store, tmp_path: Path) -> None:
    picture = tmp_path / "Photo.JPG"
    picture.write_bytes(b"picture" * 1000)
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    assert store.find_picture(digest) is None
    kept = store.keep_picture(picture, digest)
    assert kept == store.pictures / f"{digest}.jpg" == store.find_picture(digest)
    assert kept.read_bytes() == picture.read_bytes()
    assert kept.stat().st_mode == picture.stat().st_mode  # not the closed mode of a temporary file
    picture.unlink()
    assert store.keep_picture(picture, digest) == kept
    assert list(store.pictures.iterdir()) == [kept]


def test_pictures_that_cannot_be_kept(store: Store, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(b"new bytes")
    assert "changed" in fault(store.keep_picture, picture, "0" * 64)
    assert "cannot be copied" in fault(store.keep_picture, tmp_path / "none.png", "0" * 64)
    assert "sha256" in fault(store.keep_picture, picture, "../../up")
    assert not list(store.pictures.iterdir())


# The table


def test_table_of_a_few_thousand_runs(store: Store) -> None:
    statuses = ["done", "failed", "stopped"]
    seconds = {"denoise": 2.0, "total": 3.0, "metrics": 0.5}
    base = record(seconds=seconds, metrics={"motion": 0.5}, notes=("a", "b"), clip="clips/a.mp4")
    ntsc = Fraction(24000, 1001)
    params = [ClipParams(image="x.png", fps=ntsc, resolution="256x448", seed=2**62 + i) for i in range(10)]
    rows = [
        base.model_copy(update={"id": f"{i:05d}", "status": statuses[i % 3], "params": params[i % 10],
                                "created": NOON + timedelta(seconds=i), "actual_tier": None if i % 2 else 1})
        for i in range(3000)
    ]  # fmt: skip
    store.save_many(reversed(rows))
    frame = store.runs()
    assert len(frame) == 3000
    assert list(frame["id"]) == [row.id for row in rows]
    columns = list(frame.columns)
    assert columns[:5] == ["id", "status", "reason", "model", "image"]
    assert columns[columns.index("resolution") + 1 :][:2] == ["height", "width"]
    assert [columns.index(name) for name in ("seed", "seconds_load", "peak_ram_gib", "clip", "metric_motion", "pid")] == sorted(
        columns.index(name) for name in ("seed", "seconds_load", "peak_ram_gib", "clip", "metric_motion", "pid")
    )
    expected = {"text": "str", "integer": "Int64", "real": "float64", "time": "datetime64[us, UTC]", "json": "str"}
    special = {"fps": "float64", "height": "Int64", "width": "Int64", "seconds_metrics": "float64", "metric_motion": "float64"}
    for column in COLUMNS:
        if column.name not in ("metrics", "seconds_other"):
            assert str(frame[column.name].dtype) == special.get(column.name, expected[column.kind]), column.name
    for name, dtype in special.items():
        assert str(frame[name].dtype) == dtype
    last = frame.iloc[-1]
    assert (last["height"], last["width"], last["seed"]) == (256, 448, 2**62 + 9)
    assert last["fps"] == 24000 / 1001
    assert (last["seconds_denoise"], last["seconds_metrics"], last["metric_motion"]) == (2.0, 0.5, 0.5)
    assert (last["clip"], last["notes"]) == (f"{store.directory}/clips/a.mp4", "a; b")
    assert last["created"] == NOON + timedelta(seconds=2999)
    assert frame["actual_tier"].isna().sum() == 1500


def test_table_of_no_runs_has_the_same_types(store: Store) -> None:
    empty = store.runs()
    assert len(empty) == 0
    store.save(FULL)
    filled = store.runs()
    assert set(filled.columns) - set(empty.columns) == {"seconds_metrics", "metric_motion", "metric_flicker"}
    assert all(filled[name].dtype == empty[name].dtype for name in empty.columns)


def test_table_survives_csv_and_parquet(store: Store, tmp_path: Path) -> None:
    store.save_many([FULL, record("failed", id="2", params=None), record(id="3", created=NOON - timedelta(days=1))])
    frame = store.runs()
    frame.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), frame)
    table = pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["id"] for row in table] == ["3", FULL.id, "2"]
    assert (table[1]["prompt"], table[1]["seed"], table[1]["created"]) == (PARAMS.prompt, PARAMS.seed, NOON)
    assert (table[2]["prompt"], table[2]["seed"], table[2]["height"]) == (None, None, None)
    frame.to_csv(tmp_path / "table.csv", index=False)
    back = pd.read_csv(tmp_path / "table.csv", parse_dates=["created", "finished"], dtype={"id": "str", "seed": "Int64"})
    assert list(back.columns) == list(frame.columns)
    for name in ("id", "prompt", "seed", "fps", "guidance_scale", "seconds_denoise", "metric_motion", "clip"):
        left, right = back[name], frame[name]
        if name == "prompt":  # CSV knows no difference between nothing and an empty text
            left, right = left.fillna(""), right.fillna("")
        pd.testing.assert_series_equal(left, right, check_dtype=False)
    assert list(back["created"]) == list(frame["created"])


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the rights to mount a small tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


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
    assert "cannot be copied" in fault(store.keep_picture, picture, digest)
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
