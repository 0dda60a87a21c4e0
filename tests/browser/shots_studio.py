"""Pictures of the studio, to be looked at: light, dark, narrow, Chinese, while it works, a sweep; in JupyterLab and as a page."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page

from browser.servers import Server
from browser.studio_page import StudioPage, cell, in_lab, in_voila
from i2v_lab import ClipParams, Store, run_clip

CLIPS = [  # sample, prompt, resolution
    ("rocket", "zoom out slowly", "256x384"),
    ("motorcycle", "camera panning right", "256x384"),
    ("astronaut", "zoom in", "256p"),
    ("cat", "镜头向左平移", "256x384"),
    ("cat", "camera panning left slowly", "256x384"),
    ("coffee", "camera panning left slowly", "256x384"),
]


def fill(place: Path) -> None:
    """Some clips to be seen in the strip."""
    store = Store(place / "results")
    for seed, (sample, prompt, size) in enumerate(CLIPS):
        run_clip(
            ClipParams(image=f"sample:{sample}", prompt=prompt, resolution=size, num_inference_steps=25, seed=seed), None, store
        )


def take(server: Server, browser: Browser, out: Path, name: str = "studio-shots") -> list[Path]:
    """Screenshots of a studio below the server's folder; returns the PNGs."""
    place = server.folder / name
    place.mkdir()
    fill(place)
    home = f"import os; os.environ['HOME'] = {str(place)!r}\n"  # so that paths are short
    begin = {"resolution": "256x384", "num_inference_steps": 25, "prompt": "camera panning left slowly"}
    studio = server.write(f"{name}/studio.ipynb", [home + cell(place, **begin)])
    made: list[Path] = []

    def keep(page: Page, kind: str) -> None:
        page.wait_for_timeout(1000)  # fonts, posters, the first frames
        made.append(out / f"studio-{kind}.png")
        page.screenshot(path=made[-1])

    def opened(width: int, height: int, scheme: str, locale: str = "en-US", front: str = "voila") -> StudioPage:
        size = {"width": width, "height": height}
        page = browser.new_context(viewport=size, color_scheme=scheme, locale=locale).new_page()  # type: ignore[arg-type]
        found = in_voila(server, page, studio) if front == "voila" else in_lab(server, page, studio)[0]
        found.page.get_by_role("heading", level=1, name="创作室" if locale == "zh-CN" else "Studio").wait_for()
        found.cards("done").nth(len(CLIPS) - 1).locator("img").wait_for()
        return found

    for scheme, (language, locale), (width, height) in product(
        ("light", "dark"), (("en", "en-US"), ("zh", "zh-CN")), ((1280, 900), (390, 2600))
    ):
        shown = opened(width, height, scheme, locale)
        shown.cards("done").first.locator(".i2vs-open").click()
        shown.plays()
        keep(shown.page, f"{width}-{scheme}-{language}")
        if language == "en" and scheme == "dark":
            shown.page.get_by_role("tab", name="Sweep").click()
            keep(shown.page, f"{width}-{scheme}-{language}-sweep")
        shown.page.context.close()
    shown = opened(1280, 1000, "dark", front="lab")
    keep(shown.page, "lab-dark")
    shown.page.context.close()
    return made + _working(opened(1280, 900, "light"), out)


def _working(studio: StudioPage, out: Path) -> list[Path]:
    """A clip in the making with another that waits; a sweep; its player; two clips compared."""
    page = studio.page
    studio.enter("num_inference_steps", 250)
    studio.enter("num_frames", 64)  # some 20 ms a step
    studio.generate()
    studio.wait_for_step(60)
    studio.enter("seed", 9)
    studio.generate()
    page.locator(".i2vs-queue .i2vs-waiting").wait_for()
    page.screenshot(path=out / "studio-working.png")
    page.locator(".i2vs-queue button").click()
    studio.button("Stop").click()
    studio.enter("num_inference_steps", 10)
    studio.enter("num_frames", 16)
    page.get_by_role("tab", name="Sweep").click()
    page.locator(".i2vs-sweep .i2vs-primary:enabled").click()
    page.locator(".i2vs-sweep .i2vs-card.done img").nth(2).wait_for()
    page.screenshot(path=out / "studio-sweep.png")
    page.locator(".i2vs-sweep .i2vs-card.done img").nth(5).wait_for(timeout=60_000)
    studio.button("Play in step").click()
    page.wait_for_timeout(2500)
    page.screenshot(path=out / "studio-sweep-player.png")
    page.get_by_role("tab", name="Clip").click()
    for number in (0, 1):
        studio.cards("done").nth(number).locator(".i2vs-pick").click()
    page.locator(".i2vs-clips .i2vs-play:enabled").click()
    page.wait_for_timeout(2500)
    page.screenshot(path=out / "studio-compare.png")
    page.context.close()
    return [out / f"studio-{kind}.png" for kind in ("working", "sweep", "sweep-player", "compare")]
