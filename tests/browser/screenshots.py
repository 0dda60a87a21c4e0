"""Screenshots of every page, for a person to look at: python tests/browser/screenshots.py FOLDER [WORD ...]

Makes small sweeps with the closed-form model and a Jupyter server, and PNGs: pages of clips (light, dark, narrow, enlarged, sorted,
as a wipe and a difference; failed cells, long prompts, a list that wraps), a sweep's report, the notebook
compare (in JupyterLab and Voilà), and the studio (`shots_studio.take(browser, server, out)`). With words, only these
groups: pages, compare, studio.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.servers import Server, jupyter_server
from i2v_lab import ClipParams, Store, run_clip
from i2v_lab.report import clip_grid

ROOT = Path(__file__).parents[2]
LONG = "<script>alert(1)</script><img src=x onerror=...> a cup of coffee whose steam rises slowly into the light of the morning"
SWEEPS = {
    "guidance": [{"guidance_scale": guidance, "seed": seed} for guidance, seed in product((4.5, 9.0, 12.0), (0, 1, 2))],
    "prompts": [{"prompt": prompt, "fps": fps} for prompt, fps in product((LONG, "走着的猫, a cat walking"), (8, 24))],
    "pictures": [{"image": image} for image in ("sample:coffee", "sample:cat", "sample:rocket", "missing.png", "sample:astronaut")],
}
BASE = {"image": "sample:coffee", "resolution": "128x192", "num_frames": 16, "num_inference_steps": 4}
LOOKS = (("light", 1280, "light"), ("dark", 1280, "dark"), ("narrow", 800, "light"), ("narrow-dark", 800, "dark"))
PLAYING = "() => [...document.querySelectorAll('video')].some((video) => video.currentTime > 0.5)"


def make_pages(folder: Path) -> None:
    """NAME.html for each sweep, and the report of experiments/guidance.yaml."""
    store = Store(folder / "results")
    for name, cells in SWEEPS.items():
        for cell in cells:
            run_clip(ClipParams(**{**BASE, **cell}), None, store, sweep=name)
        grid = clip_grid(store.runs(sweep=name), list(cells[0]), best="seconds_total", best_is="lowest")
        (folder / f"{name}.html").write_text(grid.page(), encoding="utf-8")
    command = [sys.executable, "-m", "i2v_lab", "sweep", ROOT / "experiments" / "guidance.yaml", "--output-dir", store.directory]
    subprocess.run(command, cwd=folder, check=True)


class Shots:
    """Takes pictures into a folder.

    Attributes:
        made: those that were taken.
    """

    def __init__(self, browser: Browser, out: Path) -> None:
        self.browser, self.out = browser, out
        self.made: list[Path] = []

    def page(self, width: int, scheme: str, height: int = 800) -> Page:
        return self.browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]

    def take(self, page: Page, name: str, *, full: bool = False) -> None:
        self.made.append(self.out / f"{name}.png")
        page.screenshot(path=self.made[-1], full_page=full)


def take_pages(shots: Shots, folder: Path) -> None:
    """The pages that `make_pages` made."""
    for name, (look, width, scheme) in product(SWEEPS, LOOKS[:3]):
        page = shots.page(width, scheme)
        page.goto((folder / f"{name}.html").as_uri())
        page.wait_for_function(PLAYING)
        shots.take(page, f"{name}-page-{look}", full=True)
        page.locator("figure:not(.bare)").first.click()
        shots.take(page, f"{name}-enlarged-{look}")
        page.keyboard.press("Escape")
        take_tools(shots, page, f"{name}-{{}}-{look}")
        page.close()
    (report,) = folder.glob("results/sweeps/guidance-*/report.html")
    for look, width, scheme in LOOKS:
        page = shots.page(width, scheme, 950)
        page.goto(report.as_uri())
        page.frames[1].wait_for_function(PLAYING)  # later frames are folded
        shots.take(page, f"report-top-{look}")
        shots.take(page, f"report-{look}", full=True)
        page.close()


def take_tools(shots: Shots, page: Page, name: str) -> None:
    """Sorted and filtered; two clips as a wipe, and their difference."""
    playing = page.locator("figure:has(video)")
    for one in (playing.first, playing.last):
        one.click(modifiers=["Shift"])
    page.get_by_label("sort by").select_option("seconds_total")
    page.get_by_role("button", name="filter").click()
    shots.take(page, name.format("sorted"))
    for mode in ("wipe", "difference"):
        page.locator(".i2v-pair-buttons").get_by_role("button", name=mode, exact=True).click()
        page.wait_for_function(
            "() => [...document.querySelectorAll('.i2v-pair-view video')].every((video) => video.readyState >= 2)"
        )
        shots.take(page, name.format(mode))
        page.keyboard.press("Escape")


def take_compare(shots: Shots, server: Server) -> None:
    """The notebook compare, on the sweep of guidance."""
    place = server.folder / "shots"
    shutil.copytree(ROOT / "notebooks", place / "notebooks")
    store = Store(place / "results")
    for cell in SWEEPS["guidance"]:
        run_clip(ClipParams(**{**BASE, "prompt": "camera panning left slowly", **cell}), None, store)
    for look, width, scheme in LOOKS:
        page = shots.page(width, scheme, 3200)
        server.open_lab(page, "shots/notebooks/compare.ipynb")
        page.wait_for_function(PLAYING)
        shots.take(page, f"compare-lab-{look}")
        page.close()
    page = shots.page(1280, "light", 2600)
    server.open_voila(page, "shots/notebooks/compare.ipynb")
    page.wait_for_function(PLAYING)
    page.get_by_role("button", name="Equal").click()
    page.get_by_role("button", name="Show the ranking").click()
    page.wait_for_timeout(500)
    shots.take(page, "compare-voila", full=True)
    page.close()


def take_studio(shots: Shots, server: Server) -> None:
    """What the studio's own pictures are."""
    from browser import shots_studio

    shots.made += shots_studio.take(server, shots.browser, shots.out)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out, words = Path(sys.argv[1]).absolute(), sys.argv[2:]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shots = Shots(playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]), out)
        if not words or "pages" in words:
            make_pages(Path(folder))
            take_pages(shots, Path(folder))
        served: dict[str, Callable[[Shots, Server], None]] = {"compare": take_compare, "studio": take_studio}
        if chosen := [take for word, take in served.items() if not words or word in words]:
            (Path(folder) / "served").mkdir()
            with jupyter_server(Path(folder) / "served") as server:
                for take in chosen:
                    take(shots, server)
        shots.browser.close()
        for path in shots.made:
            print(path)


if __name__ == "__main__":
    main()
