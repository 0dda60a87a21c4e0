"""The player's Python side: what stands where, what a page can sort by, what a kernel answers, and that nothing is given away."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from foreign_clips import make_foreign
from sweeps import EVIL, clip_frames, colour, make_sweep

from i2v_lab import ClipParams, Store, compare, runs
from i2v_lab.clip import video
from i2v_lab.errors import InputError
from i2v_lab.report.player.media import glance, look
from i2v_lab.report.player.page import clip_grid
from i2v_lab.store.opinions import Opinions
from i2v_lab.widgets import clip_player as live
from i2v_lab.widgets.blind import BlindVotes
from i2v_lab.widgets.choose import RunTable
from i2v_lab.widgets.clip_player import ClipPlayer
from i2v_lab.widgets.compare import clip_view

CELLS = [{"guidance_scale": guidance, "seed": seed} for guidance, seed in product((9.0, 4.5), range(2))]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("player")
    make_sweep(folder, CELLS)
    return Store(folder / "results")


class Heard(ClipPlayer):
    """A player that keeps what it sends."""

    def __init__(self, *arguments, **more):
        self.sent: list[tuple[dict, list[bytes]]] = []
        super().__init__(*arguments, **more)

    def send(self, content, buffers=None):
        self.sent.append((content, list(buffers or [])))


# What is shown


def test_the_axes_are_the_parameters_that_differ_and_the_others_are_listed_once(results):
    view = clip_view(results.runs())
    assert view.axes == ("guidance_scale", "seed")
    assert (len(view.grid.rows), len(view.grid.columns)) == (2, 2)
    common = dict(view.grid.common)
    assert common["resolution"] == "64x96" and common["num_frames"] == "4"
    assert not {"guidance_scale", "seed"} & set(common)


def test_runs_that_do_not_differ_are_all_shown_each_by_its_name(results):
    table = pd.concat([results.runs()] * 2, ignore_index=True)
    view = clip_view(table)
    assert len(view.grid.cells) == 8
    assert view.axes[-1] == "run"
    assert len({cell.label for cell in view.grid.cells}) == 8


def test_runs_that_fill_no_grid_are_shown_as_a_list(results):
    table = results.runs().assign(seed=range(4), guidance_scale=[4.0, 9.0, 9.0, 2.0])
    view = clip_view(table)
    assert view.grid.wraps and len(view.grid.cells) == 4
    assert not clip_view(results.runs()).grid.wraps


def test_files_show_the_settings_they_carry_and_others_their_names(tmp_path):
    params = {"image": "x.png", "resolution": "64x96", "num_frames": 4}
    own = [
        video.write(clip_frames(seed, 4, 64, 96), tmp_path, stem="a", fps=8,
                    settings={"params": ClipParams(**params, seed=seed).plain()}).path
        for seed in (3, 5)
    ]  # fmt: skip
    assert clip_view(own).axes == ("seed",)
    foreign = [video.write(clip_frames(1, 4, 64, 96), tmp_path, stem=name, fps=8, format="webm").path for name in "bc"]
    view = clip_view(foreign)
    assert [cell.label for cell in view.grid.cells] == [(("file", "b.webm"),), (("file", "c.webm"),)]
    lied = video.write(clip_frames(1, 4, 64, 96), tmp_path, stem="d", fps=8, settings={"params": {"seed": "many"}}).path
    assert clip_view([lied]).axes == ("file",)  # settings that are none are no reason not to show a clip
    assert "text/html" in compare([*own, *foreign, str(lied)])._repr_mimebundle_()[0]


def test_files_folders_patterns_arrays_and_names_can_be_compared(results, tmp_path):
    frames = clip_frames(1, 4, 64, 96)
    for name in ("b10", "b9", "a [1]"):
        video.write(frames, tmp_path / "clips", stem=name, fps=8)
    (tmp_path / "clips" / "notes.txt").touch()
    odd = tmp_path / ("猫 🐈 " + "画" * 80 + ".mp4")  # 254 of the 255 bytes that a name may have
    odd.write_bytes((tmp_path / "clips" / "b9.mp4").read_bytes())

    def labels(given: Any, **more: Any) -> list[tuple[tuple[str, str], ...]]:
        return [cell.label for cell in clip_view(given, **more).grid.cells]

    assert labels(tmp_path / "clips") == [(("file", f"{name}.mp4"),) for name in ("a [1]", "b9", "b10")]
    assert labels(str(tmp_path / "clips" / "b*.mp4")) == [(("file", "b9.mp4"),), (("file", "b10.mp4"),)]
    assert labels(tmp_path / "clips" / "a [1].mp4") == [(("file", "a [1].mp4"),)]
    assert labels({"before": odd, "after": frames}) == [(("name", "before"),), (("name", "after"),)]
    mixed = compare([odd, frames, frames[:2]], fps=12)
    assert [(cell["label"][0][1], cell["frames"], cell["fps"]) for cell in mixed.data["cells"]] == [
        (odd.name, 4, 8), ("array 2", 4, 12), ("array 3", 2, 12)
    ]  # fmt: skip
    own, foreign = results.runs()["clip"][0], tmp_path / "clips" / "b9.mp4"
    assert [label[0][0] for label in labels([own, foreign])] == ["file", "file"]  # and no "none" for what one of them lacks
    assert labels(results.directory) == [cell.label for cell in clip_view(results.runs()).grid.cells]
    assert runs(str(results.directory)).equals(runs(results))
    with pytest.raises(InputError, match="there is no such folder"):
        runs("no-results")


def test_clips_of_other_tools_are_shown_as_copies_and_the_page_says_so(tmp_path):
    kinds = make_foreign(tmp_path)
    player = Heard(clip_view([tmp_path / name for name in kinds]))
    cells = player.data["cells"]
    assert [(cell["label"][0][1], cell["kind"]) for cell in cells] == list(kinds.items())
    assert {(cell["width"], cell["height"]) for cell in cells} == {(160, 96), (96, 160)}
    for number, kind in enumerate(kinds.values()):
        player._receive(None, {"type": "clip", "request": "r", "cell": number}, [])
        content, (data,) = player.sent[-1]
        sent = tmp_path / "sent"
        sent.write_bytes(data)
        info = video.probe(sent)
        assert (info.width, info.height, info.frames) == tuple(cells[number][name] for name in ("width", "height", "frames"))
        assert info.plain and info.steady and info.codec == ("h264" if kind else info.codec)
        assert content["mime"] == ("video/webm" if info.codec == "vp9" else "video/mp4")
        upper = video.read(sent)[:, 16, 48].astype(int) if info.width > info.height else video.read(sent)[:, 80, 16].astype(int)
        assert np.abs(upper - colour(number)).max() < 24 or kind == "H.264 in MOV"  # whose side it is, depends on the turn
    copies = sum(map(bool, kinds.values()))
    assert f"{copies} of {len(kinds)} clips are shown as copies" in player.data["notes"][0][0]
    assert "HEVC" in player.data["notes"][0][1]
    slow = cells[list(kinds).index("uneven.mp4")]
    assert (slow["frames"], slow["fps"]) == (60, 30)  # two seconds, as long as the file


def test_what_cannot_be_compared_is_reported_in_one_line(results, tmp_path):
    table = results.runs()
    for wrong, more, said in (
        (pd.DataFrame({"seed": [1]}), {}, "a column clip"),
        (7, {}, "clips' files, a folder of them.*; got int"),
        ([7], {}, "frames as uint8 .*; got '7'"),
        (tmp_path, {}, "expected clips in this folder"),
        (tmp_path / "*.mp4", {}, "no file has such a name"),
        (np.zeros((2, 8, 8, 3)), {}, "uint8 .F, H, W, 3., got float64 .2, 8, 8, 3."),
        ({"a": [tmp_path]}, {}, "frames as uint8"),
        ([tmp_path / "no\nclip.mp4"], {}, "there is no such file"),
        (table, {"axes": ["hue"]}, "'hue'"),
        (table, {"best": "hue"}, "seconds_total.*got 'hue'"),
        (table, {"best": "seed", "best_is": "least"}, "lowest or highest"),
        (table, {"best": "seed"}, "it is not known which is better for seed"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            compare(wrong, **more)
        assert "\n" not in str(caught.value)
    empty = compare(table.iloc[:0])
    assert empty.data["cells"] == [] and "make a clip in studio.ipynb" in empty.data["notes"][0][0]


def test_a_page_can_sort_by_every_number_that_differs_and_marks_the_best(results):
    runs = results.runs().assign(metric_sharpness=[0.1, 0.4, float("nan"), 0.2], same=1.0, pid=range(4))
    data = clip_grid(runs, ["guidance_scale", "seed"], best="sharpness", best_is="highest").data
    assert data["fields"][:2] == ["seconds_total", "seconds_denoise"]
    assert "metric_sharpness" in data["fields"] and not {"same", "pid"} & set(data["fields"])
    assert data["best"] == {"column": "metric_sharpness", "is": "highest"}
    assert clip_view(runs, best="seconds_total").best == {"column": "seconds_total", "is": "lowest"}
    assert clip_view(runs, best="seconds_total", best_is="highest").best == {"column": "seconds_total", "is": "highest"}
    assert data["axes"] == [{"name": "guidance_scale", "values": ["4.5", "9"]}, {"name": "seed", "values": ["0", "1"]}]
    values = [cell["values"].get("metric_sharpness") for cell in data["cells"]]
    assert values == [None, 0.2, 0.1, 0.4]  # in the places of the grid
    json.dumps(data, allow_nan=False)


def test_each_clip_knows_its_reference(tmp_path):
    axes = ["cache", "num_inference_steps", "seed"]
    cells = [dict(zip(axes, one, strict=True)) for one in product(("deep:1", "deep:3"), (4, 12), (0, 1))]
    table = make_sweep(tmp_path, [{**cell, "num_frames": 2} for cell in cells])

    def found(data):
        names = [tuple(dict(cell["label"])[axis] for axis in axes) for cell in data["cells"]]
        return {name: cell["reference"] is not None and names[cell["reference"]]
                for name, cell in zip(names, data["cells"], strict=True)}  # fmt: skip

    known = found(clip_grid(table, axes).data)
    assert known == found(compare(table).data)
    for cache, steps, seed in product(("deep:1", "deep:3"), ("4", "12"), "01"):
        own = (cache, steps) == ("deep:1", "12")
        assert known[cache, steps, seed] == (False if own else ("deep:1", "12", seed))
    named = found(compare(table, reference={"cache": "deep:3"}).data)
    assert named["deep:1", "4", "0"] == ("deep:3", "4", "0") and not named["deep:3", "4", "0"]
    for data in (clip_grid(table, ["seed"]).data, compare(list(table["clip"])).data):  # no lever differs; files without params
        assert {cell["reference"] for cell in data["cells"]} == {None}
    with pytest.raises(InputError, match="no cell has cache deep:5"):
        compare(table, reference={"cache": "deep:5"})


@pytest.mark.parametrize(("format", "fps"), [("mp4", "24000/1001"), ("mp4", "8"), ("webm", "12"), ("gif", "10")])
def test_a_glance_finds_the_same_as_a_full_look(tmp_path, format, fps):
    table = make_sweep(tmp_path, [{"fps": fps, "num_frames": 9, "resolution": "512x640"}], format=format)
    path = Path(table["clip"][0])
    assert glance(path).info == look(path).info
    assert abs(len(glance(path).poster) - len(look(path).poster)) < 3000


def test_a_glance_at_what_is_no_clip_is_one_line(tmp_path):
    path = tmp_path / "x.mp4"
    for content in (b"", b"no clip", b"\0\0\0\x18ftypmp42" + b"\0" * 40):
        path.write_bytes(content)
        (cell,) = compare([path]).data["cells"]
        assert cell["status"] == "no clip" and "x.mp4" in cell["reason"] and "\n" not in cell["reason"]


# What the kernel answers


def test_a_clip_is_sent_when_it_is_asked_for_bit_for_bit(results):
    player = Heard(clip_view(results.runs()))
    assert all(cell["lazy"] and "base64" not in cell for cell in player.data["cells"])
    for number, cell in enumerate(player.view.grid.cells):
        player._receive(None, {"type": "clip", "request": f"r{number}", "cell": number}, [])
        content, buffers = player.sent[-1]
        assert content == {"type": "clip", "request": f"r{number}", "mime": "video/mp4"}
        assert buffers == [Path(cell.clip).read_bytes()]
    Path(player.view.grid.cells[0].clip).rename(moved := Path(player.view.grid.cells[0].clip).with_suffix(".gone"))
    player._receive(None, {"type": "clip", "request": "r", "cell": 0}, [])
    moved.rename(player.view.grid.cells[0].clip)
    assert player.sent[-1][1] == [] and "No such file" in player.sent[-1][0]["text"]


NONSENSE = [
    None, "clip", {}, {"type": "clip"}, {"type": "clip", "cell": 99}, {"type": "clip", "cell": -1}, {"type": "clip", "cell": "../x"},
    {"type": "exec", "cell": 0}, {"type": ["clip"], "cell": 0}, {"type": "stars", "cell": 0, "value": 3},
]  # fmt: skip


@pytest.mark.parametrize("message", NONSENSE)
def test_a_message_that_makes_no_sense_is_not_answered(results, message):
    player = Heard(clip_view(results.runs()))
    player._receive(None, message, [])
    assert player.sent == []


def test_a_file_over_the_limit_is_sent_as_a_copy_and_the_page_says_so(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (6, 480, 640, 3), np.uint8)  # no copy is larger than this
    paths = [video.write(noise, tmp_path, stem=name, fps=8).path for name in "ab"]
    monkeypatch.setattr(live, "CLIP_LIMIT_BYTES", paths[0].stat().st_size - 1)
    player = Heard(clip_view(paths))
    assert "2 of 2 clips are shown as copies" in player.data["notes"][0][0]
    player._receive(None, {"type": "clip", "request": "r", "cell": 0, "whole": True}, [])
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(player.sent[-1][1][0])
    assert (video.probe(copy).frames, video.probe(copy).width) == (6, 416)
    monkeypatch.setattr(live, "CLIP_LIMIT_BYTES", 100)
    player._receive(None, {"type": "clip", "request": "r", "cell": 0}, [])
    assert player.sent[-1][1] == [] and "even as a copy" in player.sent[-1][0]["text"]


def test_stars_and_notes_are_kept_and_shown_again(tmp_path):
    table = make_sweep(tmp_path, [{"seed": 0}, {"seed": 1}])
    opinions = Opinions(Store(tmp_path / "results"))
    player = Heard(clip_view(table), opinions)
    player._receive(None, {"type": "stars", "cell": 1, "value": 5}, [])
    player._receive(None, {"type": "note", "cell": 1, "value": EVIL}, [])
    kept = opinions.table()
    assert (list(kept.index), list(kept["stars"]), list(kept["note"])) == ([table["id"][1]], [5], [EVIL])
    again = compare(table, opinions=opinions).data["cells"][1]
    assert (again["stars"], again["note"]) == (5, EVIL)
    player._receive(None, {"type": "stars", "cell": 1, "value": 9}, [])
    assert player.sent == [({"type": "problem", "text": "stars: expected 1 to 5, or None, got 9"}, [])]


def test_a_table_of_first_frames_without_scripts_comes_with_the_widget(tmp_path):
    table = make_sweep(tmp_path, [{"prompt": EVIL}, {"prompt": "a cup", "status": "failed", "reason": EVIL}])
    bundle, _ = compare(table)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"].count("<img") == 1 and "<script" not in bundle["text/html"]
    assert bundle["text/plain"] == "ClipPlayer(1 x 2, 1 clips)"
    rows = RunTable(table)._repr_mimebundle_()[0]["text/html"]
    assert "<script" not in rows and "&lt;script&gt;" in rows


# Choosing and voting


def test_a_player_follows_what_is_chosen_in_the_table(results):
    table = RunTable(results.runs())
    assert list(table.selected) == [0, 1, 2, 3]
    player = compare(table.chosen)
    table.show_in(player)
    table.selected = [1, 3]
    assert [cell.run["id"] for cell in player.view.grid.cells] == sorted(
        table.runs["id"][[1, 3]], key=list(table.chosen.sort_values("guidance_scale")["id"]).index
    )
    table.selected = []
    assert len(player.data["cells"]) == 2  # nothing chosen: what was there stays
    with pytest.raises(InputError, match="'hue'"):
        RunTable(results.runs(), ["hue"])
    json.dumps(table.data, allow_nan=False)


def test_blind_votes_say_nothing_of_the_clips_and_go_to_the_store(tmp_path):
    table = make_sweep(tmp_path, [{"prompt": EVIL, "guidance_scale": guidance, "seed": 0} for guidance in (4.0, 9.0, 12.0)])
    opinions = Opinions(Store(tmp_path / "results"))
    blind = BlindVotes(table, opinions, seed=1)
    sides = set()
    for _ in range(12):
        page = json.dumps(blind.player.data)
        for secret in (*table["id"], *(Path(clip).stem for clip in table["clip"]), "guidance", "script"):
            assert secret not in page
        left, right = blind.pair
        sides.add((left, right))
        blind.vote("left" if table["guidance_scale"][left] > table["guidance_scale"][right] else "right")
    assert len(sides) == 6  # each pair, both ways round
    votes = opinions.votes()
    assert len(votes) == 12
    pairs = votes.apply(lambda row: frozenset((row["left"], row["right"])), axis=1)
    assert set(pairs.value_counts()) == {4}  # none is asked more often than another
    blind.show_ranking()
    order = [blind._ranking.value.index(f"guidance_scale {value}") for value in (12, 9, 4)]
    assert order == sorted(order)


def test_blind_votes_may_be_told_the_next_pair_and_take_clips_that_came_later(results):
    runs, asked = results.runs(), []
    ids = list(runs[runs["clip"].notna()].drop_duplicates("id")["id"])

    def pick():
        if not asked:
            return ids[0], ids[1]
        asked[0].take(runs)
        return ids[-1], ids[0]

    asked.append(BlindVotes(runs[runs["id"].isin(ids[:2])], Opinions(results), pick=pick, language="zh"))
    assert "左边更好" in [button.description for button in asked[0]._buttons.values()]
    asked[0].vote("left")
    assert tuple(asked[0].runs["id"][number] for number in asked[0].pair) == (ids[-1], ids[0])
    assert len(asked[0].player.data["cells"]) == 2


def test_blind_votes_need_two_clips(results):
    runs = results.runs()
    assert "At least two clips" in BlindVotes(runs.iloc[:1], Opinions(results))._message.value
    assert "At least two clips" in BlindVotes(runs.iloc[:0], Opinions(results))._message.value
    with pytest.raises(InputError, match="a column id"):
        BlindVotes(runs.drop(columns="id"), Opinions(results))
