"""The record of runs: what goes in comes out, by our own reader and by others."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from datetime import timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from pydantic import ValidationError
from records import FULL, NOON, PARAMS, fault, record

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import COLUMNS, RunRecord, new_id
from i2v_lab.store import Store

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
    assert kept.stat().st_mode & 0o777 == 0o600
    picture.unlink()
    assert store.keep_picture(picture, digest) == kept
    assert list(store.pictures.iterdir()) == [kept]


def test_pictures_that_cannot_be_kept(store: Store, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(b"new bytes")
    assert "changed" in fault(store.keep_picture, picture, "0" * 64)
    assert "cannot be copied" in fault(store.keep_picture, tmp_path / "none.png", "0" * 64)
    assert "sha256" in fault(store.keep_picture, picture, "../../up")
    assert not store.pictures.exists()


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
