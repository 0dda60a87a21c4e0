"""Stores and clips that an older version made: brought up to date once, and read."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from i2v_lab.clip.video import read_settings
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, plan_sweep

# Made by version 0.1.0 of November 2026: `i2v-lab sweep --name old` over seed and fps with the fake model, and one clip
# of the closed-form model. `runs.sql` is the dump of its runs.db.
VERSION_1 = Path(__file__).parent / "stores" / "version_1"
SWEEP = Sweep(
    name="old",
    base={"model": "fake", "image": "sample:coffee", "prompt": "zoom in", "resolution": "64x64", "num_frames": 4},
    axes={"seed": "1,2", "fps": "8,24000/1001"},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The output folder as version 1 left it."""
    results = tmp_path / "results"
    (results / "clips").mkdir(parents=True)
    for clip in VERSION_1.glob("*.mp4"):
        shutil.copy(clip, results / "clips")
    with closing(sqlite3.connect(results / "runs.db")) as connection:
        connection.executescript((VERSION_1 / "runs.sql").read_text())
        connection.execute("PRAGMA user_version = 1")
    return results


def test_finished_cells_of_version_1_count_as_done(folder: Path) -> None:
    planned = plan_sweep(SWEEP, Store(folder), Settings())
    assert planned.counts == {"done": 4}
    assert len({cell.run for cell in planned.cells}) == 4


def test_runs_that_differ_in_fps_alone_have_one_key_now(folder: Path) -> None:
    store = Store(folder)
    found = store.find_all_done({run.key for run in store.records() if run.model_name == "fake"}, ".mp4")
    assert [len(runs) for runs in found.values()] == [2, 2]
    for runs in found.values():
        assert {run.params.fps for run in runs if run.params} == {Fraction(8), Fraction(24000, 1001)}


def test_it_is_brought_up_to_date_once(folder: Path) -> None:
    before = Store(folder).records()
    with closing(sqlite3.connect(folder / "runs.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert Store(folder).records() == before
    assert [run.id for run in before] == [run.id for run in Store(folder).records()]


@pytest.mark.slow
def test_a_clip_of_version_1_is_read_and_made_again(folder: Path, i2v_lab) -> None:
    clip = sorted((folder / "clips").glob("*.mp4"))[-1]
    assert read_settings(clip)["params"]["prompt"] == "zoom in"
    shown = i2v_lab("show", clip)
    assert shown.returncode == 0
    assert re.search(r"^num_inference_steps: +5$", shown.stdout, re.MULTILINE)
    again = i2v_lab("again", clip, "--output-dir", folder)
    assert again.returncode == 0, again.stderr
    assert "frames" in again.stderr
