"""What a newcomer met in the studio: each fault is held here, in a browser. Everything goes on in Voilà's page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

from browser.axe import violations
from browser.conftest import OpenPage
from browser.servers import Server
from browser.studio_page import WAIT, StudioPage, cell, in_voila
from i2v_lab import ClipParams, Store, run_clip
from i2v_lab.devices.turns import turn
from i2v_lab.store.jobs import Jobs

SMALL = {"resolution": "64x96", "num_frames": 4, "num_inference_steps": 2}
TITLES = "() => [...document.querySelectorAll('[title]')].filter((node) => /null|undefined/.test(node.title)).map((node) => node.outerHTML)"


def press(button: Locator, milliseconds: int = 150) -> None:
    """Press a button as a hand does; it must stay under the pointer until it is let go."""
    button.scroll_into_view_if_needed()
    page, before = button.page, button.bounding_box()
    assert before is not None
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + 5)
    page.mouse.down()
    for _ in range(5):
        page.wait_for_timeout(milliseconds / 5)
        assert button.bounding_box() == before
    page.mouse.up()


def small(studio: StudioPage) -> None:
    for field, value in SMALL.items():
        studio.enter(field, value)


def tab_to(page: Page, is_there: Callable[[], bool]) -> None:
    """Press Tab until the focus is there."""
    for _ in range(150):
        page.keyboard.press("Tab")
        if is_there():
            return
    pytest.fail("the keyboard cannot get there")


@pytest.mark.slow
def test_the_studio_speaks_the_readers_language_is_light_or_dark_and_keeps_its_form(
    voila: Server, place: Path, open_page: OpenPage
) -> None:
    path = voila.write(f"{place.name}/studio.ipynb", [cell(place)])
    page, said = open_page(locale="zh-CN", color_scheme="dark")
    studio = in_voila(voila, page, path)
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text("创作室", timeout=WAIT)
    expect(studio.entry("prompt")).to_have_value("camera panning left slowly")
    assert violations(page, include_moderate=True, within=".i2vs-studio") == []
    assert page.evaluate(TITLES) == []
    studio.enter("seed", 7)
    studio.enter("resolution", "640x480")
    expect(page.locator(".i2vs-field-resolution .i2vs-meaning")).to_have_text("= 高 640 × 宽 480")

    page.get_by_role("button", name="English").click()
    expect(heading).to_have_text("Studio", timeout=WAIT)
    expect(studio.entry("seed")).to_have_value("7")
    expect(page.locator(".i2vs-field-resolution .i2vs-meaning")).to_have_text("= 640 high × 480 wide", timeout=WAIT)
    page.get_by_role("button", name="The picture's own shape").click()
    expect(page.locator(".i2vs-field-resolution .i2vs-meaning")).to_have_text(re.compile("= 4.. high × 6.. wide"), timeout=WAIT)
    page.get_by_role("button", name="Light").click()
    assert page.evaluate("() => getComputedStyle(document.querySelector('.i2vs-studio')).colorScheme") == "light"
    page.get_by_role("tab", name="Sweep").click()
    expect(page.locator(".i2vs-sweep .i2vs-card")).to_have_count(6, timeout=WAIT)
    assert violations(page, include_moderate=True, within=".i2vs-studio") == []
    assert page.evaluate(TITLES) == []

    page.reload()
    studio.ready()
    expect(heading).to_have_text("Studio", timeout=WAIT)
    expect(studio.entry("seed")).to_have_value("7", timeout=WAIT)
    assert page.evaluate("() => document.documentElement.dataset.theme") == "light"
    assert said.left() == []


@pytest.mark.slow
def test_a_clip_is_what_is_typed_and_nothing_moves_under_the_pointer(voila: Server, place: Path, page: Page) -> None:
    path = voila.write(f"{place.name}/studio.ipynb", [cell(place)])
    studio = in_voila(voila, page, path)
    store = Store(place / "results")
    generate, advice = page.locator(".i2vs-left .i2vs-primary"), page.locator(".i2vs-advice")
    small(studio)
    studio.enter("prompt", "qwertz")
    expect(advice).to_contain_text("no motion word", timeout=WAIT)
    studio.entry("num_frames").fill("999")
    press(generate)
    expect(page.locator(".i2vs-left .i2vs-message")).to_contain_text("Nothing was made. Frames", timeout=WAIT)
    studio.entry("num_frames").fill("5")
    studio.entry("prompt").fill("zoom in")  # the advice vanishes
    press(generate)
    expect(studio.cards("done")).to_have_count(1, timeout=WAIT)
    params = store.records()[-1].params
    assert params is not None
    assert (params.prompt, params.num_frames) == ("zoom in", 5)


@pytest.mark.slow
def test_a_sweep_runs_what_is_typed_and_every_page_shows_what_runs(
    voila: Server, place: Path, page: Page, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photograph: Path
) -> None:
    path = voila.write(f"{place.name}/studio.ipynb", [cell(place)])
    studio = in_voila(voila, page, path)
    store = Store(place / "results")
    jobs = Jobs(store.database)
    small(studio)
    page.get_by_role("tab", name="Sweep").click()
    run, entries = page.locator(".i2vs-sweep .i2vs-primary"), page.locator(".i2vs-sweep .i2vs-axis input")
    expect(page.locator(".i2vs-sweep .i2vs-card")).to_have_count(6, timeout=WAIT)
    entries.nth(1).fill("0..99")
    press(run)
    expect(page.locator(".i2vs-confirm")).to_contain_text("300 clips are to be made", timeout=WAIT)
    assert not jobs.active()
    run.first.focus()
    tab_to(page, lambda: page.evaluate("() => document.activeElement.textContent") == "Not now")
    page.keyboard.press("Enter")
    expect(page.locator(".i2vs-confirm")).to_be_hidden()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    with turn(("cpu",), "a test", lambda line: None):  # the sweep waits
        entries.nth(0).fill("4, 9")
        entries.nth(1).fill("3")
        page.locator(".i2vs-sweep-name input").fill("typed last")
        press(run)
        expect(page.locator(".i2vs-title")).to_contain_text("sweep typed-last", timeout=WAIT)
        (job,) = jobs.active()
        definition = yaml.safe_load(job.sweep)
        assert (definition["name"], definition["axes"]) == ("typed-last", {"guidance_scale": "4, 9", "seed": "3"})

        # Another page, and this one loaded again: what runs, its Stop, the queue, the form.
        other = in_voila(voila, open_page()[0], path)
        expect(other.page.locator(".i2vs-title")).to_contain_text("sweep typed-last", timeout=WAIT)
        small(other)
        other.enter("seed", 11)
        other.generate()
        page.reload()
        studio.ready()
        expect(page.locator(".i2vs-title")).to_contain_text("sweep typed-last", timeout=WAIT)
        expect(page.locator(".i2vs-waiting")).to_have_count(1, timeout=WAIT)
        expect(studio.entry("num_frames")).to_have_value("4", timeout=WAIT)
        page.get_by_role("button", name="Stop all").click()
        expect(page.locator(".i2vs-title")).to_contain_text("Ready", timeout=WAIT)
        expect(other.page.locator(".i2vs-title")).to_contain_text("Ready", timeout=WAIT)
        assert not jobs.active()

    # A clip that another process made comes by itself, and is deleted and brought back.
    run_clip(ClipParams(**{**SMALL, "image": "sample:cat", "prompt": "zoom in"}), None, store)
    expect(studio.cards("done")).to_have_count(1, timeout=WAIT)
    other.cards("done").hover()
    other.cards("done").get_by_role("button", name="Delete").click()
    expect(studio.cards("done")).to_have_count(0, timeout=WAIT)
    other.page.get_by_role("button", name="Undo delete").click()
    expect(studio.cards("done")).to_have_count(1, timeout=WAIT)

    # Several pictures are an axis.
    studio.upload(photograph, shutil.copy(photograph, tmp_path / "second.jpg"))
    expect(page.locator(".i2vs-sweep .i2vs-axis textarea")).to_have_value(re.compile(r".*coffee\.jpg\n.*second\.jpg"), timeout=WAIT)


@pytest.mark.slow
def test_a_sweep_leaves_the_five_files_and_opens_its_report(voila: Server, place: Path, page: Page) -> None:
    path = voila.write(f"{place.name}/studio.ipynb", [cell(place, prompt="zoom in", **SMALL)])
    in_voila(voila, page, path)
    page.get_by_role("tab", name="Sweep").click()
    page.locator(".i2vs-sweep .i2vs-axis input").first.fill("4, 9")
    press(page.locator(".i2vs-sweep .i2vs-primary"))
    expect(page.get_by_text("making the report")).to_be_visible(timeout=WAIT)
    open_report = page.get_by_role("button", name="Open report")
    open_report.wait_for(timeout=WAIT)
    (folder,) = (place / "results" / "sweeps").iterdir()
    files = {"table.csv", "table.parquet", "report.ipynb", "report.html", "grid.mp4"}
    assert files <= {file.name for file in folder.iterdir()}
    with page.expect_popup() as opened:
        open_report.click()
    expect(opened.value.locator("body")).to_contain_text("zoom in", timeout=WAIT)
    (job,) = Jobs(Store(place / "results").database).newest(1)
    assert json.loads(job.result)["problem"] == ""


@pytest.mark.slow
def test_from_the_picture_to_compared_clips_by_keyboard_alone(voila: Server, place: Path, open_page: OpenPage) -> None:
    path = voila.write(f"{place.name}/studio.ipynb", [cell(place, **SMALL)])
    page, said = open_page(reduced_motion="reduce")
    studio = in_voila(voila, page, path)

    def focus_in(selector: str) -> Callable[[], bool]:
        return lambda: bool(page.evaluate("(selector) => document.activeElement.matches(selector)", selector))

    def enter(field: str, text: str) -> None:
        tab_to(page, focus_in(f".i2vs-field-{field} :is(input, textarea)"))
        page.keyboard.press("Control+a")
        page.keyboard.type(text)

    enter("image", "sample:cat")
    enter("prompt", "zoom in")
    for seed in ("1", "2"):
        enter("seed", seed)
        tab_to(page, focus_in(".i2vs-left .i2vs-primary"))
        page.keyboard.press("Enter")
        expect(studio.cards("done")).to_have_count(int(seed), timeout=WAIT)
    assert [record.params.seed for record in Store(place / "results").records() if record.params] == [1, 2]
    studio.until(".i2vs-screen video", "(video) => video.readyState >= 2")
    assert page.evaluate("() => document.querySelector('.i2vs-screen video').paused")  # the system asks for less motion
    for _ in range(2):
        tab_to(page, focus_in(".i2vs-pick[aria-pressed=false]"))
        page.keyboard.press("Space")
    expect(page.locator(".i2vs-card.chosen")).to_have_count(2)
    tab_to(page, focus_in(".i2vs-clips .i2vs-play"))
    page.keyboard.press("Enter")
    expect(page.locator(".i2vs-player-box video")).to_have_count(2, timeout=WAIT)
    assert said.left() == []
