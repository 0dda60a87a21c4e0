"""A report as one HTML file: an executed notebook without its code, which opens from disk and needs no network."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

from i2v_lab.clip.publish import partial_file, writing
from i2v_lab.errors import InputError
from i2v_lab.portable import replace
from i2v_lab.report.pieces import report_css
from i2v_lab.report.words import phrase

ASIDE = "aside"
"""The tag of cells that are for those who run the notebook: a report leaves them out, unless they failed."""
# grid.mp4 is beside the file.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; media-src data: blob: file: 'self'; "
    "font-src data:; frame-src data: blob:; base-uri 'none'; form-action 'none'"
)


def export_html(notebook: Path, html: Path) -> Path:
    """Write an executed notebook as one HTML file without its code: it opens from disk and needs no network.

    Pictures and clips are inside; the video of all clips is linked beside it. The page may fetch nothing, so a picture that the
    notebook links to on the network is not shown.

    Args:
        notebook: an .ipynb.
        html: where to; replaced, in one instant, where it exists.

    Returns:
        `html`, absolute.

    Raises:
        InputError: the notebook cannot be read. WriteError: the file cannot be written.
    """
    import nbformat
    from nbconvert import HTMLExporter

    notebook, html = Path(notebook).absolute(), Path(html).absolute()
    try:
        node = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise InputError(f"{notebook}: expected a notebook, which cannot be read ({error})") from None
    node.metadata.pop("widgets", None)  # they would be fetched
    node.cells = [cell for cell in node.cells if ASIDE not in cell.metadata.get("tags", ()) or _failed(cell)]
    exporter = HTMLExporter(template_name="basic")  # type: ignore[no-untyped-call]
    exporter.exclude_input = exporter.exclude_output_prompt = exporter.exclude_anchor_links = True
    exporter.embed_images = True
    body, _ = exporter.from_notebook_node(node, resources={"metadata": {"name": notebook.stem, "path": str(notebook.parent)}})
    with partial_file(html.parent, html.stem, "html") as partial, writing(html.parent):
        partial.write_text(_page(body, notebook.stem), encoding="utf-8")
        replace(partial, html)
    return html


def _failed(cell: object) -> bool:
    return any(output.output_type == "error" for output in getattr(cell, "outputs", ()))


def _page(body: str, name: str) -> str:
    """The document: switches, and all else in its main part."""
    own, script = (files("i2v_lab.report").joinpath(part).read_text(encoding="utf-8") for part in ("page.css", "page.js"))
    body = body.replace(f"<style>{report_css()}</style>", "")  # of each piece; once is enough
    title = f"<h1>{escape(name)}</h1>" if "<h1" not in body else ""
    languages = '<button type="button" class="i2v-zh" lang="en" data-name="language" data-value="en">English</button>' \
                '<button type="button" class="i2v-en" lang="zh" data-name="language" data-value="zh">中文</button>'  # fmt: skip
    themes = "".join(
        f'<button type="button" class="i2v-theme" data-name="theme" data-value="{theme}">{phrase(f"page.{theme}").html()}</button>'
        for theme in ("light", "dark")
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en" data-lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(name)}</title>\n<style>\n{report_css()}\n{own}</style>\n<script>\n{script}</script>\n</head>\n<body>\n"
        f'<header class="i2v-switches">{languages}{themes}</header>\n<main>\n{title}{body}\n</main>\n</body>\n</html>\n'
    )
