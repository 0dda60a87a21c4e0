"""From a command to a clip that plays in a real browser: `i2v-lab serve`, and `make lab`. Prints; asserts nothing.

    python tests/bench/bench_first_clip.py [REPEATS] [TREE ...]

Each way is walked as a newcomer would: with the address that the command prints, the notebook that is there, and only the clicks
that are needed. What a person types and reads takes no time here. Seconds are since the command, medians over new servers, each
with an empty output folder. It needs Chromium. With two trees each way is walked in one and then in the other.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.conftest import find_chromium
from browser.servers import READY, RUN_ALL, free_port, settings_of
from playwright.sync_api import Browser, Error, Page, sync_playwright

HERE = Path(__file__).parents[2]
WAIT = 120_000  # ms
PLAYS = "() => { const clip = document.querySelector('.i2vs-screen video'); return clip && clip.currentTime > 0 && !clip.paused; }"
GENERATE = ".i2vs-left .i2vs-primary:enabled"


class Served:
    """A command that serves, with its output folder and Jupyter's settings in a new folder. `running` has those to end."""

    running: ClassVar[list[Served]] = []

    def __init__(self, tree: Path, home: Path, words: list[str], folder: Path) -> None:
        self.log = home / "server.log"
        self.environment = {**settings_of(home), "PYTHONPATH": str(tree), "XDG_RUNTIME_DIR": str(home)}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(words, cwd=folder, env=self.environment, stdout=file, stderr=file)
        self.running.append(self)

    def address(self, pattern: str) -> str:
        """The address that it prints."""
        until = time.monotonic() + WAIT / 1000
        while not (found := re.search(pattern, self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"no server: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        return found[0]

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(page: Page, tree: Path, home: Path, passed: Callable[[str], None]) -> None:
    """`i2v-lab serve`, the address, and Generate."""
    server = Served(tree, home, [sys.executable, "-m", "i2v_lab", "serve", "--port", str(free_port())], home)
    address = server.address(r"http://\S+token=\S+(?=\s)")
    passed("the address is printed")
    _go(page, address)
    generate(page, passed)


def _go(page: Page, address: str) -> None:
    """Open an address; again where nobody listens yet."""
    until = time.monotonic() + WAIT / 1000
    while True:
        try:
            page.goto(address, timeout=WAIT)
            return
        except Error:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def lab(page: Page, tree: Path, home: Path, passed: Callable[[str], None]) -> None:
    """What `make lab` runs, the studio's notebook, Run all cells, and Generate."""
    line = re.search(r"jupyter lab (.*)", (tree / "Makefile").read_text())
    options = line[1].split() if line else []
    root = home / "project"
    (root / "notebooks").mkdir(parents=True)
    for notebook in (tree / "notebooks").glob("*.ipynb"):
        (root / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    words = [sys.executable, "-m", "jupyterlab", *options, "--no-browser", f"--port={free_port()}", "--allow-root",
             "--expose-app-in-browser"]  # fmt: skip
    server = Served(tree, home, words, root)
    address = server.address(r"http://127\S+token=\S+(?=\s)")
    passed("the address is printed")
    path = "studio.ipynb" if "--notebook-dir=notebooks" in options else "notebooks/studio.ipynb"
    _go(page, re.sub(r"lab(/tree/\S+)?\?", f"lab/tree/{path}?", address))
    page.wait_for_function("() => window.jupyterapp", timeout=WAIT)
    page.evaluate(READY, path)
    passed("the notebook is open")
    page.evaluate(RUN_ALL)
    generate(page, passed)


def generate(page: Page, passed: Callable[[str], None]) -> None:
    """Wait for the studio; type the prompt where there is none; click Generate; until the clip plays."""
    page.locator(GENERATE).wait_for(timeout=WAIT)
    page.locator(".i2vs-zone img:not([hidden])").wait_for(timeout=WAIT)
    passed("Generate can be clicked")
    prompt = page.locator(".i2vs-field-prompt textarea")
    if not prompt.input_value():
        prompt.fill("camera panning left slowly")
        passed("the prompt is typed")
    page.locator(GENERATE).click(timeout=WAIT)
    passed("Generate is clicked")
    page.wait_for_function(PLAYS, timeout=WAIT)
    passed("the clip plays")


def walk(way: Callable[..., None], browser: Browser, tree: Path) -> list[tuple[str, float]]:
    """(step, seconds since the command) of one new server."""
    steps: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
        began = time.perf_counter()
        try:
            way(context.new_page(), tree, Path(folder), lambda step: steps.append((step, time.perf_counter() - began)))
        finally:
            context.close()
            while Served.running:
                Served.running.pop().end()
    return steps


def main(repeats: int, trees: list[Path]) -> None:
    """Walk each way in each tree `repeats` times, in turn, and print the medians."""
    found: dict[tuple[str, Path], list[list[tuple[str, float]]]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for _ in range(repeats):
            for way in (serve, lab):
                for tree in trees:
                    print(f"{way.__name__} in {tree} ...", file=sys.stderr, flush=True)
                    found.setdefault((way.__name__, tree), []).append(walk(way, browser, tree))
        browser.close()
    for (name, tree), walks in found.items():
        print(f"{'i2v-lab serve' if name == 'serve' else 'make lab'}{f' in {tree}' if len(trees) > 1 else ''}")
        for place, (step, _) in enumerate(walks[0]):
            print(f"    {statistics.median(steps[place][1] for steps in walks):6.2f} s   {step}")
    print(f"(median of {repeats}; load of this machine {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, [Path(word).absolute() for word in sys.argv[2:]] or [HERE])
