"""The web page at `/` in a real browser: as people who never open a notebook see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect
from servers import TOKEN, Server, wait_for

from browser.axe import violations
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


def open_studio(page: Page, server: Server) -> StudioPage:
    page.goto(f"{server.url}/?token={TOKEN}", timeout=WAIT)
    return StudioPage(page).ready()


def kernels(server: Server) -> list[psutil.Process]:
    """The kernels of pages: not the one that is ready for the next."""
    assert server.process
    found = [child for child in psutil.Process(server.process.pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in found if "ipykernel_launcher" in child.cmdline() and "exec_lines" not in " ".join(child.cmdline())]


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
    first = open_studio(page, served)
    assert TOKEN not in page.url  # a cookie has it from now on
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


class Whole:
    """A page that needs no other host, and nobody's eyes or mouse."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.asked, self.failed = page, list[str](), list[str]()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("requestfailed", lambda request: self.failed.append(request.url))
        page.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
        self.own = (server.url, "data:", "blob:")

    def check(self, language: str) -> None:
        page = self.page
        assert [url for url in self.asked if not url.startswith(self.own)] == []
        assert self.failed == []
        assert page.locator("html").get_attribute("lang") == language
        assert page.locator("main h1").count() == 1
        assert violations(page, include_moderate=True) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_without_the_token_the_page_asks_for_it_and_then_is_whole(served: Server, open_page: OpenPage) -> None:
    page, said = open_page(locale="en-GB")
    whole = Whole(page, served)
    answer = page.goto(served.url, timeout=WAIT)
    assert answer is not None
    assert answer.status == 403
    assert violations(page, include_moderate=True) == []
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    page.wait_for_url("**/voila/render/notebooks/studio.ipynb", timeout=WAIT)
    StudioPage(page).ready()
    whole.check("en")
    assert said.left() == []


@pytest.mark.slow
def test_the_page_is_whole_in_chinese_in_the_dark_on_a_phone(served: Server, open_page: OpenPage) -> None:
    page, said = open_page(390, 844, locale="zh-CN", color_scheme="dark")
    whole = Whole(page, served)
    open_studio(page, served)
    expect(page.locator(".i2vs-left .i2vs-primary")).to_have_text("生成")
    whole.check("zh")
    assert said.left() == []


@pytest.mark.slow
def test_pages_that_are_closed_leave_no_kernel(served: Server, open_page: OpenPage) -> None:
    before = {kernel.pid for kernel in kernels(served)}  # of pages that other tests did not close as people do
    page, _ = open_page()
    pages = [page, *(page.context.new_page() for _ in range(3))]
    for one in pages:
        open_studio(one, served)
    pages[0].reload()
    StudioPage(pages[0]).ready()
    wait_for(lambda: len(served.get("/api/kernels").json()) <= len(before) + len(pages) + 1)  # and the one that is ready
    for one in pages:
        one.close(run_before_unload=True)
    wait_for(lambda: not {kernel.pid for kernel in kernels(served)} - before)
    wait_for(lambda: len(served.get("/api/kernels").json()) <= len(before) + 1)


@pytest.mark.slow
def test_a_clip_goes_on_when_its_page_is_closed_and_a_new_page_shows_it(
    served: Server, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", served.environment()["XDG_RUNTIME_DIR"])
    page, _ = open_page()
    with turn(("cpu",), "a test", lambda line: None):
        ask(open_studio(page, served), 20, 31)
        expect(page.get_by_text("waiting for a test").first).to_be_visible(timeout=WAIT)
        tab = page.context.new_page()
        page.close(run_before_unload=True)
        wait_for(lambda: len(served.get("/api/kernels").json()) <= 1)
        again = open_studio(tab, served)
        expect(tab.get_by_text("waiting for a test").first).to_be_visible(timeout=WAIT)
    assert again.plays() == (256, 256)
    (record,) = [one for one in Store(served.folder / "made here").records() if one.params and one.params.seed == 31]
    assert record.status == "done"
