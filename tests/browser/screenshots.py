"""Pictures of a report's pages, to be looked at: python tests/browser/screenshots.py FOLDER.

Makes a small sweep with the closed-form model, its page and its report, and PNGs of them: light, dark, narrow, enlarged,
failed cells, long prompts, a list that wraps, and the frames of a notebook.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

from i2v_lab import ClipParams, Store, run_clip
from i2v_lab.report import clip_grid, cost_plots, export_html

LONG = "<script>alert(1)</script><img src=x onerror=...> a cup of coffee whose steam rises slowly into the light of the morning"
SWEEPS = {
    "guidance": [{"guidance_scale": guidance, "seed": seed} for guidance, seed in product((4.5, 9.0, 12.0), (0, 1, 2))],
    "prompts": [{"prompt": prompt, "fps": fps} for prompt, fps in product((LONG, "走着的猫, a cat walking"), (8, 24))],
    "pictures": [{"image": image} for image in ("sample:coffee", "sample:cat", "sample:rocket", "missing.png", "sample:astronaut")],
}


def make_pages(folder: Path) -> None:
    """For each sweep NAME.html, and guidance's report.html."""
    base = {"image": "sample:coffee", "resolution": "128x192", "num_frames": 16, "num_inference_steps": 4}
    store = Store(folder / "results")
    v4 = nbformat.v4
    for name, cells in SWEEPS.items():
        for cell in cells:
            run_clip(ClipParams(**{**base, **cell}), None, store, sweep=name)
        table = store.runs(sweep=name)
        grid = clip_grid(table, list(cells[0]))
        (folder / f"{name}.html").write_text(grid.page(), encoding="utf-8")
        outputs = [v4.new_output("display_data", data={"text/html": grid._repr_html_()})]
        for number, figure in enumerate(cost_plots(table, list(cells[0]))):
            figure.savefig(folder / f"{name}-plot-{number}.png")
            picture = folder / f"{name}-plot-{number}.png"
            outputs.append(
                v4.new_output("display_data", data={"text/html": f'<img src="data:image/png;base64,{_base64(picture)}">'})
            )
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell(f"# {name}"), v4.new_code_cell("", outputs=outputs)])
        nbformat.write(notebook, folder / f"{name}.ipynb")
        export_html(folder / f"{name}.ipynb", folder / f"{name}-report.html")


def _base64(path: Path) -> str:
    import base64

    return base64.b64encode(path.read_bytes()).decode()


def take(pages: Path, out: Path) -> list[Path]:
    """Screenshots of the pages that `make_pages` made, one PNG each."""
    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, kind in product(SWEEPS, ("page", "report")):
            for look, width, scheme in (("light", 1280, "light"), ("dark", 1280, "dark"), ("narrow", 800, "light")):
                page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                page.goto((pages / (f"{name}.html" if kind == "page" else f"{name}-report.html")).as_uri())
                frame = page.frames[-1]
                frame.wait_for_function("() => [...document.querySelectorAll('video')].some((video) => video.currentTime > 0.5)")
                made.append(out / f"{name}-{kind}-{look}.png")
                page.screenshot(path=made[-1], full_page=True)
                if kind == "page":
                    page.locator("figure:not(.bare)").first.click()
                    made.append(out / f"{name}-enlarged-{look}.png")
                    page.screenshot(path=made[-1])
                page.close()
        browser.close()
    return made


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        make_pages(Path(folder))
        for path in take(Path(folder), out):
            print(path)


if __name__ == "__main__":
    main()
