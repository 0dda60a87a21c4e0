"""Every notebook runs from top to bottom, says first what it is, and is committed without outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean(notebook):
    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    assert content.cells[0].cell_type == "markdown"
    assert len(content.cells[0].source.strip().splitlines()) <= 6
    for cell in content.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_the_studio_makes_a_clip_and_shows_it(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOKS[0].parent / "studio.ipynb", folder)
    papermill.execute_notebook(folder / "studio.ipynb", folder / "done.ipynb", cwd=folder, progress_bar=False)
    done = nbformat.read(folder / "done.ipynb", as_version=4)
    (clip,) = (tmp_path / "results" / "clips").glob("*.mp4")
    shown = [output.data.get("text/html", "") for cell in done.cells if cell.cell_type == "code" for output in cell.outputs
             if output.output_type == "execute_result"]  # fmt: skip
    assert any("data:video/mp4;base64" in html for html in shown)
    assert any("camera panning left slowly" in html and "seconds_total" in html for html in shown)
    assert clip.stat().st_size > 0
