"""The web page at `/` in a real browser: as people who never open a notebook see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from servers import TOKEN, Server

from browser.conftest import OpenPage, find_chromium
from browser.studio_page import WAIT, StudioPage
from i2v_lab import Store
from i2v_lab.devices.turns import turn


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`i2v-lab serve` with another output folder than the notebook's own."""
    find_chromium()
    server = Server(tmp_path_factory.mktemp("page"), "--output-dir", "made here", I2V_LAB_MODEL="closed-form")
    yield server.start()
    server.end()


def ask(studio: StudioPage, steps: int, seed: int) -> None:
    """Fill in a small clip and press Generate."""
    for field, value in (("resolution", "256p"), ("num_frames", 8), ("num_inference_steps", steps), ("seed", seed)):
        studio.enter(field, value)
    studio.enter("prompt", "camera panning left slowly")
    studio.generate()


@pytest.mark.slow
def test_two_tabs_each_get_their_clip_one_after_the_other(
    served: Server, open_page: OpenPage, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, said = open_page()
    page.goto(f"{served.url}/?token={TOKEN}", timeout=WAIT)
    assert TOKEN not in page.url  # a cookie has it from now on
    first = StudioPage(page).ready()
    before = page.locator(".i2vs-zone img").get_attribute("src")
    first.upload(photograph)
    first.until(".i2vs-zone img", f"(image) => image.src !== {before!r}")
    tab = page.context.new_page()
    tab.goto(served.url, timeout=WAIT)
    second = StudioPage(tab).ready()
    page.bring_to_front()  # a browser lets the pages behind it sleep
    monkeypatch.setenv("XDG_RUNTIME_DIR", served.environment()["XDG_RUNTIME_DIR"])
    with turn(("cpu",), "a test", lambda line: None):  # neither is done before both are asked for
        ask(first, 100, 1)
        expect(page.get_by_text("waiting for a test").first).to_be_visible(timeout=WAIT)
        tab.bring_to_front()
        ask(second, 5, 2)
        expect(tab.get_by_text("waiting for a test").first).to_be_visible(timeout=WAIT)
    assert second.plays() == (256, 256)
    page.bring_to_front()
    assert first.plays() == (256, 256)
    records = Store(served.folder / "made here").records(status="done")
    assert [record.params.seed for record in records if record.params] == [1, 2]
    assert records[0].finished is not None
    assert records[1].finished is not None
    assert records[0].finished <= records[1].finished
    assert not (served.folder / "results").exists()
    assert said.left() == []


def test_without_the_token_the_page_asks_for_it(served: Server, open_page: OpenPage) -> None:
    page, _ = open_page()
    answer = page.goto(served.url, timeout=WAIT)
    assert answer is not None
    assert answer.status == 403
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    page.wait_for_url("**/voila/render/notebooks/studio.ipynb", timeout=WAIT)
    StudioPage(page).ready()
