"""Reports in a real browser, opened from disk with the network off: clips play, all in step, and do what they are told."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Frame, Page
from sweeps import EVIL, grey, make_sweep

from browser.axe import violations
from i2v_lab import report
from i2v_lab.report import clip_grid, export_html

# Two seconds at 8 frames a second, one at 24, one and a half at a ratio; the middle of each frame says which it is.
KINDS = [(16, "8"), (24, "24"), (36, "24000/1001")]
FASTEST = 24.0
FRAMES = 48  # of two seconds at 24 frames a second

# Colours of the videos' lower halves, as numbers of frames, in the order of the page.
SHOWN = """() => [...document.querySelectorAll("video")].map((video) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const [red] = context.getImageData(video.videoWidth / 2, video.videoHeight * 0.75, 1, 1).data;
  return Math.round((red - 20) / 6);
})"""

# Watches the clips at every frame of the screen: how often they began again, how long they have all been in step since.
WATCH = """() => {
  const videos = [...document.querySelectorAll("video")];
  window.watch = { loops: 0, instep: 0, worst: 0, before: 0 };
  const look = () => {
    const longest = videos.reduce((a, b) => (b.duration > a.duration ? b : a));
    const now = longest.currentTime;
    if (now < window.watch.before - 0.5) window.watch.loops += 1;
    window.watch.before = now;
    const playing = videos.filter((video) => now < video.duration - 0.15);
    const off = Math.max(...playing.map((video) => Math.abs(video.currentTime - now)), 0);
    if (window.watch.loops >= 2 && playing.length === videos.length) {
      window.watch.worst = off;
      window.watch.instep = off < 1 / 24 ? window.watch.instep + 1 : 0;
    }
    requestAnimationFrame(look);
  };
  look();
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A folder with two pages: grid.html, and report.html made of a notebook as a sweep's is."""
    folder = tmp_path_factory.mktemp("pages")
    cells = [{"prompt": prompt, "seed": seed, "num_frames": KINDS[seed][0], "fps": KINDS[seed][1]}
             for prompt, seed in product((f"{EVIL} & more", "a cup"), range(3))]  # fmt: skip
    cells[4] = {"prompt": "a cup", "seed": 1, "status": "failed", "reason": EVIL, "seconds": {"total": 0.1}}
    table, axes = make_sweep(folder, cells).assign(metric_motion=[1.0, 2, 3, 4, 5, 6], cell=range(1, 7)), ["prompt", "seed"]
    grid = clip_grid(table, axes)
    (folder / "grid.html").write_text(grid.page(), encoding="utf-8")
    v4 = nbformat.v4
    pieces = [report.heading(table, axes), grid, report.findings_piece(table, axes), report.metrics_piece(table, axes),
              report.cost_piece(table, axes), report.table_piece(table, axes)]  # fmt: skip
    outputs = [v4.new_output("display_data", data={"text/html": piece._repr_html_()}) for piece in pieces]
    aside = v4.new_markdown_cell("# For those who run it", metadata={"tags": ["aside"]})
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }  # JupyterLab asks for one otherwise
    notebook = v4.new_notebook(cells=[aside, v4.new_code_cell("", outputs=outputs)], metadata=kernel)
    nbformat.write(notebook, folder / "report.ipynb")
    export_html(folder / "report.ipynb", folder / "report.html")
    return folder


class Opened:
    """A page from disk, and what it complained about or asked for."""

    def __init__(self, browser: Browser, path: Path) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def page(chromium: Browser, pages: Path) -> Iterator[Page]:
    opened = Opened(chromium, pages / "grid.html")
    yield opened.page
    opened.close()


def wait_until_all_play(frame: Page | Frame) -> None:
    frame.wait_for_function("""() => {
      const videos = [...document.querySelectorAll("video")];
      return videos.length === 5 && videos.every((video) => video.currentTime > 0.2 && video.videoWidth === 96);
    }""")


def stopped_at(page: Page, frame: int) -> None:
    """Wait until the player stands at a frame of the fastest clip, and every clip shows what belongs there."""
    page.wait_for_function(f"() => document.querySelector('.i2v-count').textContent.startsWith('frame {frame + 1} / {FRAMES}')")
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((video) => video.paused && !video.seeking)")
    moment = (frame + 0.5) / FASTEST
    wanted = [
        min(int(moment * rate), count - 1) for count, rate in ((16, 8), (24, 24), (36, 24000 / 1001), (16, 8), (36, 24000 / 1001))
    ]
    page.wait_for_function(f"(wanted) => JSON.stringify(({SHOWN})()) === JSON.stringify(wanted)", arg=wanted, timeout=5000)


def test_every_clip_plays_and_all_stay_in_step_while_they_loop(page):
    wait_until_all_play(page)
    page.evaluate(WATCH)
    # After two rounds, for 20 pictures of the screen in a row: within one frame of the fastest.
    page.wait_for_function("() => window.watch.instep >= 20", timeout=25_000)
    assert page.locator("video").count() == 5


def test_step_scrub_and_keys_bring_every_clip_to_its_own_frame(page):
    assert grey(35) < 256
    wait_until_all_play(page)
    page.keyboard.press("Space")
    page.keyboard.press("Home")
    stopped_at(page, 0)
    page.keyboard.press("ArrowRight")
    stopped_at(page, 1)
    page.get_by_role("button", name="One frame on").click()
    stopped_at(page, 2)
    page.get_by_role("button", name="One frame back").click()
    stopped_at(page, 1)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # also where a button has the focus; from the first to the last
    stopped_at(page, FRAMES - 1)
    page.get_by_role("slider", name="frame").fill("29")  # the second clip is over, and holds its last frame
    stopped_at(page, 29)
    page.keyboard.press("ArrowRight")
    stopped_at(page, 30)
    page.locator("body").press("Space")
    page.wait_for_function("() => [...document.querySelectorAll('video')].some((video) => !video.paused)")


def test_speed_is_what_was_chosen(page):
    wait_until_all_play(page)
    page.get_by_role("combobox", name="speed").select_option("0.25")
    # A second of the screen's time is a quarter of a second of the clips'.
    ratio = page.evaluate("""() => new Promise((resolve) => {
      const video = document.querySelector("video");
      let from = null;
      const look = () => {
        if (video.paused || video.seeking || (from && video.currentTime < from.time)) from = null;
        else if (!from) from = { time: video.currentTime, at: performance.now() };
        else if (performance.now() - from.at > 1000) return resolve((video.currentTime - from.time) / (performance.now() - from.at) * 1000);
        return requestAnimationFrame(look);
      };
      look();
    })""")
    assert 0.15 < ratio < 0.32
    rates = page.evaluate("() => [...document.querySelectorAll('video')].map((video) => video.playbackRate)")
    assert all(0.2 < rate < 0.3 for rate in rates)


def test_without_loop_it_ends_at_the_last_frame(page):
    wait_until_all_play(page)
    page.get_by_role("checkbox", name="loop").uncheck()
    page.get_by_role("combobox", name="speed").select_option("4")
    stopped_at(page, FRAMES - 1)
    page.get_by_role("button", name="Play or pause").click()
    page.wait_for_function("() => [...document.querySelectorAll('video')].some((video) => !video.paused)")


def test_a_click_enlarges_and_escape_brings_it_back(page):
    wait_until_all_play(page)
    figure = page.locator("figure").first
    before = figure.bounding_box()
    figure.click()
    large = figure.bounding_box()
    assert large["width"] > 1200 and large["height"] > 600
    assert EVIL in figure.inner_text()
    page.keyboard.press("Space")
    page.keyboard.press("Home")
    stopped_at(page, 0)
    page.keyboard.press("Escape")
    assert figure.bounding_box() == before
    figure.focus()
    page.keyboard.press("Enter")
    assert figure.bounding_box() == large


def test_prompts_and_reasons_are_shown_as_text(page):
    heads = page.locator(".i2v-head.row").all_inner_texts()
    assert [head.split(maxsplit=1)[1] for head in heads] == [f"{EVIL} & more", "a cup"]
    assert page.locator(".i2v-failed").inner_text().split("\n") == ["failed", EVIL]
    assert page.locator("img").count() == 0
    page.get_by_label("mark the best by").select_option(
        "lowest seconds_total"
    )  # of those that there are: the failed one was quicker
    assert page.locator(".i2v-slot.best").locator(".i2v-best-badge").inner_text() == "★ lowest seconds_total: 6"
    assert "hold their last frame" in page.locator(".i2v-notes").inner_text()


@pytest.mark.parametrize("width", [1280, 800, 730, 640, 400])
def test_no_label_is_cut(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    cut = page.evaluate("""() => [...document.querySelectorAll(".i2v-head, .i2v-failed, .i2v-notes li, .i2v-bar *")]
      .filter((node) => node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline")
      .filter((node) => !["INPUT", "SELECT", "OPTION"].includes(node.tagName)).map((node) => node.className + node.textContent)""")
    assert cut == []
    outside = page.locator(".i2v-bar").evaluate_all("""(bars) => bars.flatMap((bar) => [...bar.querySelectorAll("*")]
      .filter((node) => node.getBoundingClientRect().right > bar.clientWidth + 1)).length""")
    assert outside == 0


def test_the_report_of_a_notebook_plays_from_disk(chromium, pages):
    opened = Opened(chromium, pages / "report.html")
    opened.page.locator("iframe").scroll_into_view_if_needed()
    frame = opened.page.frames[1]
    wait_until_all_play(frame)
    frame.evaluate(WATCH)
    frame.wait_for_function(
        "() => window.watch.loops >= 1 && [...document.querySelectorAll('video')].every((video) => !video.error)"
    )
    opened.close()


# What the player in the frame was told by the page.
HEAR = "() => { window.heard = []; addEventListener('message', ({ data }) => window.heard.push(data.i2v)); }"


def test_the_report_reads_in_both_languages_light_and_dark_on_a_phone_and_on_paper(chromium, pages):
    opened = Opened(chromium, pages / "report.html")
    page = opened.page
    assert [page.locator(tag).count() for tag in ("main", "h1", "header")] == [1, 1, 1]
    assert page.title() == "Two prompts, three seeds, on x.png" == page.locator("h1").inner_text()
    assert "For those who run it" not in page.inner_text("body")
    order = [
        page.get_by_role("heading", name=name).bounding_box()["y"]
        for name in ("What was found", "The metrics", "Cost", "The table")
    ]
    assert order == sorted(order) and page.locator("iframe").bounding_box()["y"] < order[0]
    assert page.locator("iframe").bounding_box()["width"] > 1150
    wait_until_all_play(page.frames[1])
    assert violations(page) == []
    page.frames[1].evaluate(HEAR)
    page.get_by_role("button", name="中文").click()
    page.get_by_role("button", name="深色").click()
    page.frames[1].wait_for_function("() => window.heard.length >= 2")
    assert page.frames[1].evaluate("() => window.heard.at(-1)") == {"language": "zh", "theme": "dark"}
    assert page.title() == "2 条提示词，3 个种子，图片：x.png" == page.locator("h1").inner_text()
    assert page.locator("html").get_attribute("lang") == "zh" and "发现了什么" in page.inner_text("main")
    assert "What was found" not in page.inner_text("main")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 29)"
    assert "invert" in page.locator(".i2v-panels img").first.evaluate("(image) => getComputedStyle(image).filter")
    assert violations(page) == []
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark" and "发现了什么" in page.inner_text("main")  # it is kept
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    page.emulate_media(media="print")
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("iframe").is_visible() and page.locator(".i2v-stills img").first.is_visible()
    assert page.locator("details:not([open])").count() == 0 and not page.locator("header").is_visible()
    opened.close()


@pytest.mark.slow
def test_a_report_that_is_not_trusted_shows_stills_and_says_what_to_do(lab, open_page, pages):
    (lab.folder / "untrusted").mkdir()
    (lab.folder / "untrusted" / "report.ipynb").write_bytes((pages / "report.ipynb").read_bytes())
    page, _ = open_page()
    lab.open_lab(page, "untrusted/report.ipynb", run=False)
    page.locator(".i2v-stills img").first.wait_for()
    assert page.locator(".jp-Notebook iframe").count() == 0
    line = page.get_by_text("Still pictures: this notebook is not trusted here")
    assert line.is_visible() and line.count() == 1
    assert not page.get_by_text("此笔记本未被信任").is_visible()  # one language
    assert page.locator(".i2v-stills img").count() == 5


def test_without_scripts_the_first_frames_are_shown(chromium, pages):
    context = chromium.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((pages / "grid.html").as_uri())
    assert page.locator("td img").count() == 5
    assert page.locator("th").all_inner_texts()[1:4] == ["seed 0", "seed 1", "seed 2"] or EVIL in page.locator("table").inner_text()
    context.close()
