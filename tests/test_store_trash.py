"""Runs that are deleted, and come back."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import fault, record
from sweeps import tiny

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.run import run_clip
from i2v_lab.settings import Output, Settings
from i2v_lab.store import Store
from i2v_lab.sweep import plan_sweep


def made(store: Store, seed: int = 0) -> RunRecord:
    params = ClipParams(model="fake", image="sample:coffee", resolution="64x64", num_frames=2, num_inference_steps=3, seed=seed)
    return run_clip(params, None, store, settings=Settings(output=Output(directory=store.directory)))


def test_a_deleted_run_is_nowhere_and_comes_back_as_it_was(store: Store) -> None:
    one, other = store.get(made(store).id), store.get(made(store, 1).id)
    assert one is not None
    assert other is not None
    data = (store.directory / one.clip).read_bytes()
    store.delete(one.id)
    assert store.records() == [other]
    assert list(store.runs()["id"]) == [other.id]
    assert store.find_done(one.key) is None
    assert store.rebuild() == 0
    assert [file.name for file in store.clips.glob("[!.]*")] == [Path(other.clip).name]
    assert store.undelete() == [one.id]
    assert store.records() == [one, other]
    assert (store.directory / one.clip).read_bytes() == data
    assert not list((store.clips / ".trash").iterdir())


def test_a_deleted_clip_does_not_count_as_made(store: Store) -> None:
    settings, sweep = Settings(output=Output(directory=store.directory)), tiny(axes={"seed": [0, 1]})
    one = made(store)
    assert plan_sweep(sweep, store, settings).counts == {"done": 1, "to do": 1}
    store.delete(one.id)
    assert plan_sweep(sweep, store, settings).counts == {"to do": 2}
    again = made(store)
    assert again.id != one.id
    assert again.frames_sha256 == one.frames_sha256


def test_those_deleted_together_come_back_together(store: Store) -> None:
    runs = [made(store, seed) for seed in range(3)]
    store.delete(runs[0].id)
    store.delete(runs[1].id, runs[2].id)
    assert store.undelete() == sorted([runs[1].id, runs[2].id])
    assert store.undelete() == [runs[0].id]
    assert store.undelete() == []


def test_a_name_that_was_taken_meanwhile(store: Store) -> None:
    one = made(store)
    store.delete(one.id)
    (store.directory / one.clip).write_bytes(b"another")
    store.undelete(one.id)
    found = store.get(one.id)
    assert found is not None
    assert (found.clip, found.frames_sha256) == (one.clip.replace(".mp4", "_1.mp4"), one.frames_sha256)
    assert (store.directory / one.clip).read_bytes() == b"another"


def test_emptying_removes_for_good(store: Store) -> None:
    one, other = made(store), made(store, 1)
    store.delete(one.id)
    assert store.empty_trash() == 1
    assert fault(store.undelete, one.id) == (
        f"there is no deleted run '{one.id}'; without names, --undo brings back those deleted last"
    )
    assert not (store.clips / ".trash").exists()
    assert [found.id for found in store.records()] == [other.id]


def test_what_cannot_be_deleted(store: Store) -> None:
    running = record("running", id="r")
    store.save(running)
    assert fault(store.delete, "r") == "run r is still running: stop it first, then delete it"
    assert fault(store.delete, "x") == "there is no run 'x'"
    store.save(record("failed", id="f", reason="no memory"))
    store.delete("f")
    assert [run.id for run in store.records()] == ["r"]
    store.undelete("f")
    assert [run.id for run in store.records()] == ["r", "f"]


def test_a_clip_that_cannot_be_moved_keeps_its_run(store: Store) -> None:
    one = made(store)
    before = store.get(one.id)
    (store.clips / ".trash").write_bytes(b"a file where the folder should be")
    assert "cannot be moved to clips/.trash" in fault(store.delete, one.id)
    assert store.get(one.id) == before
    assert (store.directory / one.clip).is_file()


@pytest.mark.parametrize("name", ["../../up", "a/b", "x" * 400])
def test_an_id_from_a_clip_names_no_place(store: Store, name: str) -> None:
    """The id of a record that was read from a clip may be anything."""
    store.clips.mkdir(parents=True)
    (store.clips / "a.mp4").write_bytes(b"-")
    store.save(record(id=name, clip="clips/a.mp4"))
    store.delete(name)
    assert len(list((store.clips / ".trash").iterdir())) == 1
    store.undelete(name)
    assert (store.clips / "a.mp4").read_bytes() == b"-"
