"""Pictures of the studio, to be looked at: light, dark, narrow, Chinese, while it works, a sweep; in JupyterLab and as a page."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page

from browser.servers import Server
from browser.studio_page import StudioPage, cell, in_lab, in_voila
from i2v_lab import ClipParams, Store, run_clip

EVIL = "<script>alert(1)</script><img src=x onerror=...> steam that rises slowly into the light of the morning"


def fill(place: Path) -> None:
    """Some clips to be seen in the strip: several pictures and prompts, one that failed."""
    store = Store(place / "results")
    cells = [
        ("cat", "camera panning left slowly"),
        ("rocket", "zoom in"),
        ("astronaut", EVIL),
        ("coffee", "镜头向左平移"),
        ("coffee", "ocean waves"),
    ]
    for seed, (sample, prompt) in enumerate(cells):
        size = "256x384" if seed % 2 else "256p"
        run_clip(
            ClipParams(image=f"sample:{sample}", prompt=prompt, resolution=size, num_inference_steps=10, seed=seed), None, store
        )
    run_clip(ClipParams(image="missing.png", prompt="a picture that is not there"), None, store)


def take(server: Server, browser: Browser, out: Path, name: str = "studio-shots") -> list[Path]:
    """Screenshots of a studio below the server's folder; returns the PNGs."""
    place = server.folder / name
    place.mkdir()
    fill(place)
    english = server.write(f"{name}/studio.ipynb", [cell(place, resolution="256p", prompt="camera panning left slowly")])
    chinese = server.write(f"{name}/zh.ipynb", [cell(place, lang="zh", resolution="256p", prompt="镜头向左平移")])
    made: list[Path] = []

    def keep(page: Page, kind: str) -> None:
        page.wait_for_timeout(1000)  # fonts, posters, the first frames
        made.append(out / f"studio-{kind}.png")
        page.screenshot(path=made[-1])

    def opened(path: str, width: int, height: int, scheme: str, front: str = "voila") -> StudioPage:
        page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()  # type: ignore[arg-type]
        studio = in_voila(server, page, path) if front == "voila" else in_lab(server, page, path)[0]
        studio.cards("done").nth(4).locator("img").wait_for()
        return studio

    for kind, width, height, scheme, path in (
        ("light", 1280, 900, "light", english), ("dark", 1280, 900, "dark", english),
        ("narrow", 800, 1500, "light", english), ("chinese", 1280, 1000, "light", chinese),
    ):  # fmt: skip
        studio = opened(path, width, height, scheme)
        studio.cards("done").nth(0).locator(".i2vs-open").click()
        studio.plays()
        studio.enter("guidance_scale", 4)
        if kind in ("narrow", "chinese"):
            studio.page.locator(".i2vs-fold .jupyter-widget-Collapse-header").click()
        if kind == "dark":
            studio.enter("num_frames", 999)
        keep(studio.page, kind)
        studio.page.context.close()
    for scheme, (width, height) in product(("light", "dark"), ((1280, 1000),)):
        own = server.write(f"{name}/lab-{scheme}.ipynb", [cell(place, resolution="256p", prompt="camera panning left slowly")])
        studio = opened(own, width, height, scheme, "lab")
        studio.cards("done").nth(0).locator(".i2vs-open").click()
        studio.page.locator(".i2vs-screen video").wait_for()
        studio.page.locator(".i2vs-head").scroll_into_view_if_needed()  # a muted clip out of sight is paused by the browser
        keep(studio.page, f"lab-{scheme}")
        studio.page.context.close()
    made += _working(opened(english, 1280, 900, "light"), out)
    return made


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
