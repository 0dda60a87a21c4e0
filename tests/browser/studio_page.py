"""The studio in a page, driven as a person would: by labels, keys and clicks."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from held import suspend
from playwright.sync_api import Locator, Page

from browser.servers import Server

WAIT = 60_000  # ms, for a busy machine

# Runs code in the notebook's own kernel, as a cell would; returns what it printed.
EXECUTE = """async ([path, code]) => {
  const widget = [...window.jupyterapp.shell.widgets("main")].find((one) => one.context?.path === path);
  const future = widget.sessionContext.session.kernel.requestExecute({ code });
  let said = "";
  future.onIOPub = (message) => { said += message.content.text ?? message.content.evalue ?? ""; };
  await future.done;
  return said;
}"""


def cell(place: Path, **options: object) -> str:
    """A cell with a studio whose clips go to `place`, and whose turns are those of this test alone."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return textwrap.dedent(f"""
        import os
        os.environ["XDG_RUNTIME_DIR"] = {str(place)!r}
        from i2v_lab import Studio
        studio = Studio(output_dir={str(place / "results")!r}{given})
        studio
    """)


class StudioPage:
    """The studio on a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def ready(self) -> StudioPage:
        """Wait until it shows its picture and its first look at the record is over."""
        self.page.locator(".i2vs-zone img:not([hidden])").wait_for(timeout=WAIT)
        return self

    def entry(self, field: str) -> Locator:
        return self.page.locator(f".i2vs-field-{field}").locator("input, textarea, select").first

    def enter(self, field: str, value: object) -> None:
        self.entry(field).fill(str(value))
        if field not in ("prompt", "negative_prompt"):
            self.entry(field).press("Enter")

    def slide(self, field: str, key: str, times: int = 1) -> str:
        """Move a slider by its keys; returns what the entry beside it says then."""
        handle = self.page.locator(f".i2vs-field-{field} [role=slider]")
        before = self.entry(field).input_value()
        handle.focus()
        for _ in range(times):
            handle.press(key)
            self.until(f".i2vs-field-{field} input", f"(entry) => entry.value !== {before!r}")
            before = self.entry(field).input_value()
        return before

    def upload(self, *files: Path) -> None:
        self.page.locator(".i2vs-zone input[type=file]").set_input_files(list(files))

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def generate(self) -> None:
        self.page.locator(".i2vs-left .i2vs-primary:enabled").click(timeout=WAIT)

    def until(self, selector: str, test: str) -> None:
        """Wait until the JavaScript function `test` holds for the first element of `selector`."""
        script = "([selector, test]) => { const found = document.querySelector(selector); return found && eval(test)(found); }"
        self.page.wait_for_function(script, arg=[selector, test], timeout=WAIT)

    def step(self) -> int:
        """The denoising step that is shown; 0 where none is."""
        text = self.page.evaluate("() => document.querySelector('.i2vs-stages .now')?.textContent ?? ''")
        return int(text.split()[1].split("/")[0]) if text.startswith("denoise") and "/" in text else 0

    def wait_for_step(self, above: int) -> int:
        self.until(".i2vs-stages .now", f"(now) => +(now.textContent.match(/denoise (\\d+)/)?.[1] ?? 0) > {above}")
        return self.step()

    def facts(self) -> dict[str, str]:
        """The settings of the clip that is shown."""
        script = "(all) => Object.fromEntries(all.map((one) => [one.dataset.field, one.textContent]))"
        return dict(self.page.eval_on_selector_all("[data-field]", script))

    def plays(self) -> tuple[int, int]:
        """Wait until the clip on the screen plays; returns its width and height."""
        self.until(".i2vs-screen video", "(video) => video.currentTime > 0.2 && !video.paused")
        first = self.page.evaluate("() => document.querySelector('.i2vs-screen video').currentTime")
        self.until(".i2vs-screen video", f"(video) => Math.abs(video.currentTime - {first}) > 0.2")
        width, height = self.page.evaluate(
            "() => { const v = document.querySelector('.i2vs-screen video'); return [v.videoWidth, v.videoHeight]; }"
        )
        return width, height

    def cards(self, status: str) -> Locator:
        return self.page.locator(f".i2vs-clips .i2vs-card.{status}")


def in_lab(server: Server, page: Page, path: str) -> tuple[StudioPage, Callable[[str], str]]:
    """(the studio, what runs code in its kernel) of a notebook opened in JupyterLab."""
    server.open_lab(page, path)
    return StudioPage(page).ready(), lambda code: page.evaluate(EXECUTE, [path, code])


def in_voila(server: Server, page: Page, path: str) -> StudioPage:
    """The studio of a notebook that Voilà shows."""
    server.open_voila(page, path)
    return StudioPage(page).ready()


@contextmanager
def workers_held(above: int, database: Path) -> Iterator[None]:
    """Hold the processes that make clips, all below process `above`: the clip of now is still being made."""

    def works(process: psutil.Process) -> bool:
        try:
            return "i2v_lab.jobs.worker" in process.cmdline()
        except psutil.NoSuchProcess:  # the kernel of a page that was closed has just ended
            return False

    workers = list(filter(works, psutil.Process(above).children(recursive=True)))
    assert workers
    for process in workers:
        suspend(process, database)
    try:
        yield
    finally:
        for process in workers:
            process.resume()
