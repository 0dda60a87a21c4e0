"""How soon a hundred clips can be seen: made ready by Python, opened as a page from disk, and as a widget in JupyterLab.

Times are the machine's of the moment, so the load is printed beside them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.servers import jupyter_server
from playwright.sync_api import Browser, sync_playwright

from i2v_lab import compare
from i2v_lab.clip import video
from i2v_lab.report.player.page import clip_grid

CLIPS, DISTINCT = 100, 10
# Every clip that is seen at least in part has its file, and shows a frame.
SEEN = """() => {
  const videos = [...document.querySelectorAll(".i2v-slot video")];
  if (videos.length !== 100) return false;
  const scroll = document.querySelector(".i2v-scroll").getBoundingClientRect();
  const low = Math.min(scroll.bottom, innerHeight);
  const seen = videos.filter((video) => { const box = video.getBoundingClientRect(); return box.bottom > scroll.top && box.top < low; });
  return seen.length > 0 && seen.every((video) => video.readyState >= 2) ? seen.length : false;
}"""


def make_clips(folder: Path) -> pd.DataFrame:
    """A table of 100 clips of 256x256 pixels, 16 frames."""
    rng = np.random.default_rng(0)
    place = np.linspace(0, 6, 256)
    table = []
    for number in range(CLIPS):
        path = folder / f"{number}.mp4"
        if number < DISTINCT:
            x, y, seed = place[None, :, None], place[:, None, None], rng.uniform(0, 6, 3)
            frames = [np.uint8(127 + 60 * np.sin(x + seed + frame / 4) + 60 * np.cos(2 * y + seed)) for frame in range(16)]
            video.write(frames, folder, stem=str(number), fps=8)
        else:
            shutil.copy(folder / f"{number % DISTINCT}.mp4", path)
        table.append({"clip": str(path), "seed": number, "status": "done", "seconds_total": rng.uniform(1, 9)})
    return pd.DataFrame(table)


def page_seconds(browser: Browser, page_file: Path) -> tuple[float, int]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    page.goto(page_file.as_uri())
    seen = page.wait_for_function(SEEN, timeout=120_000).json_value()
    return time.perf_counter() - start, seen


def lab_seconds(browser: Browser, folder: Path) -> tuple[float, int]:
    """From the start of the cell to the last clip in view; the package is imported before."""
    with jupyter_server(folder) as server:
        server.write("y.ipynb", ["import pandas as pd\nfrom i2v_lab import compare\nimport i2v_lab.widgets.live, cv2", "",
                                 "compare(pd.read_pickle('table.pkl'))"])  # fmt: skip
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        server.open_lab(page, "y.ipynb", run=False)
        commands = "window.jupyterapp.commands.execute"
        page.evaluate(f"async () => {{ await {commands}('notebook:run-cell-and-select-next'); }}")
        page.evaluate(f"async () => {{ await {commands}('notebook:move-cursor-down'); }}")
        start = time.perf_counter()
        page.evaluate(f"async () => {{ await {commands}('notebook:run-cell'); }}")
        seen = page.wait_for_function(SEEN, timeout=120_000).json_value()
        return time.perf_counter() - start, seen


def main() -> None:
    program = shutil.which("chromium")
    if not program:
        print("skipped: there is no chromium")
        return
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        table = make_clips(folder)
        table.to_pickle(folder / "table.pkl")
        size = sum(Path(clip).stat().st_size for clip in table["clip"])
        print(f"{CLIPS} clips, {size / 1e6:.1f} MB; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        start = time.perf_counter()
        compare(table)
        print(f"compare() in Python: {time.perf_counter() - start:.2f} s (once more, all imported:", end=" ")
        start = time.perf_counter()
        compare(table)
        print(f"{time.perf_counter() - start:.2f} s)")
        start = time.perf_counter()
        (folder / "page.html").write_text(clip_grid(table, ["seed"]).page(), encoding="utf-8")
        print(f"clip_grid().page(): {time.perf_counter() - start:.2f} s")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        seconds, seen = page_seconds(browser, folder / "page.html")
        print(f"the page from disk, until the {seen} clips in view show: {seconds:.2f} s")
        seconds, seen = lab_seconds(browser, folder)
        print(f"the cell in JupyterLab, until the {seen} clips in view show: {seconds:.2f} s")
        print(f"load {os.getloadavg()[0]:.1f}")
        browser.close()


if __name__ == "__main__":
    main()
