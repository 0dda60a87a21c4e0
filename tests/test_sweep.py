"""Sweeps: what a file may say, the plan, and a run that loses nothing, whatever happens to it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from conftest import environment
from i2v_lab.sweep.planning import params_json
from i2v_lab.sweep.progress import ask_to_stop, read_standing
from PIL import Image

from i2v_lab import models
from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.clip.video import Frames
from i2v_lab.devices.turns import turn
from i2v_lab.errors import OutOfMemory, Stop, SweepError
from i2v_lab.models.fake import FakeModel
from i2v_lab.report.sweep_display import LiveSweep
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import (
    Cell,
    Standing,
    Sweep,
    SweepProgress,
    SweepSwitch,
    load_sweep,
    open_folder,
    parse_sweep,
    plan,
    run_sweep,
    with_options,
)
from i2v_lab.sweep.axes import numbers

ROOT = Path(__file__).parent.parent
TINY: Mapping[str, Any] = {
    "model": "fake", "image": "sample:coffee", "resolution": "64x64", "num_frames": 2, "num_inference_steps": 3,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings()


def tiny(**fields: Any) -> Sweep:
    return Sweep(**{"name": "tiny", "base": TINY, **fields})


# Values


@pytest.mark.parametrize(("text", "expected"), [
    ("0..1 step 0.4", [0, 0.4, 0.8]),
    ("6..16 step 2", [6, 8, 10, 12, 14, 16]),
    ("1..10 count 4", [1, 4, 7, 10]),
    ("0..1 count 3", [0, 0.5, 1]),
    ("0..0.3 step 0.1", [0, 0.1, 0.2, 0.3]),
    ("3..1 step -1", [3, 2, 1]),
    ("10..1 count 4", [10, 7, 4, 1]),
    ("5..5 step 1", [5]),
    (" 1 .. 2  step .5 ", [1, 1.5, 2]),
    ("0..1e2 step 5e1", [0, 50, 100]),
])  # fmt: skip
def test_a_range_is_exact_and_never_overshoots(text: str, expected: list[float]) -> None:
    found = numbers(text, "guidance_scale")
    assert found == expected
    assert [type(value) for value in found] == [int if value == int(value) else float for value in expected]


@pytest.mark.parametrize(("text", "why"), [
    ("6..16", "expected a range such as"),
    ("6..16 step 0", "an empty range"),
    ("6..16 step -2", "expected a step above 0"),
    ("16..6 step 2", "expected a step below 0"),
    ("1..10 count 1", "whole count of at least 2"),
    ("1..10 count 2.5", "whole count of at least 2"),
    ("3..3 count 4", "are all the same"),
    ("0..1 step 1e-9", "at most 10000"),
    ("a..b step 1", "expected a range such as"),
])  # fmt: skip
def test_a_range_that_makes_no_sense_is_told(text: str, why: str) -> None:
    with pytest.raises(SweepError, match=why) as caught:
        numbers(text, "seed")
    assert str(caught.value).startswith("seed: ")
    assert "\n" not in str(caught.value)


def test_cells_are_every_combination_costly_axes_outermost() -> None:
    sweep = tiny(axes={"guidance_scale": [6, 9], "resolution": "64x64, 96x64"}, seeds=[1, 2])
    assert sweep.axis_names == ["resolution", "guidance_scale", "seed"]
    cells = sweep.cells()
    assert [cell.number for cell in cells] == list(range(1, 9))
    assert [cell.label for cell in cells[:3]] == [
        "resolution 64x64, guidance_scale 6, seed 1",
        "resolution 64x64, guidance_scale 6, seed 2",
        "resolution 64x64, guidance_scale 9, seed 1",
    ]
    ordered = sweep.changed().model_copy(update={"order": ("seed", "resolution", "guidance_scale")})
    assert Sweep(**{name: getattr(ordered, name) for name in Sweep.model_fields}).axis_names == [
        "seed",
        "resolution",
        "guidance_scale",
    ]


def test_axes_in_a_zip_move_together() -> None:
    sweep = tiny(axes={"num_inference_steps": [1, 2], "resolution": ["64x64", "96x64"], "seed": [5, 6]},
                 zip=[["resolution", "num_inference_steps"]])  # fmt: skip
    found = [(cell.params.resolution, cell.params.num_inference_steps, cell.params.seed) for cell in sweep.cells()]
    assert found == [("64x64", 1, 5), ("64x64", 1, 6), ("96x64", 2, 5), ("96x64", 2, 6)]


def test_a_word_of_the_prompt_is_replaced_and_comes_first_itself() -> None:
    sweep = tiny(base={**TINY, "prompt": "a man walking, walking fast"}, axes={"prompt": "walking -> [running, 'jumping, up']"})
    assert [cell.params.prompt for cell in sweep.cells()] == [
        "a man walking, walking fast", "a man running, running fast", "a man jumping, up, jumping, up fast",
    ]  # fmt: skip
    assert [cell.labels["prompt"] for cell in sweep.cells()] == ["walking", "running", "jumping, up"]
    listed = tiny(base={**TINY, "prompt": "walking"}, axes={"prompt": "walking -> running, walking"})
    assert [cell.params.prompt for cell in listed.cells()] == ["running", "walking"]


def test_where_keeps_the_cells_that_meet_it() -> None:
    sweep = tiny(axes={"seed": "1..6 step 1", "resolution": ["64x64", "128x64"]}, where="seed % 2 == 0 and height * width <= 64*64")
    assert [(cell.params.seed, cell.number) for cell in sweep.cells()] == [(2, 1), (4, 2), (6, 3)]
    assert len(tiny(axes={"prompt": "[a cat, a dog]"}, where="'cat' in prompt").cells()) == 1


def test_a_file_python_and_the_command_line_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "guide.yaml").write_text(
        "base: {model: fake, image: 'sample:coffee', prompt: 'a, b'}\n"
        "axes:\n  guidance_scale: 6..14 step 2\n  num_inference_steps: [20, 50]\nseeds:\n"
    )
    file = load_sweep(tmp_path / "guide.yaml")
    code = Sweep(name="guide", base={"model": "fake", "image": "sample:coffee", "prompt": "a, b"},
                 axes={"guidance_scale": [6, 8, 10, 12, 14], "num_inference_steps": [20, 50]})  # fmt: skip
    line = with_options(Sweep(name="guide"), ["guidance-scale=6..14 step 2", "num_inference_steps=20,50"],
                        ["prompt=a, b", "model=fake", "image=sample:coffee"])  # fmt: skip
    assert file.definition() == code.definition() == line.definition()
    assert parse_sweep(file.to_yaml()).definition() == file.definition()
    assert with_options(file, ["seed=1,2"]).definition() != file.definition()


def test_options_change_a_file_without_unravelling_it() -> None:
    sweep = tiny(axes={"resolution": ["64x64", "96x64"], "num_frames": [2, 3], "seed": [1, 2]}, zip=[["resolution", "num_frames"]],
                 order=["seed", "resolution"])  # fmt: skip
    fixed = with_options(sweep, base=["resolution=128x64"])
    assert [cell.label for cell in fixed.cells()[:2]] == ["seed 1, num_frames 2", "seed 1, num_frames 3"]
    assert {cell.params.resolution for cell in fixed.cells()} == {"128x64"}
    more = with_options(sweep, ["guidance-scale=6,9"])
    assert more.axis_names == ["seed", "resolution", "num_frames", "guidance_scale"]
    assert len(more.cells()) == 8
    assert with_options(tiny(seeds=[1, 2]), ["seed=7"]).cells()[0].params.seed == 7


FAULTS = {
    "axes: {guidence_scale: [1]}": "axes: guidence_scale: unknown axis; did you mean guidance_scale?",
    "base: {promt: a}": "base: promt: unknown name; did you mean prompt?",
    "axis: {seed: [1]}": "axis: unknown name; did you mean axes?",
    "axes: {seed: 5..1 step 1}": "seed: an empty range",
    "axes: {seed: []}": "seed: expected at least one value",
    "axes: {seed: '1,,2'}": "seed: expected values between the commas",
    "axes: {seed: [[1, 2]]}": "seed: expected values such as",
    "axes: {seed: 1..5 step 1}\nwhere: seed > 9": "where: 'seed > 9' leaves none of the 5 cells",
    "axes: {seed: [1]}\nwhere: sed > 9": "where: sed: unknown name; did you mean seed?",
    "axes: {seed: [1]}\nwhere: __import__('os').abort()": "where: expected comparisons of params",
    "axes: {seed: [1]}\nwhere: seed.real > 0": "where: expected comparisons of params",
    "axes: {seed: [1]}\nwhere: seed & 1": "write `and` for &",
    "axes: {seed: [1]}\nwhere: seed = 1": "write == to compare",
    "axes: {seed: [1]}\nwhere: seed > 'a'": "cannot be computed",
    "axes: {seed: [1]}\nseeds: [2]": "seeds: the axis seed stands in axes as well",
    "axes:\n  seed: [1]\n  fps: [8]\n  seed: [2]": "seed: stands twice (line 5)",
    "name: a\nname: b": "name: stands twice (line 2)",
    "axes: {seed: [1, 1.0]}": "two cells are the same clip: seed 1; seed 1.0",
    "axes: {seed: [1, 2], fps: [8]}\nzip: [[seed, fps]]": "zip: expected axes of one length to move together, got seed has 2, fps has 1",
    "axes: {seed: [1, 2]}\nzip: [[seed, fps]]": "zip: fps: unknown axis",
    "axes: {seed: [1], fps: [8]}\norder: [seed]": "order: expected every axis, fps is missing",
    "axes: {seed: [1], fps: [8]}\norder: [seed, seed, fps]": "seed: stands twice in zip or in order",
    "base: {prompt: a cat}\naxes: {prompt: 'dog -> [bird]'}": "prompt: 'dog' is to be replaced and does not stand in the prompt",
    "axes: {prompt: ' -> [bird]'}": "prompt: expected WORD -> [OTHER, ...]",
    "base: {prompt: a}\naxes: {prompt: 'a -> [b'}": "a bracket is missing",
    "axes: {guidance_scale: 40..60 step 20, seed: 1..9 step 1}": "guidance_scale: input should be less than or equal to 50, got 60",
    "axes: {seed: 1..9999 step 1, condition_fps: 1..99 step 1}": "expected at most 100000 cells",
    "name: ../up": "name: expected letters, digits",
    "axes: [": "not valid YAML in line 2",
    "- 1": "expected name, base and axes, got a list",
    "": "expected name, base and axes, got nothing",
    "1: 2": "1: unknown name",
}


@pytest.mark.parametrize("text", FAULTS, ids=range(len(FAULTS)))
def test_every_fault_of_a_file_is_one_clear_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    whole = text if "base" in text or not text.startswith(("axes", "name: .")) else f"base: {{image: x.png}}\n{text}"
    path.write_text(whole)
    with pytest.raises(SweepError) as caught:
        load_sweep(path).cells()
    assert FAULTS[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_faults_of_many_cells_are_counted_not_listed() -> None:
    with pytest.raises(SweepError, match=r"\(100 of 200 cells\)") as caught:
        tiny(axes={"guidance_scale": [9, 99], "seed": "1..100 step 1"}).cells()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("given", ["seed", "seed=", "sed=1"])
def test_faults_of_options_are_told(given: str) -> None:
    with pytest.raises(SweepError, match=r"NAME=VALUE|did you mean seed"):
        with_options(Sweep(), [given])
    with pytest.raises(SweepError, match="stands twice"):
        with_options(Sweep(), ["seed=1", "seed=2"])


# The plan


def test_the_plan_says_what_is_done_what_cannot_run_and_how_long_it_takes(store: Store, settings: Settings, tmp_path: Path) -> None:
    base = ClipParams(**TINY)
    run_clip(base, None, store, settings=settings)
    sweep = tiny(axes={"image": ["sample:coffee", str(tmp_path / "none.png")], "num_frames": [2, 4, 8]})
    before = sorted(store.directory.rglob("*"))
    planned = plan(sweep, store, settings)
    assert sorted(store.directory.rglob("*")) == before  # nothing is written
    assert planned.counts == {"done": 1, "to do": 2, "cannot run": 3}
    assert "none.png" in planned.table["reason"].iloc[-1]
    done = store.runs().iloc[0]
    measured = done["seconds_total"] - (done["seconds_load"] if pd.notna(done["seconds_load"]) else 0)
    assert [item.seconds for item in planned.cells[:3]] != [None, None, None]
    assert planned.table.sort_values("expected s")["expected s"].iloc[0] == pytest.approx(measured)
    seconds, size = planned.expected()
    assert seconds == pytest.approx(measured * (2 + 4))  # by frames: twice and four times the work
    assert size == pytest.approx(done["file_bytes"] * (2 + 4))
    assert "to do" in planned._repr_html_()
    assert plan(tiny(axes={"scheduler": ["heun"]}), Store(tmp_path / "new"), settings).expected() == (None, None)


def test_the_plan_does_not_run_what_the_model_cannot_make(store: Store, settings: Settings) -> None:
    planned = plan(Sweep(base={"image": "sample:coffee"}, axes={"dtype": ["float32", "float16"]}), store, settings)
    assert planned.counts == {"to do": 1, "cannot run": 1}
    assert "nearest: float32" in {item.state: item.reason for item in planned.cells}["cannot run"]


# The run


def hashes(store: Store, sweep: str) -> dict[str, str]:
    """{params: frames} of the done cells."""
    table = store.runs(sweep=sweep)
    return {
        f"{row.seed} {row.guidance_scale} {row.num_frames}": row.frames_sha256 for row in table.itertuples() if row.status == "done"
    }


def test_a_sweep_leaves_clips_a_table_and_its_definition(store: Store, settings: Settings) -> None:
    seen: list[tuple[Cell, RunRecord]] = []
    result = run_sweep(
        tiny(axes={"seed": [3, 1, 2]}), store, settings=settings, on_cell=lambda cell, record: seen.append((cell, record))
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
    standing = read_standing(result.folder)
    assert standing and (standing.done, standing.over) == (3, True)
    assert sorted(path.name for path in result.folder.iterdir()) == ["progress.json", "sweep.yaml", "table.csv", "table.parquet"]


def test_planned_cells_are_rows_of_the_table_before_they_run(store: Store, settings: Settings) -> None:
    sweep = tiny(axes={"seed": [1, 2], "fps": ["24000/1001", 8]})
    open_folder(sweep, store, settings)
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
    monkeypatch.setitem(models.FAMILIES, "greedy", "test_sweep:Greedy")
    import test_sweep

    kind: type[Greedy] = test_sweep.Greedy
    monkeypatch.setattr(kind, "loads", 0)
    monkeypatch.setattr(kind, "most", 4)
    models.unload()
    return kind


def test_twelve_cells_load_the_model_once(store: Store, settings: Settings, greedy: type[Greedy]) -> None:
    sweep = tiny(base={**TINY, "model": "greedy"}, axes={"seed": "1..4 step 1", "num_frames": [2, 3, 4]})
    assert run_sweep(sweep, store, settings=settings).counts == {"done": 12}
    assert greedy.loads == 1


class StopAt(SweepProgress):
    """Stops in the denoising of one cell, or before it."""

    def __init__(self, cell: int, *, before: bool = False) -> None:
        self.number, self.before, self.now, self.stage_name = cell, before, 0, ""

    def cell(self, standing: Standing) -> None:
        self.now = standing.cell
        if self.before and self.now == self.number:
            raise Stop("enough")

    def stage(self, name: str, total: int | None = None) -> None:
        self.stage_name = name

    def step(self, preview: Preview | None = None) -> None:
        if self.now == self.number and self.stage_name == "denoise" and not self.before:
            raise Stop("by hand")


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
    assert plan(grown, store, settings).counts == {"done": 1, "stopped": 1, "failed": 1, "out_of_memory": 1, "to do": 3,
                                                   "cannot run": 1}  # fmt: skip

    greedy.most = 8
    missing.write_bytes((ROOT / "tests").joinpath("sweeps.py").read_bytes())  # still no picture
    ran: list[int] = []
    third = run_sweep(sweep, store, settings=settings, retry="failed", on_cell=lambda cell, record: ran.append(cell.number))
    assert sorted(ran) == sorted(set(cells.values()) - {cells["sample:coffee", 2]})
    assert third.counts == {"done": 3, "failed": 1}
    assert run_sweep(sweep, store, settings=settings, retry=("out_of_memory", "stopped")).ran == 0
    with pytest.raises(SweepError, match="retry: expected failed, out_of_memory, stopped, got 'faild'"):
        run_sweep(sweep, store, settings=settings, retry="faild")


def test_stop_after_this_cell_leaves_no_half_cell(store: Store, settings: Settings) -> None:
    sweep = tiny(axes={"seed": "1..4 step 1"})
    result = run_sweep(sweep, store, settings=settings, progress=StopAt(3, before=True))
    assert (result.stopped, result.counts) == ("enough", {"done": 2, "planned": 2})
    switch = SweepSwitch()
    result = run_sweep(sweep, store, settings=settings, progress=switch, on_cell=lambda cell, record: switch.stop("cell"))
    assert result.counts == {"done": 3, "planned": 1}
    folder = result.folder
    result = run_sweep(sweep.changed(axes={"seed": "1..9 step 1"}), store, settings=settings,
                       on_cell=lambda cell, record: ask_to_stop(store.directory / "sweeps" / store.find_sweeps("tiny")[0].id, "cell"))  # fmt: skip
    assert (result.ran, result.counts["done"]) == (1, 4)
    assert not (result.folder / "stop").exists() and result.folder != folder


def test_a_stop_for_another_process_is_left_to_it(store: Store, settings: Settings) -> None:
    def ask(cell: Cell, record: RunRecord) -> None:
        folder = store.directory / "sweeps" / store.find_sweeps("tiny")[0].id
        (folder / "stop").write_text(f"step {other.pid}")

    other = subprocess.Popen(["sleep", "60"])  # one that waits for its turn on the same sweep
    try:
        result = run_sweep(tiny(axes={"seed": "1..3 step 1"}), store, settings=settings, on_cell=ask)
        assert (result.stopped, result.counts) == ("", {"done": 3})
        assert (result.folder / "stop").exists()
    finally:
        other.kill()
        other.wait()


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
    planned = plan(sweep, store, settings)
    assert planned.counts == {"to do": 2000}
    like = RunRecord(id="-", status="done", model_name="fake")
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


# Killed, and started again

SCRIPT = """
import sys
from pathlib import Path
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import SweepProgress, load_sweep, run_sweep

class Tell(SweepProgress):  # every event is a line; with "ask", each waits for an answer
    def stands(self, standing):
        print(standing.cell, standing.stage or standing.note, standing.step, flush=True)
        if sys.argv[3] == "ask" and standing.stage == "denoise" and not standing.over:
            sys.stdin.readline()

result = run_sweep(load_sweep(sys.argv[1]), Store(Path(sys.argv[2])), settings=Settings(), progress=Tell())
print("result", result.counts, flush=True)
"""


def start(file: Path, results: Path, mode: str = "tell") -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-W", "error", "-c", SCRIPT, str(file), str(results), mode], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(results.parent), cwd=results.parent)  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_at_twenty_instants_a_sweep_loses_nothing(tmp_path: Path) -> None:
    sweep = tiny(axes={"seed": "1..4 step 1", "num_frames": "2..7 step 1"})
    file = tmp_path / "tiny.yaml"
    file.write_text(sweep.to_yaml())
    chance = random.Random(20)  # noqa: S311
    results = tmp_path / "killed"
    kills = 0
    for _ in range(20):
        process = start(file, results)
        assert process.stdout
        for _ in range(chance.randint(1, 18)):
            if process.stdout.readline().startswith("result"):
                break
        else:
            kill(process)
            kills += 1
            continue
        process.communicate()
    with start(file, results) as process:
        last = process.communicate()[0].splitlines()[-1]
    assert last == "result {'done': 24}"
    assert kills == 20, "the sweep was over before it was killed often enough: kill it sooner"

    store = Store(results)
    records = store.records(status="done")
    assert Counter(record.key for record in records).most_common(1)[0][1] == 1
    assert len(records) == len(store.runs(sweep="tiny")) == 24
    assert {record.status for record in store.records()} <= {"done", "failed"}
    for record in records:
        assert record.params
        assert video.read(store.directory / record.clip).shape[0] == record.params.num_frames
    for clip in store.clips.glob("[!.]*"):  # what has a clip's name is a clip
        assert video.probe(clip).frames >= 2
    undisturbed = Store(tmp_path / "undisturbed")
    run_sweep(sweep, undisturbed, settings=Settings())
    assert hashes(store, "tiny") == hashes(undisturbed, "tiny")


def test_two_sweeps_on_one_device_take_turns_and_a_dead_one_keeps_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(tiny(name=name, base={**TINY, "prompt": name}).to_yaml())
    results = tmp_path / "results"
    one = start(tmp_path / "one.yaml", results, "ask")
    assert one.stdout
    while "denoise" not in one.stdout.readline():
        pass
    with start(tmp_path / "two.yaml", results) as two:
        assert two.stdout
        assert f"waiting for the sweep one of process {one.pid} on cpu" in two.stdout.readline()
        kill(one)
        assert two.communicate()[0].splitlines()[-1] == "result {'done': 1}"

    with start(tmp_path / "one.yaml", results, "ask") as one:
        assert one.stdout and one.stdin
        while "denoise" not in one.stdout.readline():
            pass
        with start(tmp_path / "one.yaml", results) as other:  # the same sweep: it finds the work done
            assert other.stdout
            assert "waiting" in other.stdout.readline()
            one.communicate("\n" * 20)
            assert other.communicate()[0].splitlines()[-1] == "result {'done': 1}"
    assert len(Store(results).records(status="done")) == 2


def test_interrupting_the_kernel_ends_a_sweep_after_the_step_and_the_cell_as_usual(store: Store, settings: Settings) -> None:
    class Interrupted(LiveSweep):
        def stands(self, standing: Standing) -> None:
            super().stands(standing)
            if (standing.stage, standing.step) == ("denoise", 1):
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = run_sweep(tiny(), store, settings=settings, progress=Interrupted())
    assert result.counts["stopped"] == 1
    assert [record.reason for record in store.records(status="stopped")] == ["the kernel was interrupted"]
    assert signal.getsignal(signal.SIGINT) is before


def test_waiting_for_a_turn_can_be_stopped(store: Store, settings: Settings) -> None:
    class Impatient(SweepProgress):
        def stands(self, standing: Standing) -> None:
            if standing.note.startswith("waiting"):
                raise Stop("did not wait")

    with turn(("cpu",), "first", lambda text: None):
        result = run_sweep(tiny(), store, settings=settings, progress=Impatient())
    assert (result.stopped, result.counts) == ("did not wait", {"planned": 1})
    assert run_sweep(tiny(), store, settings=settings).complete


# What is shipped


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_runs_on_both_models_by_changing_one_line(path: Path, store: Store, settings: Settings) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    assert set(plan(sweep, store, settings).counts) == {"to do"}
    lines = path.read_text().splitlines()
    (model,) = [number for number, line in enumerate(lines) if line.strip().startswith("model:")]
    lines[model] = lines[model].replace("closed-form", "i2vgen-xl")
    other = parse_sweep("\n".join(lines), path.stem)
    for cell in other.cells():
        models.find(cell.params.model)[0].check(cell.params)


def test_the_shipped_presets_are_those_of_the_model() -> None:
    presets = models.family("i2vgen-xl").presets
    names = ("resolution", "num_frames", "num_inference_steps")
    found = [
        {name: getattr(cell.params, name) for name in names} for cell in load_sweep(ROOT / "experiments" / "presets.yaml").cells()
    ]
    assert found == [{name: dict(presets[preset])[name] for name in names} for preset in ("quick", "standard", "high", "extreme")]


def test_params_as_json_are_the_same_text_every_time() -> None:
    params = ClipParams(**TINY)
    assert params_json(params) == params_json(ClipParams(**json.loads(params_json(params))))
    assert os.sep not in params_json(params)
