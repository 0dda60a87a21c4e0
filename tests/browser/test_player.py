"""The player in a real browser: what it shows is read back from its pixels and its clock, in a page, JupyterLab and Voilà."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Frame, Locator, Page
from sweeps import EVIL, clip_frames, colour, grey, make_sweep
from tiny_families import make_checkpoint, small

from browser import soak
from i2v_lab import ClipParams, Store, run_clip
from i2v_lab.clip import video
from i2v_lab.report.player.page import clip_grid
from i2v_lab.run.script import script_for
from i2v_lab.settings import Settings
from i2v_lab.store.opinions import Opinions

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CELLS = [{"guidance_scale": guidance, "seed": seed, "num_frames": 16} for guidance, seed in product((4.5, 9.0, 12.0), range(3))]
EVIL_NAME = EVIL.replace("/", "⁄")  # a slash cannot stand in a file's name
PLAYS = "(count) => [...document.querySelectorAll('video')].filter((video) => video.currentTime > 0.1 && video.videoWidth === 96).length >= count"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """A page of 3 x 3 clips, 16 frames at 8 a second; clip number n took 6 + n seconds."""
    folder = tmp_path_factory.mktemp("sweep")
    table = make_sweep(folder, CELLS)
    grid = clip_grid(table, ["guidance_scale", "seed"], best="seconds_total", best_is="lowest")
    (folder / "grid.html").write_text(grid.page(), encoding="utf-8")
    return folder / "grid.html"


@pytest.fixture
def player(page: Page, sweep: Path) -> Page:
    page.goto(sweep.as_uri())
    page.wait_for_function(PLAYS, arg=9)
    return page


def captions(page: Page | Frame) -> list[str]:
    """The shown clips' labels, in order, in one line each."""
    return page.locator(".i2v-slot figcaption").evaluate_all(
        "(all) => all.map((one) => [...one.children].filter((pair) => pair.matches('.i2v-pair')).map((pair) => pair.textContent).join(', '))"
    )


def pixels(box: Locator) -> np.ndarray:
    """What is seen of an element: uint8 RGB, (H, W, 3)."""
    return np.asarray(Image.open(BytesIO(box.screenshot())).convert("RGB"))


def at(picture: np.ndarray, across: float, down: float) -> np.ndarray:
    return picture[int(down * picture.shape[0]), int(across * picture.shape[1])].astype(int)


# A frame that was sought is painted with one of the next two pictures of the screen.
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

CLIPS = (
    "() => [...document.querySelectorAll('video[src]')].map((one) => [one.currentTime, one.readyState, one.seeking, one.paused])"
)


def settles(page: Page, away: Callable[[], list[Any]]) -> None:
    """Look at the picture until nothing in it is away from what is expected."""
    for _ in range(50):
        if not away():
            return
        page.evaluate(PAINTED)
    assert away() == [], page.evaluate(CLIPS)


def stop_at(page: Page, frame: int, slider: str = "frame") -> None:
    page.get_by_role("slider", name=slider).fill(str(frame))
    still = "(video) => video.paused && !video.seeking && video.readyState >= 2"
    page.wait_for_function(f"() => [...document.querySelectorAll('video[src]')].every({still})")
    page.evaluate(PAINTED)


def choose(page: Page, *numbers: int) -> None:
    for number in numbers:
        page.locator("figure").nth(number).click(modifiers=["Shift"])


@pytest.mark.slow
def test_sixteen_clips_of_other_rates_and_lengths_stay_within_a_frame_of_the_clock(page, tmp_path):
    page.goto(soak.make_page(tmp_path).as_uri())
    found = soak.watch(page, 6)
    assert found["loops"] >= 1
    assert found["samples"] > 100
    # A browser that gets no time for a moment shows late clips for that moment: the share is what is judged here.
    assert found["late"] <= 0.02 * found["samples"], found


def test_a_wipe_shows_one_clip_on_each_side_of_a_bar_that_can_be_dragged(player):
    choose(player, 0, 4)
    player.get_by_role("button", name="wipe", exact=True).click()
    player.wait_for_function("() => document.querySelectorAll('.i2v-pair-view video').length === 2")
    stop_at(player, 3)
    box = player.locator(".i2v-pair-box")
    sides = [side.split() for side in player.locator(".i2v-side").all_inner_texts()]
    assert sides == [["guidance_scale", "4.5", "seed", "0"], ["guidance_scale", "9", "seed", "1"]]

    def shows(bar: float) -> None:
        def away() -> list[Any]:
            picture, places = pixels(box), (0.04, bar - 0.05, bar + 0.05, 0.96)
            coloured = [np.abs(at(picture, across, 0.25) - colour(0 if across < bar else 4)).max() for across in places]
            return [*(far for far in coloured if far >= 24), *(far for across in places if (far := off(picture, across)) >= 12)]

        def off(picture: Any, across: float) -> Any:
            return np.abs(at(picture, across, 0.8) - grey(3)).max()

        settles(player, away)

    shows(0.5)
    where = box.bounding_box()
    middle = where["y"] + where["height"] / 2
    player.mouse.move(where["x"] + 0.5 * where["width"], middle)
    player.mouse.down()
    player.mouse.move(where["x"] + 0.2 * where["width"], middle, steps=4)
    player.mouse.up()
    shows(0.2)
    player.get_by_role("slider", name="wipe").fill("80")
    shows(0.8)
    player.keyboard.press("Escape")
    assert player.locator(".i2v-pair-view").count() == 0
    player.wait_for_function("() => [...document.querySelectorAll('figure video')].every((video) => video.readyState >= 2)")


def test_a_difference_is_the_difference_of_the_pixels(player):
    choose(player, 0, 4)
    player.get_by_role("button", name="difference", exact=True).click()
    player.wait_for_function("() => document.querySelectorAll('.i2v-pair-view video').length === 2")
    stop_at(player, 3)
    box = player.locator(".i2v-pair-box")
    expected = np.abs(np.array(colour(0)) - np.array(colour(4)))

    def away() -> list[Any]:
        picture = pixels(box)
        upper, lower = np.abs(at(picture, 0.5, 0.25) - expected).max(), at(picture, 0.5, 0.8).max()
        return [(upper, lower)] if upper >= 24 or lower >= 6 else []  # the lower halves are the same

    settles(player, away)
    player.get_by_label("brightness").select_option("2")
    assert np.abs(at(pixels(box), 0.5, 0.25) - np.minimum(2 * expected, 255)).max() < 40


def test_clips_are_sorted_filtered_and_the_best_is_marked(player):
    head = "guidance_scale {}, seed {}".format
    made = [head(guidance, seed) for guidance in ("4.5", "9", "12") for seed in range(3)]
    best = player.locator(".i2v-slot.best")
    assert best.locator(".i2v-best-badge").inner_text() == "★ lowest seconds_total: 6"
    assert captions(player) == made
    assert player.locator(".i2v-head:visible").count() == 6
    player.get_by_label("sort by").select_option("seconds_total")
    player.get_by_role("button", name="Reverse the order").click()
    assert captions(player) == made[::-1]
    assert player.locator(".i2v-measure").all_inner_texts()[0].split() == ["seconds_total", "14"]
    player.get_by_role("button", name="filter").click()
    player.get_by_role("checkbox", name="4.5").uncheck()
    player.get_by_role("checkbox", name="2", exact=True).uncheck()
    kept = [text for text in made[::-1] if "4.5" not in text and "seed 2" not in text]
    assert captions(player) == kept
    assert player.get_by_role("button", name="filter: 4 of 9").is_visible()
    assert best.locator(".i2v-best-badge").inner_text() == "★ lowest seconds_total: 9"  # of those that are left
    player.get_by_label("sort by").select_option("")  # the grid again, without the rows and columns that are gone
    assert [" ".join(text.split()) for text in player.locator(".i2v-head").all_inner_texts()] == [
        "seed 0", "seed 1", "guidance_scale 9", "guidance_scale 12"
    ]  # fmt: skip
    player.get_by_label("mark the best by").select_option("highest seconds_total")
    assert best.locator(".i2v-best-badge").inner_text() == "★ highest seconds_total: 13"
    player.wait_for_function(PLAYS, arg=4)


def texts_only(page: Page, text: str = EVIL) -> None:
    """Nothing that was given as text has become an element, or has run."""
    assert page.locator("img[src='x']").count() == 0
    assert text in page.locator(".i2v-player").first.inner_text()


@pytest.fixture
def evil_clips(place: Path) -> Path:
    """Runs with a prompt that is a script; and two foreign clips whose names are one."""
    make_sweep(place, [{**cell, "prompt": EVIL} for cell in CELLS[:4]])
    for number in range(2):
        video.write(clip_frames(number, 16, 64, 96), place / "foreign", stem=f"{number}{EVIL_NAME}", fps=8, format="mp4")
    return place


@pytest.mark.slow
def test_compare_in_jupyterlab_plays_and_keeps_choices_stars_and_votes(lab, open_page, evil_clips):
    folder = evil_clips.name
    (evil_clips / "notebooks").mkdir()
    shutil.copy(NOTEBOOKS / "compare.ipynb", evil_clips / "notebooks")
    page, said = open_page(height=6000)  # so that all of it is in view
    lab.open_lab(page, f"{folder}/notebooks/compare.ipynb")
    page.wait_for_function(PLAYS, arg=6)  # four in the player, two to vote on
    texts_only(page)
    grid, blind = page.locator(".i2v-player").first, page.locator(".i2v-player").last
    assert grid.locator("figure").count() == 4
    assert page.locator(".i2v-table th.differs").all_inner_texts() == ["guidance_scale", "seed"]
    page.locator(".i2v-table tbody tr").first.click()
    page.wait_for_function("() => document.querySelectorAll('.i2v-player')[0].querySelectorAll('figure').length === 3")
    rows = page.locator(".i2v-table tbody tr")
    page.get_by_role("button", name="seed", exact=True).click(click_count=2, delay=50)
    seed = page.locator(".i2v-table th").all_inner_texts().index("seed")
    assert [row.split("\t")[seed] for row in rows.all_inner_texts()] == ["2", "1", "0", "0"]
    page.get_by_role("searchbox", name="filter").fill("seed:0")
    assert rows.count() == 2 and "3 of 4 runs chosen · 2 match" in page.locator(".i2v-table-said").inner_text()
    store = Store(evil_clips / "results")
    ids = list(store.runs()["id"])
    grid.get_by_role("button", name="4 of 5 stars").first.click()
    grid.locator("figure").first.click()
    grid.get_by_role("textbox", name="note").first.fill(EVIL)
    page.keyboard.press("Escape")
    wait_for(page, lambda: len(table := Opinions(store).table()) == 1 and table["note"].iloc[0] == EVIL)
    kept = Opinions(store).table()
    assert (kept.index[0], int(kept["stars"].iloc[0])) == (ids[0], 4)
    assert "guidance" not in blind.inner_text() and EVIL not in blind.inner_text()
    page.get_by_role("button", name="Left is better").click()
    wait_for(page, lambda: len(Opinions(store).votes()) == 1)
    vote = Opinions(store).votes().iloc[0]
    assert vote["better"] == "left" and {vote["left"], vote["right"]} <= set(ids)
    assert said.left() == []


def wait_for(page: Page, found: Callable[[], bool]) -> None:
    """Until something is in the store: the page's messages take a moment."""
    for _ in range(100):
        if found():
            return
        page.wait_for_timeout(100)
    raise AssertionError("the store does not have it")


@pytest.mark.slow
def test_foreign_clips_play_in_voila_under_their_names(voila, page, evil_clips):
    cell = "from pathlib import Path\nfrom i2v_lab import compare\ncompare(sorted(Path('foreign').iterdir()))"
    voila.open_voila(page, voila.write(f"{evil_clips.name}/x.ipynb", [cell]))
    page.wait_for_function(PLAYS, arg=2)
    texts_only(page, EVIL_NAME)
    assert captions(page) == [f"file {number}{EVIL_NAME}.mp4" for number in range(2)]
    choose(page, 0, 1)
    page.get_by_role("button", name="wipe", exact=True).click()
    stop_at(page, 5)
    picture = pixels(page.locator(".i2v-pair-box"))
    assert np.abs(at(picture, 0.2, 0.25) - colour(0)).max() < 24
    assert np.abs(at(picture, 0.8, 0.25) - colour(1)).max() < 24
    (next((evil_clips / "foreign").iterdir())).unlink()  # what the page has, it keeps
    page.keyboard.press("Escape")
    page.wait_for_function("() => [...document.querySelectorAll('figure video')].every((video) => video.readyState >= 2)")


@pytest.mark.slow
def test_of_a_hundred_clips_only_those_in_view_are_loaded(voila, page, place):
    made = make_sweep(place, [{"seed": seed, "num_frames": 8} for seed in range(2)])
    cell = (
        "import pandas as pd\nfrom i2v_lab import Store, compare\nfrom pathlib import Path\n"
        "runs = Store(Path('results')).runs()\n"
        "table = pd.concat([runs] * 50, ignore_index=True).assign(seed=range(100))\ncompare(table)"
    )
    assert len(made) == 2
    voila.open_voila(page, voila.write(f"{place.name}/x.ipynb", [cell]))
    page.wait_for_function(PLAYS, arg=4)
    loaded = (
        "() => [...document.querySelectorAll('video')].flatMap((video, index) => (video.currentSrc && video.src ? [index] : []))"
    )
    first = page.evaluate(loaded)
    assert page.locator("video").count() == 100 and page.locator("video[poster]").count() == 100
    assert first[0] == 0 and len(first) <= 60
    page.locator(".i2v-scroll").evaluate("(node) => node.scrollTo(0, node.scrollHeight)")
    page.wait_for_function("() => [...document.querySelectorAll('video')].at(-1).readyState >= 2")
    page.wait_for_function("() => !document.querySelector('video').src")
    assert 0 not in page.evaluate(loaded)


@pytest.mark.slow
def test_an_untrusted_notebook_shows_first_frames_and_no_error(lab, open_page, place):
    from i2v_lab import compare

    data, _ = compare(make_sweep(place, CELLS))._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data=data, execution_count=1)
    cell = nbformat.v4.new_code_cell("compare(runs())", outputs=[output], execution_count=1)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), place / "untrusted.ipynb")
    page, said = open_page()
    lab.open_lab(page, f"{place.name}/untrusted.ipynb", run=False)
    pictures = page.locator(".jp-OutputArea-output img")
    pictures.first.wait_for()
    assert pictures.count() == 9
    assert page.evaluate(
        "() => [...document.querySelectorAll('.jp-OutputArea-output img')].every((one) => one.naturalWidth === 96)"
    )
    assert "guidance_scale 12" in page.locator(".jp-OutputArea-output").inner_text()
    assert "rror" not in page.locator(".jp-OutputArea").inner_text()
    assert page.locator(".i2v-player").count() == 0
    assert said.left() == []


@pytest.fixture(scope="module")
def scripted(tmp_path_factory) -> tuple[Path, dict[int, str]]:
    """A page of two clips of a family that has scripts, and {seed: script}."""
    folder = tmp_path_factory.mktemp("scripted")
    store = Store(folder / "results")
    checkpoint = make_checkpoint("svd", folder / "tiny-svd")
    scripts = {}
    for seed in (1, 2):
        params = ClipParams(model=str(checkpoint), image="sample:coffee", **small("svd", seed=seed, num_inference_steps=1))
        record = run_clip(params, None, store, settings=Settings())
        scripts[seed] = script_for(record.params, record.model_dump(), Path(record.clip).name, to_send=True).text
    grid = clip_grid(store.runs(), ["seed"])
    assert str(folder) not in grid.page()
    (folder / "grid.html").write_text(grid.page(), encoding="utf-8")
    (folder / "notebook.html").write_text(f"<!doctype html>{grid._repr_html_()}", encoding="utf-8")
    return folder, scripts


@pytest.mark.slow
def test_the_script_of_a_clip_is_shown_and_copied(scripted, open_page):
    folder, scripts = scripted
    page, said = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto((folder / "grid.html").as_uri())
    for place, seed in enumerate((1, 2)):
        figure = page.locator("figure").nth(place)
        assert figure.locator(".i2v-code").evaluate("(node) => getComputedStyle(node).opacity") == "0"
        figure.hover()
        figure.locator(".i2v-code").click()
        assert page.locator(".i2v-code-text").text_content() == scripts[seed]
        page.get_by_role("button", name="Copy").click()
        page.get_by_text("copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == scripts[seed]
        page.keyboard.press("Escape")
        assert page.locator(".i2v-code-panel, .zoomed").count() == 0
        page.mouse.move(5, 5)
        page.evaluate("document.activeElement.blur()")
    assert said.left() == []


def test_in_the_frame_of_a_notebook_the_script_can_be_copied_too(scripted, page):
    folder, scripts = scripted
    page.goto((folder / "notebook.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("figure").first.hover()
    frame.locator(".i2v-code").first.click()
    frame.get_by_role("button", name="Copy").click()
    frame.get_by_text("copied").or_(frame.get_by_text("selected")).wait_for()
    selected = page.frames[1].evaluate("getSelection().toString()")
    assert selected.split() == scripts[1].split()


def test_a_model_of_its_own_has_no_code_button(player):
    assert player.locator(".i2v-code").count() == 0
