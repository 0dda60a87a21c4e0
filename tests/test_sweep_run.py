"""The plan of a sweep, and its run: what is made, used, recorded and retried."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sweeps import TINY, StopAt, hashes, tiny

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.clip.video import Frames
from i2v_lab.errors import OutOfMemory, SweepError
from i2v_lab.metrics import METRICS
from i2v_lab.models.fake import FakeModel
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import (
    Cell,
    Sweep,
    SweepProgress,
    SweepStatus,
    SweepStop,
    load_sweep,
    plan_sweep,
    run_sweep,
)

ROOT = Path(__file__).parent.parent


def test_the_plan_says_what_is_done_what_cannot_run_and_how_long_it_takes(store: Store, settings: Settings, tmp_path: Path) -> None:
    base = ClipParams(**TINY)
    run_clip(base, None, store, settings=settings)
    sweep = tiny(axes={"image": ["sample:coffee", str(tmp_path / "none.png")], "num_frames": [2, 4, 8]})
    before = sorted(store.directory.rglob("*"))
    planned = plan_sweep(sweep, store, settings)
    assert sorted(store.directory.rglob("*")) == before  # nothing is written
    assert planned.counts == {"done": 1, "to do": 2, "cannot run": 3}
    assert "none.png" in planned.table["reason"].iloc[-1]
    done = store.runs().iloc[0]
    measured = done["seconds_total"] - (done["seconds_load"] if pd.notna(done["seconds_load"]) else 0)
    assert [item.seconds for item in planned.cells[:3]] != [None, None, None]
    assert planned.table.sort_values("expected s")["expected s"].iloc[0] == pytest.approx(measured)
    seconds, size = planned.expected()
    assert seconds == pytest.approx(measured * (2 + 4), rel=0.4)  # by frames: twice and four times the work of some stages
    assert " to " in planned.summary() and planned.cells[0].time is not None
    assert size == pytest.approx(done["file_bytes"] * (2 + 4))
    assert "to do" in planned._repr_html_()
    assert plan_sweep(tiny(axes={"scheduler": ["heun"]}), Store(tmp_path / "new"), settings).expected() == (None, None)


def test_the_plan_does_not_run_what_the_model_cannot_make(store: Store, settings: Settings) -> None:
    planned = plan_sweep(Sweep(base={"image": "sample:coffee"}, axes={"dtype": ["float32", "float16"]}), store, settings)
    assert planned.counts == {"to do": 1, "cannot run": 1}
    assert "nearest: float32" in {item.state: item.reason for item in planned.cells}["cannot run"]


def test_a_sweep_leaves_clips_a_table_and_its_definition(store: Store, settings: Settings) -> None:
    class Ear(SweepProgress):
        def updated(self, status: SweepStatus) -> None:
            self.status = status

    seen: list[tuple[Cell, RunRecord]] = []
    ear = Ear()
    result = run_sweep(
        tiny(axes={"seed": [3, 1, 2]}),
        store,
        settings=settings,
        progress=ear,
        on_cell=lambda cell, record: seen.append((cell, record)),
    )
    assert result.complete and (result.counts, result.ran) == ({"done": 3}, 3)
    assert [cell.params.seed for cell, _ in seen] == [3, 1, 2]
    table = result.table()
    assert list(table["cell"]) == [1, 2, 3] and list(table["seed"]) == [3, 1, 2]
    assert (table["sweep"] == "tiny").all()
    assert load_sweep(result.folder / "sweep.yaml").definition() == tiny(axes={"seed": [3, 1, 2]}).definition()
    for read in (pd.read_csv(result.folder / "table.csv"), pd.read_parquet(result.folder / "table.parquet")):
        assert list(read.columns) == list(table.columns)
        assert list(read["frames_sha256"]) == list(table["frames_sha256"])
    assert (ear.status.sweep, ear.status.done, ear.status.over) == (result.id, 3, True)
    assert sorted(path.name for path in result.folder.iterdir()) == ["sweep.yaml", "table.csv", "table.parquet"]


def test_planned_cells_are_rows_of_the_table_before_they_run(store: Store, settings: Settings) -> None:
    sweep = tiny(axes={"seed": [1, 2], "fps": ["24000/1001", 8]})
    stop = SweepStop()
    stop.ask("cell", "before the first")
    assert run_sweep(sweep, store, settings=settings, stop=stop).stopped == "before the first"
    table = store.runs(sweep="tiny")
    assert list(table["status"]) == ["planned"] * 4
    assert list(table["seed"]) == [1, 1, 2, 2]
    assert table["fps"].tolist() == pytest.approx([24000 / 1001, 8] * 2)
    assert table[["clip", "seconds_total"]].isna().all().all()
    assert list(table.dtypes.drop("cell")) == list(Store(store.directory / "other").runs().dtypes)


def test_the_order_of_cells_does_not_change_their_frames(tmp_path: Path, settings: Settings) -> None:
    base = {"image": "sample:coffee", "prompt": "zoom in", "resolution": "64x64", "num_frames": 3, "num_inference_steps": 2}
    axes = {"guidance_scale": [4, 9], "seed": [0, 1]}
    forth, back, alone = (Store(tmp_path / name) for name in ("forth", "back", "alone"))
    run_sweep(Sweep(name="s", base=base, axes=axes), forth, settings=settings)
    run_sweep(
        Sweep(name="s", base=base, axes={name: given[::-1] for name, given in reversed(axes.items())}), back, settings=settings
    )
    single = run_clip(ClipParams(**base, guidance_scale=9, seed=1), None, alone, settings=settings)
    for store in (forth, back):
        assert set(store.runs(sweep="s")["status"]) == {"done"}, store.runs(sweep="s")["reason"].tolist()
    assert hashes(forth, "s") == hashes(back, "s")
    assert hashes(forth, "s")["1 9.0 3"] == single.frames_sha256


def test_a_new_value_runs_only_the_new_cells_and_what_another_sweep_made_is_used(store: Store, settings: Settings) -> None:
    first = run_sweep(tiny(axes={"seed": [1, 2]}), store, settings=settings)
    second = run_sweep(tiny(axes={"seed": [1, 2, 3]}), store, settings=settings)
    assert (second.ran, second.counts) == (1, {"done": 3})
    assert second.folder != first.folder
    other = run_sweep(tiny(name="other", axes={"seed": [3, 4]}), store, settings=settings)
    assert (other.ran, other.counts) == (1, {"done": 2})
    assert list(other.table()["sweep"]) == ["tiny", "other"]
    again = run_sweep(tiny(axes={"seed": [1, 2, 3]}), store, settings=settings)
    assert (again.ran, again.folder) == (0, second.folder)
    assert len(store.runs()) == 4
    assert len(store.runs(sweep=first.id)) == 2  # the older one keeps its own table


class Greedy(FakeModel):
    """Runs out of memory above 4 frames until it is given more, and counts how often it is loaded."""

    name: ClassVar[str] = "greedy"
    loads: ClassVar[int] = 0
    most: ClassVar[int] = 4

    def __init__(self) -> None:
        type(self).loads += 1

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        frames = super().generate(image, params, progress)
        if params.num_frames > type(self).most:
            raise OutOfMemory(f"{params.num_frames} frames are too many")
        return frames


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> type[Greedy]:
    monkeypatch.setitem(models.FAMILIES, "greedy", "test_sweep_run:Greedy")
    import test_sweep_run

    kind: type[Greedy] = test_sweep_run.Greedy
    monkeypatch.setattr(kind, "loads", 0)
    monkeypatch.setattr(kind, "most", 4)
    models.unload()
    return kind


def test_twelve_cells_load_the_model_once(store: Store, settings: Settings, greedy: type[Greedy]) -> None:
    sweep = tiny(base={**TINY, "model": "greedy"}, axes={"seed": "1..4 step 1", "num_frames": [2, 3, 4]})
    assert run_sweep(sweep, store, settings=settings).counts == {"done": 12}
    assert greedy.loads == 1


def test_what_fails_is_recorded_passed_over_and_retried_alone(
    store: Store, settings: Settings, greedy: type[Greedy], tmp_path: Path
) -> None:
    missing = tmp_path / "missing.png"
    sweep = tiny(base={**TINY, "model": "greedy"}, axes={"image": [str(missing), "sample:coffee"], "num_frames": [2, 3, 8]},
                 where=f"image == 'sample:coffee' or num_frames == 3 and '{missing}' == image")  # fmt: skip
    cells = {(cell.params.image, cell.params.num_frames): cell.number for cell in sweep.cells()}
    assert len(cells) == 4
    first = run_sweep(sweep, store, settings=settings, progress=StopAt(cells["sample:coffee", 3]))
    assert first.stopped == "by hand"
    second = run_sweep(sweep, store, settings=settings)
    assert second.counts == {"done": 1, "stopped": 1, "failed": 1, "out_of_memory": 1}
    reasons = dict(zip(second.table()["status"], second.table()["reason"], strict=True))
    assert reasons["stopped"] == "by hand"
    assert reasons["out_of_memory"].startswith("8 frames are too many; tier 0 was tried; make fewer frames")
    assert "missing.png" in reasons["failed"]
    assert run_sweep(sweep, store, settings=settings).ran == 0  # a failure is not tried again unasked
    grown = sweep.changed(axes={"seed": [0, 1]})
    assert plan_sweep(grown, store, settings).counts == {"done": 1, "stopped": 1, "failed": 1, "out_of_memory": 1, "to do": 3,
                                                   "cannot run": 1}  # fmt: skip

    greedy.most = 8
    missing.write_bytes((ROOT / "tests").joinpath("sweeps.py").read_bytes())  # still no picture
    ran: list[int] = []
    third = run_sweep(sweep, store, settings=settings, retry="failed", on_cell=lambda cell, record: ran.append(cell.number))
    assert sorted(ran) == sorted(set(cells.values()) - {cells["sample:coffee", 2]})
    assert third.counts == {"done": 3, "failed": 1}
    assert run_sweep(sweep, store, settings=settings, retry=("out_of_memory", "stopped")).ran == 0
    with pytest.raises(SweepError, match="retry: expected failed, out_of_memory, stopped, none, got 'faild'"):
        run_sweep(sweep, store, settings=settings, retry="faild")


def test_a_cell_whose_picture_changed_is_not_done(store: Store, settings: Settings, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(picture)
    sweep = tiny(axes={"image": [str(picture)], "seed": [1, 2]})
    assert run_sweep(sweep, store, settings=settings).counts == {"done": 2}
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)[::-1]).save(picture)
    assert run_sweep(sweep, store, settings=settings, retry="failed").counts == {"planned": 2}
    again = run_sweep(sweep, store, settings=settings)
    assert (again.ran, again.counts) == (2, {"done": 2})


def test_a_plan_of_2000_cells_and_a_resume_that_finds_all_done_keep_nothing(store: Store, settings: Settings) -> None:
    sweep = tiny(axes={"seed": "1..2000 step 1"})
    planned = plan_sweep(sweep, store, settings)
    assert planned.counts == {"to do": 2000}
    store.clips.mkdir(parents=True)
    like = RunRecord(id="-", status="done", model_name="fake", metrics=dict.fromkeys(METRICS, 0.0))
    for item in planned.cells:
        (store.clips / f"{item.cell.number}.mp4").touch()
    store.save_many(
        like.model_copy(
            update={"id": new_id(), "key": item.key, "params": item.cell.params, "clip": f"clips/{item.cell.number}.mp4"}
        )
        for item in planned.cells
    )
    result = run_sweep(sweep, store, settings=settings)
    assert (result.ran, result.counts) == (0, {"done": 2000})
    assert len(result.table()) == 2000
