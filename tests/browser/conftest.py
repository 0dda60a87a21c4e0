"""What the browser tests share: a browser, a page in which no script may fail, and a Jupyter server.

Without Chromium the tests are skipped with the reason. In CI a missing Chromium is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from browser.servers import Server, jupyter_server


def find_browser(*names: str) -> str:
    """The program of a browser, by the first of its names that is here; without one the test is skipped, or fails in CI.

    Args:
        names: of the program; the first is Debian's package too.
    """
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"these tests must run in CI, and there is no {names[0]}: apt-get install {names[0]}", pytrace=False)
    pytest.skip(f"there is no {names[0]} (Debian: apt-get install {names[0]})")


def find_chromium() -> str:
    """See `find_browser`."""
    return find_browser("chromium", "chromium-browser")


# One for the folder, not for the session: its event loop would disturb tests that have their own.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # root may have no sandbox
        yield browser
        browser.close()


class Complaints(list[str]):
    """What should not happen on a page and did: errors of scripts, dialogs.

    `allow(word)` accepts those that contain the word.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[str] = []

    def allow(self, word: str) -> None:
        self.allowed.append(word)

    def left(self) -> list[str]:
        return [said for said in self if not any(word in said for word in self.allowed)]


def _answer(dialog: Dialog, said: Complaints) -> None:
    if dialog.type == "beforeunload":  # JupyterLab asks whether a notebook that was not saved may be left
        dialog.accept()
    else:
        said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


OpenPage = Callable[..., tuple[Page, Complaints]]


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """open_page(width=1280, height=900, **context) -> (page, complaints), each in a new browser context; closed at the end."""
    contexts = []

    def make(width: int = 1280, height: int = 900, **options: object) -> tuple[Page, Complaints]:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page, said = context.new_page(), Complaints()
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: _answer(dialog, said))
        return page, said

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: OpenPage) -> Iterator[Page]:
    """A page of 1280 x 900 pixels in which no script may fail and no window may open."""
    opened, said = open_page()
    yield opened
    assert said.left() == []


@pytest.fixture(scope="package")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Jupyter server, which carries JupyterLab and Voilà."""
    find_chromium()
    with jupyter_server(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture
def lab(jupyter: Server) -> Server:
    """The server, for `lab.write("mine/x.ipynb", cells)` and `lab.open_lab(page, "mine/x.ipynb")`."""
    return jupyter


@pytest.fixture
def voila(jupyter: Server) -> Server:
    """The same server, for `voila.open_voila(page, "mine/x.ipynb")`."""
    return jupyter


@pytest.fixture
def place(jupyter: Server, request: pytest.FixtureRequest) -> Path:
    """A folder for one test below the server's root."""
    folder = jupyter.folder / request.node.name.replace("[", "-").replace("]", "")
    folder.mkdir()
    return folder
