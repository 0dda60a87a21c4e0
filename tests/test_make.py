"""The two halves of run_clip: `make` in a process without a store, and `Store.adopt`, which keeps what it made."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.clip.video import probe
from i2v_lab.errors import StoreError
from i2v_lab.models.fake import FakeModel
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store

PARAMS = ClipParams(model="fake", image="sample:coffee", prompt="zoom in", resolution="64x64", num_frames=3)
SETTINGS = Settings()

ELSEWHERE = """
import sys
from pathlib import Path
from i2v_lab.clip.params import ClipParams
from i2v_lab.run import make
from i2v_lab.settings import Settings
made = make(ClipParams.model_validate_json(sys.argv[1]), Path(sys.argv[2]), settings=Settings(), id="made-elsewhere", sweep="s")
print(made.record.model_dump_json())
print(made.clip)
"""


def test_a_clip_is_made_in_another_process_without_a_store_and_adopted_here(tmp_path: Path) -> None:
    far, store = tmp_path / "far", Store(tmp_path / "results")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, PARAMS.model_dump_json(), far], capture_output=True, text=True, check=True
    )
    record, clip = done.stdout.splitlines()
    assert [path.name for path in far.iterdir()] == [Path(clip).name]  # no database, no picture
    adopted = store.adopt(RunRecord.model_validate_json(record), Path(clip))
    assert (adopted.id, adopted.sweep, adopted.status) == ("made-elsewhere", "s", "done")
    assert store.get("made-elsewhere") == adopted
    assert probe(store.directory / adopted.clip).frames == 3
    assert list(far.iterdir()) == []  # moved
    here = run_clip(PARAMS, None, Store(tmp_path / "other"), settings=SETTINGS)
    assert (here.key, here.frames_sha256) == (adopted.key, adopted.frames_sha256)
    # A finished key is not made again, whoever made it.
    assert run_clip(PARAMS, None, store, settings=SETTINGS).id == "made-elsewhere"


def test_adopt_overwrites_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for number in range(3):
        clip = tmp_path / f"far{number}" / "clip.mp4"
        clip.parent.mkdir()
        clip.write_text(str(number))
        record = store.adopt(RunRecord(id=new_id(), status="done", params=PARAMS), clip)
        assert (store.directory / record.clip).read_text() == str(number)
    assert sorted(path.name for path in store.clips.iterdir()) == ["clip.mp4", "clip_1.mp4", "clip_2.mp4"]


def test_a_record_that_cannot_be_kept_says_where_its_clip_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.directory.mkdir()
    store.file.write_bytes(b"no database" * 1000)
    clip = tmp_path / "clip.mp4"
    clip.write_text("x")
    with pytest.raises(StoreError, match=r"the clip was made: .*clips/clip\.mp4"):
        store.adopt(RunRecord(id=new_id(), status="done", params=PARAMS), clip)


class Counted(FakeModel):
    made = 0

    def generate(self, *args: object) -> object:  # type: ignore[override]
        Counted.made += 1
        return super().generate(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["mp4", "webm", "gif"])
def test_another_fps_uses_the_frames_that_are_there(tmp_path: Path, format: str) -> None:
    store, settings = Store(tmp_path / "results"), Settings(output={"format": format})  # type: ignore[arg-type]
    Counted.made = 0
    params = PARAMS.replace(fps=10)  # what a GIF can hold exactly
    first = run_clip(params, Counted(), store, settings=settings)
    other = run_clip(PARAMS.replace(fps=20), Counted(), store, settings=settings)
    same = run_clip(PARAMS.replace(fps=20), Counted(), store, settings=settings)
    assert Counted.made == 1
    assert same.id == other.id != first.id
    assert (other.key, other.frames_sha256, other.retimed_from) == (first.key, first.frames_sha256, first.id)
    assert probe(store.directory / other.clip).fps == Fraction(20)
    assert probe(store.directory / first.clip).fps == Fraction(10)
    assert any("the coded pictures of run" in note for note in other.notes)
    assert "denoise" not in other.seconds
    assert store.timings("fake", other.device_name)[0][-6] == pytest.approx(first.seconds["total"] - first.seconds["load"])
    assert len(store.timings("fake", other.device_name)) == 1  # what took no computing says nothing of the device
    again = run_clip(PARAMS.replace(fps=20), Counted(), store, settings=settings, force=True)
    assert (Counted.made, again.retimed_from, again.frames_sha256) == (2, "", first.frames_sha256)


def test_what_only_reads_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert store.records() == []
    assert len(store.runs()) == 0
    assert store.find_done("k") is None
    assert store.find_sweeps("s") == []
    assert list(tmp_path.iterdir()) == []


def test_metrics_come_into_a_record_without_losing_what_came_meanwhile(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    record = RunRecord(id="1", status="done", params=PARAMS)
    store.save(record)
    store.save(record.model_copy(update={"notes": ("came meanwhile",)}))
    store.set_metrics("1", {"motion": 1.5, "flicker": None})
    assert (found := store.get("1")) is not None
    assert (found.notes, found.metrics) == (("came meanwhile",), {"motion": 1.5, "flicker": None})
