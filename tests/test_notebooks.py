"""Every notebook runs from top to bottom, says first what it is, and is committed without outputs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
from sweeps import EVIL, make_sweep

from i2v_lab import compare, runs

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


def run(name: str, folder: Path) -> list[nbformat.NotebookNode]:
    """Execute a notebook in `folder`/notebooks; the outputs of its cells."""
    (folder / "notebooks").mkdir()
    shutil.copy(NOTEBOOKS[0].parent / name, folder / "notebooks")
    place = folder / "notebooks"
    papermill.execute_notebook(place / name, place / "done.ipynb", cwd=place, progress_bar=False, store_widget_state=False)
    done = nbformat.read(place / "done.ipynb", as_version=4)
    return [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(outputs: list[nbformat.NotebookNode], kind: str) -> list[str]:
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def test_compare_shows_the_runs_of_the_output_folder(tmp_path):
    make_sweep(tmp_path, [{"seed": seed, "prompt": EVIL} for seed in (0, 1)])
    outputs = run("compare.ipynb", tmp_path)
    assert [output for output in outputs if output.output_type == "stream"] == []
    names = shown(outputs, "text/plain")
    assert "RunTable(2 of 2 runs chosen)" in names and "ClipPlayer(1 x 2, 2 clips)" in names
    assert any(name.startswith("BlindVotes") for name in names)
    pages = shown(outputs, "text/html")
    assert sum(page.count('<img src="data:image/jpeg;base64,') for page in pages) >= 2
    assert not any("<script>alert" in page for page in pages)
    assert shown(outputs, "image/png")  # what they cost


def test_compare_without_runs_says_what_to_do(tmp_path):
    outputs = run("compare.ipynb", tmp_path)
    assert "RunTable(0 of 0 runs chosen)" in shown(outputs, "text/plain")
    assert any("make a clip in studio.ipynb" in page for page in shown(outputs, "text/html"))
    assert not shown(outputs, "image/png")


def test_the_studio_runs(tmp_path):
    outputs = run("studio.ipynb", tmp_path)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert outputs


@pytest.mark.slow
def test_the_quickstart_runs_alone(tmp_path):
    shutil.copy(NOTEBOOKS[0].parent / "quickstart.ipynb", tmp_path)
    words = ["-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done.ipynb", "quickstart.ipynb"]
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
    outputs = [output for cell in nbformat.read(tmp_path / "done.ipynb", as_version=4).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    names = shown(outputs, "text/plain")
    assert sum(name.startswith("ClipPlayer(") for name in names) == 3
    assert any(name.startswith("Studio(") for name in names)
    assert len(list((tmp_path / "results" / "clips").glob("*.mp4"))) == 5


def test_the_quickstart_says_what_to_do_where_the_package_is_missing(tmp_path):
    cells = [cell.source for cell in nbformat.read(NOTEBOOKS[0].parent / "quickstart.ipynb", as_version=4).cells[1:3]]
    done = subprocess.run(  # without site-packages nothing but the standard library is there
        [sys.executable, "-I", "-S", "-c", "\n".join(cells)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("i2v_lab is not installed here: set SOURCE in the cell above")
    assert done.stderr.count("\n") == 1


def test_the_table_of_runs_works_with_the_pandas_of_colab(tmp_path, monkeypatch):
    def before_2_3(storage=None):  # it takes no na_value
        raise AssertionError("only asked for with na_value")

    make_sweep(tmp_path, [{"seed": seed, "prompt": EVIL} for seed in (0, 1)])
    known = runs(tmp_path / "results")
    monkeypatch.setattr(pd, "StringDtype", before_2_3)
    table = runs(tmp_path / "results")
    for column in ("prompt", "clip", "fps", "height", "seed", "status"):
        assert list(table[column]) == list(known[column])
    assert repr(compare(table)) == "ClipPlayer(1 x 2, 2 clips)"
