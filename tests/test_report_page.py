"""The grid of a report and its page: the place of each clip, and what a page must never do."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from sweeps import EVIL, GUIDANCE, colour, grey, make_sweep, table_of

from i2v_lab.clip import video
from i2v_lab.errors import InputError, WriteError
from i2v_lab.report import clip_grid, export_html
from i2v_lab.report.player import page as player
from i2v_lab.report.player.grid import arrange


@pytest.fixture(scope="module")
def guidance(tmp_path_factory) -> pd.DataFrame:
    """Three values of guidance, not in order, x two seeds."""
    return make_sweep(tmp_path_factory.mktemp("guidance"), GUIDANCE)


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
    assert grid.notes and grid.notes[0][0].startswith("6 runs for 2 cells")


def test_values_that_are_missing_or_empty_have_a_name():
    table = table_of(prompt=["", None, "a cat"])
    assert [dict(column)["prompt"] for column in arrange(table, ["prompt"]).columns] == ["(empty)", "a cat", "none"]
    pictures = table_of(image=["/home/a/cup.png", "/home/b/cat.png"])
    assert [dict(column)["image"] for column in arrange(pictures, ["image"]).columns] == ["cup.png", "cat.png"]
    assert arrange(table.iloc[:0], ["prompt"]).cells == ()


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
    assert {tag for tag, _ in notebook.tags} <= {"div", "table", "tr", "td", "th", "b", "br", "img", "iframe", "style", "p", "span"}


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
        return len(clips), len(posters), sum(clips), sum(posters), " ".join(note[0] for note in data["notes"])

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
    assert grid.data["notes"][0][0].startswith("2 of 2 clips are shown as copies")
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
    with pytest.raises(WriteError, match="cannot write into"):
        export_html(notebook, tmp_path / "a.ipynb" / "x.html")
