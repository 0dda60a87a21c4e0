"""Sixteen clips of different rates and lengths, and how far each is from the clock: SECONDS of it, printed.

python tests/browser/soak.py 60
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from sweeps import make_sweep

from i2v_lab.report.player.page import clip_grid

RATES = ("8", "12", "24", "24000/1001")
LENGTHS = (12, 16, 24, 40)  # frames

# At every picture of the screen: how many frames (its own) each playing clip is from the clock, which the longest leads.
WATCH = """(seconds) => new Promise((done) => {
  const videos = [...document.querySelectorAll("video")];
  const longest = videos.reduce((a, b) => (b.duration > a.duration ? b : a));
  const found = { samples: 0, late: 0, worst: 0, loops: 0, shown: 0 };
  const until = performance.now() + 1000 * seconds;
  let before = 0;
  const look = (now) => {
    const clock = longest.currentTime;
    if (clock < before - 0.5) found.loops += 1;
    before = clock;
    videos.forEach((video, index) => {
      if (clock > video.duration - 1.5 / RATES[index]) return; // it is over, and holds its last frame
      const off = Math.abs(video.currentTime - clock) * RATES[index];
      found.samples += 1;
      found.late += off > 1;
      found.worst = Math.max(found.worst, off);
    });
    found.shown += 1;
    if (now < until) requestAnimationFrame(look);
    else done(found);
  };
  requestAnimationFrame(look);
})"""


def make_page(folder: Path) -> Path:
    """A page of 4 x 4 clips, 96x64 pixels each; rates across, lengths down."""
    cells = [{"num_frames": count, "fps": rate} for count, rate in product(LENGTHS, RATES)]
    page = folder / "soak.html"
    page.write_text(clip_grid(make_sweep(folder, cells), ["num_frames", "fps"]).page(), encoding="utf-8")
    return page


def watch(page: Page, seconds: float) -> dict[str, Any]:
    """Watch the opened page.

    Returns:
        samples: clips looked at, over all pictures; late: those over one frame of their own from the clock; worst: the
        farthest, in frames; loops; shown: pictures of the screen.
    """
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((video) => video.currentTime > 0)")
    # In the order of the page: rates stand in columns, upwards, so 8, 12, 23.976, 24.
    rates = json.dumps([8, 12, 24000 / 1001, 24] * 4)
    return page.evaluate(WATCH.replace("RATES", rates), seconds)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, offline=True)
        page.goto(make_page(Path(folder)).as_uri())
        before = os.getloadavg()[0]
        found = watch(page, float(sys.argv[1]))
        browser.close()
    print(
        f"load {before:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {found['shown']} pictures, {found['loops']} loops"
    )
    print(f"{found['late']} of {found['samples']} samples over one frame from the clock; the farthest {found['worst']:.2f} frames")


if __name__ == "__main__":
    main()
