"""The player as people use it: by mouse, by keyboard, on a phone, in their language, in the dark, with their own files."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from foreign_clips import make_foreign
from playwright.sync_api import Page, expect
from sweeps import colour, make_sweep

from browser.axe import violations
from browser.conftest import find_browser
from browser.firefox import FIREFOX, firefox
from browser.test_player import PLAYS, at, captions, pixels, settles, stop_at
from i2v_lab.report.player.page import clip_grid

CELLS = [
    {"guidance_scale": guidance, "seed": seed, "fps": fps, "num_frames": 8}
    for guidance, seed, fps in product((4.5, 9.0), (0, 1), (8, 12))
]
FAILED = {"guidance_scale": 12.0, "seed": 0, "fps": 8, "status": "out_of_memory"}
PAUSED = "() => [...document.querySelectorAll('video')].every((video) => video.paused)"
SHOWN = """() => {
  const {width, height} = document.querySelector('figure video').getBoundingClientRect();
  return Math.min(width / 96, height / 64);
}"""
DARK = """() => {
  const [r, g, b] = getComputedStyle(document.querySelector('.i2v-player')).backgroundColor.match(/\\d+/g).map(Number);
  return r + g + b < 150;
}"""


@pytest.fixture(scope="module")
def grids(tmp_path_factory) -> Path:
    """Pages: grid.html, of three axes and a failed cell; two.html, of two clips; notebook.html, as a report holds it."""
    folder = tmp_path_factory.mktemp("grids")
    grid = clip_grid(make_sweep(folder / "a", [*CELLS, FAILED]), ["guidance_scale", "seed", "fps"])
    (folder / "grid.html").write_text(grid.page(), encoding="utf-8")
    (folder / "notebook.html").write_text(f"<!doctype html><main>{grid._repr_html_()}</main>", encoding="utf-8")
    table = make_sweep(folder / "b", [{"seed": seed, "num_frames": 8} for seed in range(2)])
    (folder / "two.html").write_text(clip_grid(table, ["seed"]).page(), encoding="utf-8")
    return folder


def scrollbars(page: Page) -> list[str]:
    """What can be scrolled, by a mouse or a finger."""
    return page.evaluate("""() => [document.documentElement, ...document.querySelectorAll("*")].filter((node) =>
      node.scrollHeight > node.clientHeight + 1 && node.clientHeight > 0 &&
      (node === document.documentElement ||
        ["auto", "scroll"].includes(getComputedStyle(node).overflowY))).map((node) => node.className || node.tagName)""")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 780), (1280, 320)])
def test_a_click_enlarges_and_the_keys_work_after_every_click(open_page, grids, width, height):
    page, said = open_page(width, height)
    page.goto((grids / "grid.html").as_uri())
    page.wait_for_function("() => document.querySelector('video').currentTime > 0")
    assert len(scrollbars(page)) <= 1
    figure = page.locator("figure").first
    before = page.evaluate(SHOWN)
    for close in ("Escape", "click", "button"):
        figure.locator(".i2v-picture").click()
        assert page.evaluate(SHOWN) > before
        if close == "Escape":
            page.keyboard.press("Escape")
        elif close == "click":
            figure.locator(".i2v-picture").click()
        else:
            page.get_by_role("button", name="Back to all clips").click()
        assert page.evaluate(SHOWN) == pytest.approx(before, abs=0.01)
        assert page.locator(".zoomed, .large").count() == 0
    if width < 600:
        page.get_by_role("button", name="tools").click()
    clicks = ["Play or pause", "One frame back", "filter", "wipe", "Reverse the order"]
    for name in clicks:
        button = page.locator(".i2v-bar").get_by_role("button", name=name).first
        if button.is_visible() and button.is_enabled():
            button.click()
            playing = page.locator(".i2v-play").get_attribute("aria-pressed")
            page.keyboard.press("Space")
            assert page.locator(".i2v-play").get_attribute("aria-pressed") != playing, name
    assert page.locator(".i2v-player.picking").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".i2v-player.picking").count() == 0
    page.get_by_role("checkbox", name="loop").click()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('.i2v-count').textContent.startsWith('frame 1 ')")
    assert said.left() == []


def heads(page: Page, side: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(f".i2v-head.{side}").all_inner_texts()]


def test_the_axes_across_and_down_can_be_chosen(page, grids):
    page.goto((grids / "grid.html").as_uri())
    made = [heads(page, side) for side in ("column", "row")]
    assert made[0] == ["fps 8", "fps 12"]
    page.get_by_role("combobox", name="across").select_option("guidance_scale")
    assert heads(page, "column") == ["guidance_scale 4.5", "guidance_scale 9", "guidance_scale 12"]
    assert heads(page, "row") == [f"seed {seed} fps {fps}" for seed in range(2) for fps in (8, 12)]
    page.get_by_role("combobox", name="down").select_option("fps")
    assert heads(page, "row") == [f"fps {fps} seed {seed}" for fps in (8, 12) for seed in range(2)]
    # Each clip stands below and beside its own values: read back from the pixels.
    stop_at(page, 0)
    boxes = {name: [node.bounding_box() for node in page.locator(f".i2v-head.{name}").all()] for name in ("column", "row")}
    picture = np.asarray(pixels(page.locator("body")))
    for number, cell in enumerate(CELLS):
        column = boxes["column"][[4.5, 9.0, 12.0].index(cell["guidance_scale"])]
        row = boxes["row"][[8, 12].index(cell["fps"]) * 2 + cell["seed"]]
        across, down = int(column["x"] + column["width"] / 2), int(row["y"] + row["height"] / 2)
        upper = picture[down - 20, across].astype(int)
        assert np.abs(upper - colour(number)).max() < 24, cell
    assert page.locator(".i2v-failed").inner_text().split("\n") == ["out of memory", "no reason was recorded"]
    assert page.locator(".i2v-gap").all_inner_texts() == ["not run"] * 3
    for side in ("across", "down"):
        page.get_by_role("combobox", name=side).select_option("")
    assert [heads(page, side) for side in ("column", "row")] == made


def test_two_clips_are_offered_for_a_wipe_and_the_left_one_is_left_of_the_bar(page, grids):
    page.goto((grids / "two.html").as_uri())
    page.wait_for_function(PLAYS, arg=2)

    def sides_are_right() -> None:
        page.wait_for_function("() => document.querySelectorAll('.i2v-pair-view video').length === 2")
        stop_at(page, 3)
        box = page.locator(".i2v-pair-box")
        settles(
            page,
            lambda: [
                far
                for place, number in ((0.2, 0), (0.8, 1))
                if (far := np.abs(at(pixels(box), place, 0.25) - colour(number)).max()) >= 24
            ],
        )

    page.get_by_role("button", name="wipe", exact=True).click()  # nothing was chosen
    sides_are_right()
    page.keyboard.press("Escape")
    for number in (1, 0):  # the right one first
        page.locator("figure").nth(number).click(modifiers=["Shift"])
    page.get_by_role("button", name="wipe", exact=True).click()
    sides_are_right()
    page.goto((grids / "grid.html").as_uri())
    page.wait_for_function(PLAYS, arg=8)
    page.get_by_role("button", name="difference", exact=True).click()
    assert "Click the first of two clips" in page.locator(".i2v-pair-said").inner_text()
    page.locator("figure").nth(1).locator("video").click()
    page.locator("figure").nth(0).locator("video").click()
    assert [text.split() for text in page.locator(".i2v-side").all_inner_texts()] == [["fps", "8"], ["fps", "12"]]
    assert page.locator(".i2v-pair-box.difference").count() == 1


def test_one_click_or_one_key_shows_a_clip_against_its_reference(open_page, tmp_path):
    cells = [{"guidance_interval": interval, "num_frames": 8} for interval in ("0-1", "0.1-0.8")]
    (tmp_path / "a.html").write_text(clip_grid(make_sweep(tmp_path / "a", cells), ["guidance_interval"]).page(), encoding="utf-8")
    page, _ = open_page(locale="zh-CN")
    page.goto((tmp_path / "a.html").as_uri())
    page.wait_for_function(PLAYS, arg=2)
    assert page.locator(".i2v-against").count() == 1  # the reference itself has none
    page.locator("figure").nth(1).hover()
    page.get_by_role("button", name="与参考片段对比").click()
    page.wait_for_function("() => document.querySelectorAll('.i2v-pair-view video').length === 2")
    assert [text.split() for text in page.locator(".i2v-side").all_inner_texts()] == [
        ["参考", "guidance_interval", "0-1"],
        ["guidance_interval", "0.1-0.8"],
    ]
    stop_at(page, 3, "帧")
    box = page.locator(".i2v-pair-box")
    settles(page, lambda: [place for place, number in ((0.2, 0), (0.8, 1))
                           if np.abs(at(pixels(box), place, 0.25) - colour(number)).max() >= 24])  # fmt: skip
    page.keyboard.press("d")
    assert page.locator(".i2v-pair-box.difference").count() == 1
    assert violations(page) == []
    page.keyboard.press("r")
    assert page.locator(".i2v-pair-view").count() == 0
    page.locator("figure").nth(1).focus()
    page.keyboard.press("r")
    assert page.locator(".i2v-pair-box.difference").count() == 1  # as it was looked at last


def test_it_speaks_the_language_of_the_page_and_is_as_dark_as_it(open_page, grids):
    page, said = open_page(locale="zh-CN", color_scheme="dark")
    page.goto((grids / "grid.html").as_uri())
    assert page.evaluate(DARK)
    assert page.locator(".i2v-failed").inner_text().split("\n") == ["显存或内存不足", "没有记录原因"]
    english = page.locator(".i2v-player").evaluate("""(root) => [...root.querySelectorAll("button, label, select, option, .i2v-count, .i2v-notes li")]
      .flatMap((node) => [node.childElementCount ? "" : node.textContent, node.title, node.getAttribute("aria-label")])
      .filter((text) => text && /[a-z]{3}/i.test(text) && !/[一-鿿]/.test(text))""")
    assert set(english) <= {
        "English",
        "guidance_scale",
        "seed",
        "fps",
        *page.evaluate("() => JSON.parse(document.getElementById('data').textContent).fields"),
    }
    page.get_by_role("button", name="切换语言").or_(page.get_by_text("English")).first.click()
    assert page.locator(".i2v-failed b").inner_text() == "out of memory"
    page.get_by_role("button", name="Light or dark").click()
    assert not page.evaluate(DARK)
    page.reload()  # it is remembered
    assert page.locator(".i2v-failed b").inner_text() == "out of memory" and not page.evaluate(DARK)
    page.goto((grids / "notebook.html").as_uri())  # in a sandboxed frame there is no storage: the page around says what to be
    frame = page.frame_locator("iframe")
    reason = frame.locator(".i2v-failed b")
    reason.wait_for()  # in the browser's language, which Chromium may give the frame's own process late: not asked here
    assert frame.locator(".i2v-language, .i2v-theme").count() == 0
    for language, theme, text in (
        ("en", "light", "out of memory"),
        ("zh", "dark", "显存或内存不足"),
        ("en", "light", "out of memory"),
    ):
        page.evaluate(
            "(i2v) => document.querySelector('iframe').contentWindow.postMessage({i2v}, '*')",
            {"language": language, "theme": theme},
        )
        expect(reason).to_have_text(text)
        assert reason.evaluate(DARK) == (theme == "dark")
    assert said.left() == []


def test_clips_stand_still_where_motion_is_unwanted_and_all_is_done_by_keys(open_page, grids):
    page, said = open_page(reduced_motion="reduce")
    page.goto((grids / "two.html").as_uri())
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((video) => video.readyState >= 2)")
    assert page.evaluate(PAUSED) and page.locator(".i2v-count").inner_text().startswith("frame 1 ")

    def tab_to(found: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("(found) => document.activeElement.matches(found)", found):
                return
        raise AssertionError(f"no Tab leads to {found}")

    tab_to(".i2v-play")
    page.keyboard.press("Space")
    page.wait_for_function(PLAYS, arg=2)
    page.keyboard.press("Space")
    page.wait_for_function(PAUSED)
    tab_to("figure")
    page.keyboard.press("Enter")
    assert page.locator("figure.zoomed").count() == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('figure:first-of-type')")  # where it was
    page.reload()
    tab_to(".i2v-tools .i2v-wipe")
    page.keyboard.press("Enter")
    tab_to("input[aria-label=wipe]")
    page.keyboard.press("ArrowRight")
    assert page.locator(".i2v-pair-box").evaluate("(box) => box.style.getPropertyValue('--at')") == "50.5%"
    page.keyboard.press("Escape")
    assert page.locator(".i2v-pair-view").count() == 0
    assert said.left() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_player(open_page, grids, scheme):
    page, _ = open_page(color_scheme=scheme)
    page.goto((grids / "grid.html").as_uri())
    page.get_by_role("button", name="filter").click()
    assert violations(page) == []
    page.locator("figure").first.click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="wipe", exact=True).click()
    for number in (0, 1):
        page.locator("figure").nth(number).click()
    assert violations(page) == []


WHOLE = "() => [...document.querySelectorAll('video')].filter((video) => video.currentTime > 0.1 && video.videoWidth && !video.error).length"
# What each clip shows: the colour of its upper part, drawn from the video itself. Firefox draws nothing while a clip seeks.
COLOURS = """async () => {
  const draw = (video) => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext('2d');
    context.drawImage(video, 0, 0);
    return [...context.getImageData(video.videoWidth >> 2, video.videoHeight >> 2, 1, 1).data];
  };
  const found = [];
  for (const video of document.querySelectorAll('figure video')) {
    const end = performance.now() + 20000;
    let pixel = draw(video);
    while (pixel[3] === 0 && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      pixel = draw(video);
    }
    found.push([video.videoWidth, video.videoHeight, ...pixel.slice(0, 3)]);
  }
  return found;
}"""


def check_foreign(found: list[list[int]], names: list[str]) -> None:
    for number, (name, (width, height, *seen)) in enumerate(zip(names, found, strict=True)):
        assert (width, height) == ((96, 160) if name == "turned.mov" else (160, 96)), name
        if name != "turned.mov":  # whose coloured half is at a side
            assert np.abs(np.array(seen) - colour(number)).max() < 30, (name, seen)


@pytest.mark.slow
def test_compare_plays_every_foreign_file_in_chromium_and_firefox(voila, page, place, tmp_path):
    find_browser(*FIREFOX)
    names = list(make_foreign(place))
    files = [f"Path({name!r})" for name in names]
    cell = f"from pathlib import Path\nfrom i2v_lab import compare\ncompare([{', '.join(files)}])"
    notebook = voila.write(f"{place.name}/x.ipynb", [cell])
    page.set_viewport_size({"width": 1280, "height": 2400})  # so that all are in view
    voila.open_voila(page, notebook)
    page.wait_for_function(f"({WHOLE})() === {len(names)}")
    assert [text.removeprefix("file ") for text in captions(page)] == names
    about = page.locator(".i2v-about.file").all_inner_texts()
    assert about[0] == "160×96 · 8 fps" and "copy of HEVC" in about[names.index("phone.mov")]
    assert f"{len(names) - 4} of {len(names)} clips are shown as copies" in page.locator(".i2v-notes").inner_text()
    assert "none" not in page.locator(".i2v-player").inner_text().lower().replace("none\n", "")
    check_foreign(page.evaluate(COLOURS), names)
    with firefox(tmp_path / "profile") as fox:
        fox.resize(1280, 2400)
        fox.goto(voila.voila_url(notebook))
        played = fox.until(f"({WHOLE})()", len(names))
        assert played == len(names), fox.evaluate("[...document.querySelectorAll('.i2v-said')].map((one) => one.textContent)")
        check_foreign(fox.evaluate(f"({COLOURS})()"), names)


def test_five_hundred_clips_open_quickly_and_play(page, tmp_path):
    table = make_sweep(tmp_path, [{"seed": 0, "num_frames": 4}])
    grid = clip_grid(table, ["seed"])
    many = {**grid.data, "columns": [[["seed", str(number)]] for number in range(500)], "wraps": True, "rows": [[]]}
    many["cells"] = [
        {**grid.data["cells"][0], "number": number, "row": 0, "column": number, "label": [["seed", str(number)]]}
        for number in range(500)
    ]
    many["axes"] = [{"name": "seed", "values": [str(number) for number in range(500)]}]
    (tmp_path / "many.html").write_text(type(grid)(grid.grid, many).page(), encoding="utf-8")
    page.goto((tmp_path / "many.html").as_uri())
    page.wait_for_function(
        "() => document.querySelectorAll('figure').length === 500 && document.querySelector('video').currentTime > 0"
    )
    assert page.evaluate("[...document.querySelectorAll('video')].filter((video) => video.src).length") < 80
