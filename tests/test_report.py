"""Reports of sweeps: what stands where, what the plots and the video hold, and what a page must never do."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from fractions import Fraction
from html.parser import HTMLParser
from importlib.resources import files
from io import BytesIO
from itertools import combinations, product
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sweeps import EVIL, clip_frames, colour, grey, make_sweep

from i2v_lab.clip import video
from i2v_lab.errors import InputError, WriteError
from i2v_lab.report import cheapest, clip_grid, export_html, grid_video
from i2v_lab.report import grid_video as mosaic
from i2v_lab.report.cost_plots import cost_plots
from i2v_lab.report.player import fonts as text
from i2v_lab.report.player import page as player
from i2v_lab.report.player.grid import arrange

GUIDANCE = [{"guidance_scale": guidance, "seed": seed} for guidance, seed in product((9.0, 4.5, 12.0), (1, 0))]


@pytest.fixture(scope="module")
def guidance(tmp_path_factory) -> pd.DataFrame:
    """Three values of guidance, not in order, x two seeds."""
    return make_sweep(tmp_path_factory.mktemp("guidance"), GUIDANCE)


def table_of(**axes) -> pd.DataFrame:
    """A table without clips: every combination of the values; seconds are 2, 3, 4, ... and 0.1, 0.2, ... GiB."""
    frame = pd.DataFrame([dict(zip(axes, values, strict=True)) for values in product(*axes.values())])
    count = np.arange(len(frame), dtype=float)
    return frame.assign(status="done", reason="", clip=None, seconds_total=count + 3, seconds_load=1.0,
                        peak_ram_gib=(count + 1) / 10, peak_vram_allocated_gib=np.nan)  # fmt: skip


# Places


def test_two_axes_are_rows_and_columns_in_the_order_of_their_numbers(guidance):
    grid = arrange(guidance, ["guidance_scale", "seed"])
    assert grid.rows == ((("guidance_scale", "4.5"),), (("guidance_scale", "9"),), (("guidance_scale", "12"),))
    assert grid.columns == ((("seed", "0"),), (("seed", "1"),))
    assert [(cell.row, cell.column) for cell in grid.cells] == [(row, column) for row in range(3) for column in range(2)]
    for cell in grid.cells:
        assert cell.run["guidance_scale"] == float(dict(grid.rows[cell.row])["guidance_scale"])
        assert str(cell.run["seed"]) == dict(grid.columns[cell.column])["seed"]
    assert (grid.common, grid.notes, grid.wraps) == ((), (), False)


def test_one_axis_is_a_list_that_wraps():
    grid = arrange(table_of(scheduler=["unipc", "ddim"]), ["scheduler"])
    assert grid.wraps
    assert grid.columns == ((("scheduler", "unipc"),), (("scheduler", "ddim"),))  # words keep the table's order


def test_of_three_axes_the_first_two_nest_in_the_rows():
    grid = arrange(table_of(fps=[8, 24], num_frames=[16, 8], seed=[0, 1]), ["fps", "num_frames", "seed"])
    assert [dict(row) for row in grid.rows] == [{"fps": str(fps), "num_frames": str(count)} for fps in (8, 24) for count in (8, 16)]
    assert len(grid.columns) == 2
    assert len(grid.cells) == 8


def test_rows_and_columns_can_be_chosen():
    table = table_of(fps=[8, 24], num_frames=[16, 8], seed=[0, 1])
    axes = ["fps", "num_frames", "seed"]
    assert [name for name, _ in arrange(table, axes, columns="fps").rows[0]] == ["num_frames", "seed"]
    assert [name for name, _ in arrange(table, axes, rows="seed").columns[0]] == ["fps", "num_frames"]
    for wrong, said in (({"rows": "hue"}, "'hue'"), ({"rows": "fps", "columns": "fps"}, "both")):
        with pytest.raises(InputError, match=said):
            arrange(table, axes, **wrong)
    with pytest.raises(InputError, match="'hue'"):
        arrange(table, ["hue"])


def test_axes_that_move_together_count_as_one_and_those_with_one_value_are_said_once():
    table = table_of(resolution=["704x1280", "256p"], seed=[0, 1], fps=[8]).assign(steps=[50, 50, 20, 20])
    grid = arrange(table, ["resolution", "steps", "fps", "seed"])
    assert grid.common == (("fps", "8"),)
    assert [dict(row) for row in grid.rows] == [{"resolution": "256p", "steps": "20"}, {"resolution": "704x1280", "steps": "50"}]


def test_of_several_runs_of_a_cell_the_newest_that_is_done_is_shown_and_it_is_told():
    table = pd.concat([table_of(seed=[0, 1])] * 3, ignore_index=True).assign(name=list("abcdef"), clip="x.mp4")
    table.loc[4, "status"] = "failed"
    grid = arrange(table, ["seed"])
    assert [cell.run["name"] for cell in grid.cells] == ["c", "f"]
    assert grid.notes and grid.notes[0].startswith("6 runs for 2 cells")


def test_values_that_are_missing_or_empty_have_a_name():
    table = table_of(prompt=["", None, "a cat"])
    assert [dict(column)["prompt"] for column in arrange(table, ["prompt"]).columns] == ["(empty)", "a cat", "none"]
    pictures = table_of(image=["/home/a/cup.png", "/home/b/cat.png"])
    assert [dict(column)["image"] for column in arrange(pictures, ["image"]).columns] == ["cup.png", "cat.png"]
    assert arrange(table.iloc[:0], ["prompt"]).cells == ()


# The page


class Elements(HTMLParser):
    """What elements a page has, and what is in its data island."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data, self._island = "", False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._island = dict(attrs).get("type") == "application/json"

    def handle_endtag(self, tag):
        self._island = False

    def handle_data(self, data):
        if self._island:
            self.data += data


def assert_quiet(page: str) -> None:
    """No element of the page runs or fetches anything but the player."""
    elements = Elements(page)
    assert [attributes.get("type") for tag, attributes in elements.tags if tag == "script"] == ["application/json", "module"]
    for _, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert all((attributes.get(name) or "data:").startswith("data:") for name in ("src", "href"))
    assert "alert(1)</script>" not in page


def test_the_page_holds_the_files_bit_for_bit_and_says_what_they_are(guidance):
    grid = clip_grid(guidance, ["guidance_scale", "seed"])
    assert len(grid.data["cells"]) == 6
    for cell, place in zip(grid.data["cells"], grid.grid.cells, strict=True):
        assert base64.b64decode(cell["base64"]) == Path(place.clip).read_bytes()
        assert (cell["mime"], cell["width"], cell["height"], cell["frames"], cell["fps"]) == ("video/mp4", 96, 64, 4, 8.0)
        assert cell["poster"].startswith("data:image/jpeg;base64,")
    page = grid.page()
    assert_quiet(page)
    assert json.loads(Elements(page).data) == json.loads(json.dumps(grid.data))
    assert repr(grid) == "ClipGrid(3 x 2, 6 clips)"


def test_a_notebook_gets_a_sandboxed_frame_over_a_table_of_posters(guidance):
    elements = Elements(clip_grid(guidance, ["guidance_scale", "seed"])._repr_html_())
    frame = dict(elements.tags)["iframe"]
    assert frame["sandbox"] == "allow-scripts"
    assert_quiet(frame["srcdoc"])
    assert sum(tag == "img" for tag, _ in elements.tags) == 6
    assert not [tag for tag, _ in elements.tags if tag == "script"]


def test_prompts_and_reasons_are_text_wherever_they_stand(tmp_path):
    # U+2028 would end a line of a script.
    reason = f"{EVIL} \u2028 <!-- ]]> & \" '"
    table = make_sweep(tmp_path, [{"prompt": EVIL}, {"prompt": "</script><script>", "status": "failed", "reason": reason}])
    grid = clip_grid(table, ["prompt"])
    page = grid.page()
    assert_quiet(page)
    data = json.loads(Elements(page).data)
    assert data["cells"][0]["label"] == [["prompt", EVIL]]
    assert data["cells"][1]["reason"] == reason
    notebook = Elements(grid._repr_html_())
    assert_quiet(dict(notebook.tags)["iframe"]["srcdoc"])
    assert {tag for tag, _ in notebook.tags} <= {"div", "table", "tr", "td", "th", "b", "br", "img", "iframe"}


def test_cells_without_a_clip_say_why(tmp_path):
    gone = tmp_path / "results" / "clips" / "gone.mp4"
    broken = tmp_path / "results" / "clips" / "broken.mp4"
    cells = [
        {"seed": 0, "status": "out_of_memory", "reason": "needs 9 GiB"},
        {"seed": 1, "clip": "clips/gone.mp4"},
        {"seed": 2, "clip": "clips/broken.mp4"},
        {"seed": 3},
    ]
    table = make_sweep(tmp_path, cells)
    broken.write_bytes(b"no clip")
    found = clip_grid(table, ["seed"]).data["cells"]
    assert (found[0]["status"], found[0]["reason"]) == ("out_of_memory", "needs 9 GiB")
    assert found[1]["status"] == found[2]["status"] == "no clip"
    assert gone.name in found[1]["reason"]
    assert broken.name in found[2]["reason"]
    assert "base64" in found[3]
    assert clip_grid(table.iloc[:0], ["seed"]).data["cells"] == []


def test_a_limit_on_the_size_is_kept_and_told(guidance):
    axes = ["guidance_scale", "seed"]

    def sizes(limit: int) -> tuple[int, int, int, int, str]:
        """How many clips and posters the page holds, how many bytes of each, and what it tells."""
        data = clip_grid(guidance, axes, limit_bytes=limit).data
        clips = [len(cell["base64"]) for cell in data["cells"] if "base64" in cell]
        posters = [2 * len(cell["poster"]) for cell in data["cells"] if "poster" in cell]
        assert sum(clips) + sum(posters) <= limit + 60 * len(data["cells"])  # some bytes each of data:image/jpeg;base64,
        return len(clips), len(posters), sum(clips), sum(posters), " ".join(data["notes"])

    *many, clips, posters, said = sizes(10_000_000)
    assert (many, said) == ([6, 6], "")
    *some, _, _, said = sizes(posters + clips // 2)
    assert 0 < some[0] < 6 and some[1] == 6
    assert f"{6 - some[0]} of 6 clips do not play here; their first frame is shown." in said
    *few, _, _, said = sizes(posters // 2)
    assert few[0] == 0 and 0 < few[1] < 6
    assert f"6 of 6 clips do not play here, and {6 - few[1]} of them have no picture." in said


@pytest.mark.parametrize(("format", "size"), [("mp4", "1600x1600"), ("gif", "64x96")])
def test_large_clips_and_those_that_browsers_do_not_play_are_shown_as_copies(tmp_path, format, size):
    cells = [{"seed": seed, "resolution": size, "num_frames": 3} for seed in (0, 1)]
    grid = clip_grid(make_sweep(tmp_path, cells, format=format), ["seed"])
    assert grid.data["notes"][0].startswith("2 of 2 clips are shown as copies")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(base64.b64decode(grid.data["cells"][1]["base64"]))
    info = video.probe(copy)
    assert (info.frames, info.codec) == (3, "h264")
    assert float(info.fps) == grid.data["cells"][1]["fps"]
    assert max(info.width, info.height) == min(player.PROXY_SIDE, max(map(int, size.split("x"))))
    shown = video.read(copy)[2]
    assert np.abs(shown[5, 5].astype(int) - colour(1)).max() < 20
    assert abs(int(shown[-5, 5, 0]) - grey(2)) < 8


def test_the_player_is_part_of_the_package_and_needs_nothing_else():
    script = files("i2v_lab.report.player").joinpath("player.js").read_text(encoding="utf-8")
    assert "export function mount(element, data)" in script
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "import ", "fetch(", "</script"):
        assert word not in script
    assert "url(" not in files("i2v_lab.report.player").joinpath("player.css").read_text(encoding="utf-8")


# The video


def decoded(path: Path) -> tuple[np.ndarray, float]:
    """All frames, uint8 RGB, and the rate: by OpenCV, which did not write them."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (found := capture.read())[0]:
        frames.append(found[1][..., ::-1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return np.stack(frames), rate


def layout_of(table: pd.DataFrame, axes: list[str]) -> mosaic.Layout:
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


def test_a_slice_of_a_larger_sweep_makes_no_clip_anew(tmp_path):
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


LONG = [EVIL + " a cup of coffee whose steam rises " * 4, "w" * 300, "走着的猫 and 🐈", "short"]


@pytest.mark.parametrize("axes", [["prompt"], ["prompt", "seed"], ["seed", "prompt"]])
def test_labels_are_neither_cut_nor_do_they_overlap(tmp_path, axes):
    table = make_sweep(tmp_path, [{"prompt": prompt, "seed": seed, "num_frames": 2} for prompt in LONG for seed in (0, 1)])
    table = table if "seed" in axes else table[table["seed"] == 0]
    grid, layout = arrange(table, axes), layout_of(table, axes)
    for words in layout.words:
        for line in words.lines:
            left, _, right, bottom = text.font(words.size, line).getbbox(line)
            assert right - min(left, 0) <= words.width + 1
            assert bottom <= words.height
        assert words.left >= 0 and words.left + words.width <= layout.width
        assert words.top >= 0 and words.top + words.height <= layout.height
    boxes = [(box.left, box.top, box.left + box.width, box.top + box.height) for box in (*layout.words, *layout.places)]
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    # Every letter of every label is there.
    wanted = sorted("".join(text.drawable(f"{name} {value}") for name, value in label).replace(" ", "")
                    for label in (*grid.rows, *grid.columns) if label)  # fmt: skip
    assert sorted("".join(words.lines).replace(" ", "") for words in layout.words) == wanted
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
    status, reason = mosaic.reason_words(place, table["reason"][1])
    assert status.lines == ("out of memory",)
    assert " ".join(reason.lines).split() == table["reason"][1].split()
    box = frames[0][place.top : place.top + place.height, place.left : place.left + place.width]
    assert (box.min(axis=2) < 120).sum() > 200  # ink
    assert reason.top + reason.height <= place.top + place.height
    none = make_sweep(tmp_path / "none", [{"seed": 0, "status": "stopped", "reason": "interrupted"}])
    assert len(decoded(grid_video(none, ["seed"], tmp_path / "none.mp4"))[0]) == 2


def test_a_reason_that_has_no_room_ends_with_an_ellipsis(tmp_path):
    table = make_sweep(tmp_path, [{"seed": 0, "status": "failed", "reason": "word " * 400}])
    place = layout_of(table, ["seed"]).places[0]
    _, reason = mosaic.reason_words(place, table["reason"][0])
    assert reason.lines[-1].endswith("…")
    assert reason.top + reason.height <= place.top + place.height


def test_many_columns_go_on_in_a_second_band_and_too_many_cells_are_refused():
    grid = arrange(table_of(guidance_scale=range(3), seed=range(40)), ["guidance_scale", "seed"])
    info = video.VideoInfo(Path("x.mp4"), 16, 512, 512, Fraction(8), 1, "h264", (0, 0))
    layout = mosaic.lay_out(grid, [info] * 120)
    assert layout.width <= mosaic.WIDTH_MAX
    assert layout.height <= mosaic.HEIGHT_AIM
    assert sum(words.lines == ("seed 39",) for words in layout.words) == 1
    assert sum(words.lines == ("guidance_scale 2",) for words in layout.words) > 1  # in each band
    huge = arrange(table_of(guidance_scale=range(40), seed=range(60)), ["guidance_scale", "seed"])
    with pytest.raises(InputError, match=r"40 x 60 cells .* where"):
        mosaic.lay_out(huge, [info] * 2400)


def test_a_video_is_replaced_whole_and_leaves_nothing_else(guidance, tmp_path):
    path = tmp_path / "report" / "grid.mp4"
    path.parent.mkdir()
    path.write_bytes(b"old")
    stale = path.parent / f".grid.mp4.{2**22 + 1}.abc"  # above the highest number of a process
    stale.mkdir()
    (stale / "0-0.raw").write_bytes(b"left behind")
    alive = path.parent / f".grid.mp4.{os.getppid()}.abc"
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


def test_memory_does_not_grow_with_the_frames_of_all_clips(tmp_path):
    table = make_sweep(tmp_path, [{"seed": seed, "num_frames": 40} for seed in range(16)])
    grid_video(table.iloc[:1], ["seed"], tmp_path / "first.mp4")  # fonts are read
    tracemalloc.start()
    grid_video(table, ["seed"], tmp_path / "grid.mp4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    layout = layout_of(table, ["seed"])
    assert peak < 12 * layout.width * layout.height * 3 < 16 * 40 * 64 * 96 * 3


# The plots


def lines_of(panel) -> dict[str, tuple[list[float], list[float]]]:
    """The points of each line or set of points, by what the legend calls it."""
    found = {container.get_label(): container.lines[0] for container in panel.containers}
    return {label: (list(line.get_xdata()), list(line.get_ydata())) for label, line in found.items()}


def assert_legible(figure) -> None:
    """It is drawn without a warning, and no text of it is cut or over another."""
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size["width"] == 900
    pixels = np.asarray(Image.open(BytesIO(png)).convert("L"))
    assert all(border.min() == 255 for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))  # no ink at the edges
    renderer = figure.canvas.get_renderer()
    for panel in figure.axes:
        assert not panel.get_title()
        for axis in (panel.xaxis, panel.yaxis):
            shown = [
                label.get_window_extent(renderer) for label in axis.get_ticklabels() if label.get_text() and label.get_visible()
            ]
            assert not any(one.overlaps(other) for one, other in combinations(shown, 2))


def test_the_lines_hold_the_numbers_of_the_table():
    table = table_of(guidance_scale=[4.5, 9.0, 12.0], num_inference_steps=[10, 20], seed=[0, 1])
    against_guidance, against_steps = cost_plots(table, ["guidance_scale", "num_inference_steps", "seed"])
    seconds, memory = against_guidance.axes
    # Rows count up by one second; the mean of two seeds lies between; a second of loading is left out.
    assert lines_of(seconds) == {"10": ([4.5, 9.0, 12.0], [2.5, 6.5, 10.5]), "20": ([4.5, 9.0, 12.0], [4.5, 8.5, 12.5])}
    assert lines_of(memory)["10"][1] == pytest.approx([0.15, 0.55, 0.95])
    bars = seconds.containers[0].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in bars] == [[2, 3], [6, 7], [10, 11]]
    assert (seconds.get_xlabel(), seconds.get_ylabel()) == ("guidance_scale", "time a clip, model loaded (s)")
    assert memory.get_ylabel() == "peak RAM (GiB)"
    assert against_steps.axes[0].get_xlabel() == "num_inference_steps (steps)"
    styles = [(container.lines[0].get_marker(), container.lines[0].get_linestyle()) for container in seconds.containers]
    assert len({marker for marker, _ in styles}) == len({line for _, line in styles}) == 2  # also in grey
    assert seconds.get_ylim()[0] == 0
    assert "over seed" in against_guidance.get_supxlabel()
    for figure in (against_guidance, against_steps):
        assert_legible(figure)


def test_vram_is_plotted_where_it_was_measured():
    table = table_of(num_frames=[8, 16]).assign(peak_vram_allocated_gib=[3.0, 5.0])
    (figure,) = cost_plots(table, ["num_frames"])
    assert figure.axes[1].get_ylabel() == "peak VRAM, allocated (GiB)"
    assert lines_of(figure.axes[1])["mean"] == ([8, 16], [3.0, 5.0])
    assert not figure.legends  # one line: nothing to tell apart


def test_cells_that_did_not_finish_are_crosses_and_count_for_nothing():
    table = table_of(num_frames=[8, 16, 32])
    table.loc[2, ["status", "peak_ram_gib", "seconds_total"]] = ["out_of_memory", np.nan, 99.0]
    (figure,) = cost_plots(table, ["num_frames"])
    assert lines_of(figure.axes[0])["mean"] == ([8, 16], [2.0, 3.0])
    (cross,) = [line for line in figure.axes[0].lines if line.get_label() == "not finished"]
    assert list(cross.get_xdata()) == [32]
    assert_legible(figure)
    table["status"] = "failed"
    (empty,) = cost_plots(table, ["num_frames"])
    assert [words.get_text() for words in empty.axes[0].texts] == ["nothing measured"]
    assert_legible(empty)


def test_words_are_points_and_long_ones_stand_at_the_left():
    (figure,) = cost_plots(table_of(scheduler=["ddim", "unipc", "euler-a"]), ["scheduler"])
    assert lines_of(figure.axes[0])["mean"] == ([0, 1, 2], [2, 3, 4])
    assert figure.axes[0].containers[0].lines[0].get_linestyle() == "None"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["ddim", "unipc", "euler-a"]
    assert_legible(figure)
    (figure,) = cost_plots(table_of(prompt=[*LONG, "costs $5 to $6", "", None], seed=[0, 1]), ["prompt", "seed"])
    assert lines_of(figure.axes[0])["mean"][1] == list(range(7))
    assert_legible(figure)
    (one,) = cost_plots(table_of(seed=[0, 2**62]), ["seed"])  # where nothing else was swept, the seed is plotted
    assert_legible(one)


@pytest.mark.parametrize("axes", [
    {"guidance_scale": [9.0]},
    {"guidance_scale": np.arange(0, 40, 0.5).tolist(), "num_inference_steps": list(range(10))},
    {"num_frames": [8, 9, 10, 200], "resolution": ["256p", "704x1280", "64x64"]},
    {"prompt": ["走着的猫", "a cat"], "fps": [8.0, 23.976]},
])  # fmt: skip
def test_any_number_of_values_is_legible(axes):
    for figure in cost_plots(table_of(**axes), list(axes)):
        assert_legible(figure)


def test_plots_of_nothing_and_of_no_column():
    assert cost_plots(table_of(seed=[0]).iloc[:0], ["seed"]) == []
    with pytest.raises(InputError, match="'hue'"):
        cost_plots(table_of(seed=[0]), ["hue"])


# The cheapest


def test_the_cheapest_run_that_is_good_enough():
    table = table_of(num_inference_steps=[5, 10, 20, 50]).assign(metric_sharpness=[0.2, np.nan, 0.6, 0.9])
    assert cheapest(table, "sharpness", 0.5)["num_inference_steps"] == 20
    assert cheapest(table, "metric_sharpness", 0.7)["num_inference_steps"] == 50
    assert cheapest(table, "sharpness", 0.95) is None
    table.loc[2, "status"] = "failed"
    assert cheapest(table, "sharpness", 0.5)["num_inference_steps"] == 50
    with pytest.raises(InputError, match="metric_sharpness"):
        cheapest(table, "beauty", 0.5)


# The report as one file


def make_notebook(path: Path, *outputs: str) -> Path:
    v4 = nbformat.v4
    shown = [v4.new_output("display_data", data={"text/html": html}) for html in outputs]
    cells = [v4.new_markdown_cell("# A sweep\n![x](https://example.org/x.png)"), v4.new_code_cell("secret_code = 1", outputs=shown)]
    nbformat.write(v4.new_notebook(cells=cells, metadata={"widgets": {"application/x": {}}}), path)
    return path


def test_the_notebook_becomes_one_file_without_code_that_loads_nothing(guidance, tmp_path):
    grid = clip_grid(guidance, ["guidance_scale", "seed"])
    notebook = make_notebook(tmp_path / "report.ipynb", grid._repr_html_(), "<p>a table</p>")
    html = tmp_path / "report.html"
    html.write_text("old")
    assert export_html(notebook, html) == html
    page = html.read_text(encoding="utf-8")
    elements = Elements(page)
    assert not [tag for tag, attributes in elements.tags if tag == "script" and "src" in attributes]
    assert not [attributes for tag, attributes in elements.tags if tag == "link"]
    policy = next(
        attributes["content"] for tag, attributes in elements.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy and "http" not in policy  # and so the picture in the text is not fetched
    assert "a table" in page and "A sweep" in page and "secret_code" not in page
    (frame,) = [attributes for tag, attributes in elements.tags if tag == "iframe"]
    assert_quiet(frame["srcdoc"])
    assert json.loads(Elements(frame["srcdoc"]).data) == json.loads(json.dumps(grid.data))
    assert sorted(tmp_path.iterdir()) == [html, notebook]


def test_a_file_that_is_no_notebook_is_one_clear_error(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    for name in ("a.ipynb", "none.ipynb"):
        with pytest.raises(InputError, match=rf"{name}: expected a notebook"):
            export_html(tmp_path / name, tmp_path / "a.html")
    notebook = make_notebook(tmp_path / "b.ipynb")
    with pytest.raises(WriteError, match="cannot be written"):
        export_html(notebook, tmp_path / "a.ipynb" / "x.html")


def test_the_sweeps_that_these_tests_make_are_what_they_say(tmp_path):
    table = make_sweep(tmp_path, [{"seed": 3, "num_frames": 5}])
    shown = video.read(Path(table["clip"][0]))
    far = np.abs(shown.astype(int) - clip_frames(0, 5, 64, 96)).max(axis=(0, 2, 3))  # by row: the halves bleed where they meet
    assert max(far[:29].max(), far[35:].max()) < 8
    assert Image.fromarray(shown[0]).size == (96, 64)
