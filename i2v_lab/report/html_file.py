"""A report as one HTML file: an executed notebook without its code, which opens from disk and needs no network."""

from __future__ import annotations

from pathlib import Path

from i2v_lab.clip.publish import partial_file, writing
from i2v_lab.errors import InputError
from i2v_lab.portable import replace

# nbconvert's template without what it fetches from the network, and with the dark theme where the reader prefers it.
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';
 img-src data: blob:; media-src data: blob:; font-src data:; frame-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="color-scheme" content="light dark">
{{ resources.include_css("static/theme-dark.css") | replace("<style", "<style media='(prefers-color-scheme: dark)'") }}
<style>
body { background: var(--jp-layout-color0); color: var(--jp-content-font-color1); max-width: 1280px; margin: 0 auto; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
.jp-OutputPrompt, .jp-InputPrompt { display: none; }
</style>
{%- endblock -%}
"""


def export_html(notebook: Path, html: Path) -> Path:
    """Write an executed notebook as one HTML file without its code: it opens from disk and needs no network.

    Pictures and clips are inside. The page may fetch nothing, so a picture that the notebook links to on the network is not
    shown.

    Args:
        notebook: an .ipynb.
        html: where to; replaced, in one instant, where it exists.

    Returns:
        `html`, absolute.

    Raises:
        InputError: the notebook cannot be read. WriteError: the file cannot be written.
    """
    import nbformat
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    notebook, html = Path(notebook).absolute(), Path(html).absolute()
    try:
        node = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise InputError(f"{notebook}: expected a notebook, which cannot be read ({error})") from None
    node.metadata.pop("widgets", None)  # they would be fetched
    exporter = HTMLExporter(extra_loaders=[DictLoader({"report.html.j2": _TEMPLATE})], template_file="report.html.j2")  # type: ignore[no-untyped-call]
    exporter.exclude_input = True
    exporter.embed_images = True
    page, _ = exporter.from_notebook_node(node, resources={"metadata": {"name": notebook.stem, "path": str(notebook.parent)}})
    with partial_file(html.parent, html.stem, "html") as partial, writing(html.parent):
        partial.write_text(page, encoding="utf-8")
        replace(partial, html)
    return html
