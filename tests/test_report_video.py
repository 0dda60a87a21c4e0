"""The video of a grid: what it shows, where, and in how much memory."""

from __future__ import annotations

import os
import tracemalloc
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sweeps import GUIDANCE, LONG, clip_frames, colour, grey, make_sweep, table_of

from i2v_lab.clip import video
from i2v_lab.clip.publish import host_name
from i2v_lab.errors import InputError, WriteError
from i2v_lab.report import grid_video, mosaic
from i2v_lab.report.player import fonts as text
from i2v_lab.report.player.grid import arrange


@pytest.fixture(scope="module")
def guidance(tmp_path_factory) -> pd.DataFrame:
    """Three values of guidance, not in order, x two seeds."""
    return make_sweep(tmp_path_factory.mktemp("guidance"), GUIDANCE)


def decoded(path: Path) -> tuple[np.ndarray, float]:
    """All frames, uint8 RGB, and the rate: by OpenCV, which did not write them."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (found := capture.read())[0]:
        frames.append(found[1][..., ::-1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return np.stack(frames), rate


def layout_of(table: pd.DataFrame, axes: list[str]) -> mosaic.VideoLayout:
    grid = arrange(table, axes)
    return mosaic.lay_out(grid, [video.probe(Path(cell.clip)) if cell.clip else cell.reason for cell in grid.cells])


def assert_shows(frame: np.ndarray, place: mosaic.Place, number: int, index: int) -> None:
    """In the box of `place`, the frame shows frame `index` of clip `number`, from edge to edge."""
    box = frame[place.top : place.top + place.height, place.left : place.left + place.width].astype(int)
    upper, lower = box[4 : place.height // 2 - 4, 4:-4], box[place.height // 2 + 4 : -4, 4:-4]
    assert np.abs(upper - np.array(colour(number))).max() < 20
    assert np.abs(lower - grey(index)).max() < 8
    around = frame[place.top - 3, place.left : place.left + place.width]
    assert around.min() > 235


def test_the_video_shows_every_clip_at_its_place_in_step(guidance, tmp_path):
    axes = ["guidance_scale", "seed"]
    path = grid_video(guidance, axes, tmp_path / "grid.mp4")
    frames, rate = decoded(path)
    layout = layout_of(guidance, axes)
    assert (len(frames), rate) == (4, 8.0)
    assert frames.shape[1:3] == (layout.height, layout.width)
    assert layout.height % 2 == layout.width % 2 == 0
    order = {(cell["guidance_scale"], cell["seed"]): number for number, cell in enumerate(GUIDANCE)}
    assert [(place.width, place.height) for place in layout.places] == [(96, 64)] * 6  # nothing was resized
    for place in layout.places:
        number = order[place.cell.run["guidance_scale"], place.cell.run["seed"]]
        for index, frame in enumerate(frames):
            assert_shows(frame, place, number, index)


def test_clips_of_other_lengths_and_rates_stay_in_step_and_hold_their_last_frame(tmp_path):
    kinds = [(8, 8), (12, 24), (9, "24000/1001")]  # 1 s, 0.5 s, 0.375 s
    table = make_sweep(tmp_path, [{"num_frames": count, "fps": fps, "seed": seed} for seed, (count, fps) in enumerate(kinds)])
    frames, rate = decoded(grid_video(table, ["seed"], tmp_path / "grid.mp4"))
    assert (len(frames), rate) == (24, 24.0)
    for index, frame in enumerate(frames):
        moment = (index + Fraction(1, 2)) / 24
        for place, (count, fps) in zip(layout_of(table, ["seed"]).places, kinds, strict=True):
            number = place.cell.run["seed"]
            assert_shows(frame, place, number, min(int(moment * Fraction(fps)), count - 1))
    assert decoded(grid_video(table, ["seed"], tmp_path / "slow.mp4", fps=4))[0].shape[0] == 4


def test_clips_of_other_sizes_keep_their_shape(tmp_path):
    cells = [{"resolution": size, "seed": 0} for size in ("64x64", "128p", "64x128") if size != "128p"]
    table = make_sweep(tmp_path, [*cells, {"resolution": "128x128", "seed": 0}])
    frames, _ = decoded(grid_video(table, ["resolution"], tmp_path / "grid.mp4"))
    layout = layout_of(table, ["resolution"])
    boxes = {place.cell.run["resolution"]: place for place in layout.places}
    wide = boxes["64x128"]
    assert (wide.width, wide.height) == (128, 128)
    shown = frames[0][wide.top : wide.top + 128, wide.left : wide.left + 128]
    assert shown[:30].min() > 235 and shown[-30:].min() > 235  # above and below it: nothing
    assert np.abs(shown[36:60, 4:-4].astype(int) - colour(1)).max() < 16


def test_a_slice_of_a_larger_sweep_makes_no_clip_again(tmp_path):
    axes = ["guidance_scale", "num_inference_steps", "seed"]
    cells = [dict(zip(axes, values, strict=True)) for values in product((4.0, 9.0), (10, 20), (0, 1))]
    table = make_sweep(tmp_path, cells)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "clips").iterdir()}
    first, second = (grid_video(table, axes, tmp_path / name, where=where)
                     for name, where in (("a.mp4", "seed == 1"), ("b.mp4", {"seed": [1]})))  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "clips").iterdir()} == before
    frames, _ = decoded(first)
    assert np.array_equal(frames, decoded(second)[0])
    layout = layout_of(table[table["seed"] == 1], axes)
    assert [place.cell.run["seed"] for place in layout.places] == [1] * 4
    for place, number in zip(layout.places, (1, 3, 5, 7), strict=True):
        assert_shows(frames[2], place, number, 2)
    for where, said in (("seed = 1", "condition"), ({"hue": 1}, "'hue'"), ("seed == 7", "at least one run"), ("hue == 1", "hue")):
        with pytest.raises(InputError, match=said):
            grid_video(table, axes, tmp_path / "c.mp4", where=where)


@pytest.mark.parametrize("axes", [["prompt"], ["prompt", "seed"], ["seed", "prompt"]])
def test_labels_are_neither_cut_nor_do_they_overlap(tmp_path, axes):
    table = make_sweep(tmp_path, [{"prompt": prompt, "seed": seed, "num_frames": 2} for prompt in LONG for seed in (0, 1)])
    table = table if "seed" in axes else table[table["seed"] == 0]
    grid, layout = arrange(table, axes), layout_of(table, axes)
    for words in layout.texts:
        for line in words.lines:
            left, _, right, bottom = text.font(words.size, line).getbbox(line)
            assert right - min(left, 0) <= words.width + 1
            assert bottom <= mosaic._tall(words.lines, words.size)
        assert words.left >= 0 and words.left + words.width <= layout.width
        assert words.top >= 0 and words.top + mosaic._tall(words.lines, words.size) <= layout.height
    boxes = [(box.left, box.top, box.left + box.width, box.top + box.height) for box in layout.places]
    boxes += [(box.left, box.top, box.left + box.width, box.top + mosaic._tall(box.lines, box.size)) for box in layout.texts]
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    # Every letter of every label is there.
    wanted = sorted("".join(text.drawable(f"{name} {value}") for name, value in label).replace(" ", "")
                    for label in (*grid.rows, *grid.columns) if label)  # fmt: skip
    assert sorted("".join(words.lines).replace(" ", "") for words in layout.texts) == wanted
    frames, _ = decoded(grid_video(table, axes, tmp_path / "grid.mp4"))
    for border in (frames[0, :3], frames[0, -3:], frames[0, :, :3], frames[0, :, -3:]):
        assert border.min() > 235  # nothing reaches the edge


def test_letters_that_no_font_has_are_written_as_their_numbers():
    assert text.drawable("a \U0010fffd b\u202e") == r"a \U0010fffd b\u202e"
    assert text.drawable("naïve → ß") == "naïve → ß"


def test_a_failed_cell_shows_its_reason(tmp_path):
    cells = [{"seed": 0, "resolution": "128x192"}, {"seed": 1, "status": "out_of_memory", "reason": "needs 9 GiB, has 8 " * 3}]
    table = make_sweep(tmp_path, cells)
    frames, _ = decoded(grid_video(table, ["seed"], tmp_path / "grid.mp4"))
    place = layout_of(table, ["seed"]).places[1]
    status, reason = mosaic.reason_boxes(place, table["reason"][1])
    assert status.lines == ("out of memory",)
    assert " ".join(reason.lines).split() == table["reason"][1].split()
    box = frames[0][place.top : place.top + place.height, place.left : place.left + place.width]
    assert (box.min(axis=2) < 120).sum() > 200  # ink
    assert reason.top + mosaic._tall(reason.lines, reason.size) <= place.top + place.height
    none = make_sweep(tmp_path / "none", [{"seed": 0, "status": "stopped", "reason": "interrupted"}])
    assert len(decoded(grid_video(none, ["seed"], tmp_path / "none.mp4"))[0]) == 2


def test_a_reason_that_has_no_room_ends_with_an_ellipsis(tmp_path):
    table = make_sweep(tmp_path, [{"seed": 0, "status": "failed", "reason": "word " * 400}])
    place = layout_of(table, ["seed"]).places[0]
    _, reason = mosaic.reason_boxes(place, table["reason"][0])
    assert reason.lines[-1].endswith("…")
    assert reason.top + mosaic._tall(reason.lines, reason.size) <= place.top + place.height


def test_many_columns_go_on_in_a_second_band_and_too_many_cells_are_refused():
    grid = arrange(table_of(guidance_scale=range(3), seed=range(40)), ["guidance_scale", "seed"])
    info = video.VideoInfo(Path("x.mp4"), 16, 512, 512, Fraction(8), 1, "h264", (0, 0))
    layout = mosaic.lay_out(grid, [info] * 120)
    assert layout.width <= mosaic.WIDTH_MAX
    assert layout.height <= mosaic.HEIGHT_AIM
    assert sum(words.lines == ("seed 39",) for words in layout.texts) == 1
    assert sum(words.lines == ("guidance_scale 2",) for words in layout.texts) > 1  # in each band
    six = arrange(table_of(guidance_scale=range(3), seed=range(6)), ["guidance_scale", "seed"])
    small = video.VideoInfo(Path("x.mp4"), 12, 288, 192, Fraction(8), 1, "h264", (0, 0))
    places = mosaic.lay_out(six, [small] * 18).places  # a little smaller, in one band
    assert len({place.top for place in places}) == 3 and {place.width for place in places} <= set(range(216, 288))
    huge = arrange(table_of(guidance_scale=range(40), seed=range(60)), ["guidance_scale", "seed"])
    with pytest.raises(InputError, match=r"40 x 60 cells .* where"):
        mosaic.lay_out(huge, [info] * 2400)


def test_a_video_is_replaced_whole_and_leaves_nothing_else(guidance, tmp_path):
    path = tmp_path / "report" / "grid.mp4"
    path.parent.mkdir()
    path.write_bytes(b"old")
    stale = path.parent / f".grid.mp4.{host_name()[:20]}.{2**22 + 1}.abc"  # above the highest number of a process
    stale.mkdir()
    (stale / "0-0.raw").write_bytes(b"left behind")
    alive = path.parent / f".grid.mp4.{host_name()[:20]}.{os.getppid()}.abc"
    alive.mkdir()
    assert grid_video(guidance, ["guidance_scale", "seed"], path) == path
    assert video.probe(path).frames == 4
    assert sorted(path.parent.iterdir()) == [alive, path]
    held = path.read_bytes()
    for wrong, error in (({"fps": 1000}, InputError), ({"where": "seed == 9"}, InputError)):
        with pytest.raises(error):
            grid_video(guidance, ["guidance_scale", "seed"], path, **wrong)
    assert path.read_bytes() == held
    with pytest.raises(WriteError, match="format"):
        grid_video(guidance, ["guidance_scale", "seed"], tmp_path / "report" / "grid.avi")
    assert sorted(path.parent.iterdir()) == [alive, path]


@pytest.mark.slow
def test_neither_memory_nor_the_disk_holds_the_frames_of_all_clips(tmp_path, monkeypatch):
    table = make_sweep(tmp_path, [{"seed": seed, "num_frames": 40} for seed in range(16)])
    whole, _ = decoded(grid_video(table, ["seed"], tmp_path / "whole.mp4"))
    layout = layout_of(table, ["seed"])
    monkeypatch.setattr(mosaic, "STRETCH_BYTES", 3 * layout.width * layout.height * 3)  # three frames
    found, decode = [], mosaic._decode

    def look(*given):
        found.append(sum(file.stat().st_size for file in tmp_path.rglob(".grid.mp4.*/*")))
        return decode(*given)

    monkeypatch.setattr(mosaic, "_decode", look)
    tracemalloc.start()
    path = grid_video(table, ["seed"], tmp_path / "grid.mp4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(decoded(path)[0], whole)
    assert peak < 12 * layout.width * layout.height * 3 < 16 * 40 * 64 * 96 * 3
    assert len(found) == 14 * 16 and max(found) < 64 * 96 * 3 * 16  # less than one frame of each clip


def test_the_sweeps_that_these_tests_make_are_what_they_say(tmp_path):
    table = make_sweep(tmp_path, [{"seed": 3, "num_frames": 5}])
    shown = video.read(Path(table["clip"][0]))
    far = np.abs(shown.astype(int) - clip_frames(0, 5, 64, 96)).max(axis=(0, 2, 3))  # by row: the halves bleed where they meet
    assert max(far[:29].max(), far[35:].max()) < 8
    assert Image.fromarray(shown[0]).size == (96, 64)
