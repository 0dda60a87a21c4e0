"""A sweep as a notebook: papermill, the kernel, the command. Every notebook here is really executed."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import psutil
import pytest
from conftest import start

from i2v_lab import models
from i2v_lab.errors import SweepError
from i2v_lab.models.fake import FakeModel
from i2v_lab.report import notebook
from i2v_lab.report.notebook import check_parameters
from i2v_lab.settings import Cluster, Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, load_sweep

ROOT = Path(__file__).parent.parent
BOOKS = ROOT / "tests" / "notebooks"
BASE = {"image": "sample:coffee", "prompt": "zoom in", "resolution": "64x64", "num_frames": 3, "num_inference_steps": 2}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write(folder: Path, name: str, **fields: object) -> Path:
    """A tiny sweep in a file."""
    path = folder / f"{name}.yaml"
    path.write_text(Sweep(**{"name": name, "base": {**BASE, "model": "fake"}, **fields}).to_yaml())
    return path


def test_the_notebook_takes_what_the_package_passes(tmp_path: Path) -> None:
    found = papermill.inspect_notebook(notebook.shipped("notebooks/sweep.ipynb"))
    everything = Settings(parallel=2, cluster=Cluster(address="local"))
    given = notebook.parameters(Sweep(base=BASE), Store(tmp_path), everything)
    assert list(found) == list(given)
    assert {about["inferred_type_name"] for about in found.values()} == {"str"}
    assert all(about["help"] for about in found.values())
    default = str(found["sweep"]["default"]).strip('"')
    assert load_sweep(notebook.shipped("notebooks/sweep.ipynb").parent / default).name == "guidance"  # opened by hand, it runs


@pytest.mark.parametrize(("name", "why"), [
    ("no_parameters", "has no cell tagged `parameters`"),
    ("misspelt_parameter", "has no parameter retry; did you mean rety?"),
    ("wrong_type", "notebook parameter retry: expected int such as 0, got str ''"),
    ("derived_parameter", "expected literals such as retry = '', got 'half = len(sweep) // 2'"),
])  # fmt: skip
def test_wrong_parameters_stop_it_before_anything_runs(name: str, why: str, tmp_path: Path, inside: Run) -> None:
    file = write(tmp_path, "one")
    ended = inside("sweep", file, "--notebook", BOOKS / f"{name}.ipynb")
    assert ended.returncode == 2
    assert why in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "results" / "sweeps").exists()


def test_a_number_may_be_written_without_its_point() -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x: float = 1.5", metadata={"tags": ["parameters"]})])
    assert check_parameters(book, {"x": 2}) == {"x": 1.5}
    with pytest.raises(SweepError, match=r"x: expected float such as 1.5, got bool True"):
        check_parameters(book, {"x": True})


def test_two_files_load_the_model_once_and_their_notebooks_run_no_file_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    for folder in (here, temporary):
        folder.mkdir()
    for name in ("ipykernel_launcher", "ipykernel", "i2v_lab", "numpy", "torch", "ast"):
        (here / f"{name}.py").write_text("open('it ran', 'w')")
    before = sorted(here.iterdir())
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    loads: list[str] = []
    monkeypatch.setattr(FakeModel, "__init__", lambda self: loads.append("fake"))
    models.unload()
    sweeps = [Sweep(name=name, base={**BASE, "prompt": name, "model": "fake"}) for name in ("left", "right")]
    reports = notebook.execute(sweeps, Store(tmp_path / "results"), Settings(), notebook=BOOKS / "which_kernel.ipynb")
    assert [(report.result.counts, report.problem) for report in reports] == [({"done": 1}, "")] * 2
    assert loads == ["fake"]
    for report in reports:
        book = nbformat.read(report.result.folder / "report.ipynb", as_version=4)
        assert book.cells[-1].outputs[0].text.startswith("0 made in process ")  # it found the clips made
    assert sorted(here.iterdir()) == before
    assert not list(temporary.iterdir())  # sockets and connection files are gone


@pytest.mark.slow
def test_two_files_in_one_call_have_a_report_each(tmp_path: Path, i2v_lab: Run) -> None:
    before = notebook.shipped("notebooks/sweep.ipynb").read_bytes()
    base = {**BASE, "model": "closed-form"}
    files = [write(tmp_path, name, base={**base, "prompt": name}, seeds=[0, 1]) for name in ("left", "right")]
    ended = i2v_lab("sweep", *files, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [answer["sweep"] for answer in answers] == ["left", "right"]
    table = Store(tmp_path / "results").runs()
    assert len(table) == 4 and table["pid"].nunique() == 1
    for answer in answers:
        folder = Path(answer["folder"])
        assert answer["counts"] == {"done": 2} and answer["problem"] == ""
        assert [Path(file).name for file in answer["files"]] == [
            "report.ipynb",
            "report.html",
            "grid.mp4",
            "table.csv",
            "table.parquet",
        ]
        assert len(pd.read_csv(folder / "table.csv")) == len(pd.read_parquet(folder / "table.parquet")) == 2
        book = nbformat.read(folder / "report.ipynb", as_version=4)
        nbformat.validate(book)
        assert "widgets" not in book.metadata
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # as in a kernel of its own
        outputs = [output for cell in code for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
        shown = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
        assert "2 of 2 done" in shown
        assert "<script" not in (folder / "report.ipynb").read_text()[:200]
    assert notebook.shipped("notebooks/sweep.ipynb").read_bytes() == before


def test_opened_by_hand_the_notebook_runs_with_its_own_parameters(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "notebooks").mkdir()
    write(tmp_path / "experiments", "guidance", axes={"guidance_scale": [6, 9]})
    papermill.execute_notebook(
        notebook.shipped("notebooks/sweep.ipynb"), tmp_path / "done.ipynb", cwd=tmp_path / "notebooks", progress_bar=False
    )
    assert Store(tmp_path / "results").runs(sweep="guidance")["status"].tolist() == ["done", "done"]
    assert "2 of 2 done" in (tmp_path / "done.ipynb").read_text()


def test_a_notebook_that_fails_is_saved_and_the_next_one_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    sweeps = [Sweep(name=name, base={**BASE, "model": "fake"}) for name in ("one", "two")]
    reports = notebook.execute(sweeps, store, Settings(), notebook=BOOKS / "broken.ipynb")
    for report in reports:
        assert report.problem == "RuntimeError: on purpose"
        book = nbformat.read(report.result.folder / "report.ipynb", as_version=4)
        texts = [output.get("text", "") for cell in book.cells for output in cell.get("outputs", [])]
        assert "before the fault\n" in texts
        assert "never\n" not in texts
        assert any(output.output_type == "error" for cell in book.cells for output in cell.get("outputs", []))
    assert len(reports) == 2


def test_a_sweep_without_one_clip_has_a_report_too(tmp_path: Path) -> None:
    sweep = Sweep(name="none", base={**BASE, "model": "fake", "image": "gone.png"}, seeds=[1, 2])
    (report,) = notebook.execute([sweep], Store(tmp_path / "results"), Settings())
    assert (report.problem, report.result.counts) == ("", {"failed": 2})
    assert report.html and "gone.png" in report.html.read_text()
    assert not (report.result.folder / "grid.mp4").exists()


def test_cells_that_fail_make_the_command_fail_and_are_retried(tmp_path: Path, i2v_lab: Run) -> None:
    file = write(tmp_path, "some", axes={"image": ["gone.png", "sample:coffee"]})
    ended = i2v_lab("sweep", file, "--no-report")
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (
        1,
        "some: 1 done, 1 failed; --retry failed runs those again that ended without a clip, and no others",
    )
    (tmp_path / "gone.png").write_bytes(
        Path(__import__("skimage").__file__).with_name("data").joinpath("astronaut.png").read_bytes()
    )
    ended = i2v_lab("sweep", file, "--no-report", "--retry", "failed", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["counts"]) == (0, {"done": 2})
    assert ended.stderr == ""
    assert len(Store(tmp_path / "results").runs()) == 3


def test_the_plan_by_the_command_and_a_sweep_without_a_file(tmp_path: Path, inside: Run) -> None:
    options = ["--axis", "guidance_scale=6..14 step 2", "--axis", "seed=1,2", "--base", "prompt=a, b", "--base", "model=fake",
               "--base", "image=sample:coffee"]  # fmt: skip
    ended = inside("sweep", "--dry-run", *options)
    assert ended.returncode == 0
    assert ended.stdout.startswith("sweep: 10 cells: 10 to do; no run measured here yet")
    answer = json.loads(inside("sweep", "--dry-run", "--json", *options).stdout)
    assert (answer["to_run"], answer["cells"][-1]["params"]["guidance_scale"], answer["cells"][0]["params"]["prompt"]) == (
        10,
        14,
        "a, b",
    )
    for words, why in ((["--axis", "sed=1"], "did you mean seed?"), ([], "expected a sweep file"), (["none.yaml"], "none.yaml: cannot be read"),
                       (["--axis", "seed=1", "--base", "image=x", "--retry", "all"], "retry: expected")):  # fmt: skip
        ended = inside("sweep", *words)
        assert ended.returncode == 2
        assert why in ended.stderr and ended.stderr.count("\n") == 1


def wait_for_cell(process: subprocess.Popen[str], results: Path) -> Path:
    """The folder of the sweep, once a clip of it is in the making."""
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)  # two cores: looking without rest would slow down what is looked at
        if (results / "runs.db").exists() and Store(results).records(status="running"):
            return next((results / "sweeps").iterdir())
    raise AssertionError(f"the sweep ended before it was seen: {process.communicate()}")


LONG = {**BASE, "model": "closed-form", "num_frames": 8, "num_inference_steps": 1000}  # seconds, most of them to load torch


@pytest.mark.slow
def test_ctrl_c_stops_after_the_cell_and_again_after_the_step(tmp_path: Path) -> None:
    file = write(tmp_path, "long", base=LONG, seeds="1..3 step 1")
    with start("sweep", file, cwd=tmp_path) as process:
        folder = wait_for_cell(process, tmp_path / "results")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "stopping after this cell; once more stops after this step" in err
    assert Store(tmp_path / "results").cell_counts(folder.name) == {"done": 1, "planned": 2}
    assert "1 of 3 done" in (folder / "report.html").read_text()  # the report makes none of the others
    with start("sweep", file, "--no-report", cwd=tmp_path) as process:
        assert wait_for_cell(process, tmp_path / "results") == folder
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert "stopping after this cell" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        # The second signal may come while the first line is written, which Python then writes twice.
        line = process.stderr.readline()
        assert "stopping after this step; once more stops at once" in (process.stderr.readline() if "this cell" in line else line)
        process.communicate()
    assert process.returncode == 130
    assert Store(tmp_path / "results").cell_counts(folder.name) == {"done": 1, "planned": 1, "stopped": 1}


@pytest.mark.slow
def test_sigterm_stops_after_the_step(tmp_path: Path) -> None:
    file = write(tmp_path, "long", base=LONG, seeds="1..2 step 1")
    with start("sweep", file, "--no-report", cwd=tmp_path) as process:
        folder = wait_for_cell(process, tmp_path / "results")
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 130
    store = Store(tmp_path / "results")
    assert store.cell_counts(folder.name) == {"planned": 1, "stopped": 1}
    assert [record.reason for record in store.records(status="stopped")] == ["stopped by SIGTERM"]


@pytest.mark.slow
def test_a_batch_stops_at_ctrl_c_as_a_sweep_does(tmp_path: Path) -> None:
    row = json.dumps(LONG)
    (tmp_path / "clips.jsonl").write_text(f"{row}\n{row}\n")
    with start("batch", "clips.jsonl", "--json", cwd=tmp_path) as process:
        while not ((tmp_path / "results" / "runs.db").exists() and Store(tmp_path / "results").records(status="running")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines() == ["1 of 2", "stopping after this step; once more stops at once"]
    assert [json.loads(line)["reason"] for line in out.splitlines()] == ["stopped by Ctrl-C"]


@pytest.mark.slow
def test_a_kernel_dies_with_the_command_that_started_it(tmp_path: Path) -> None:
    with start("sweep", write(tmp_path, "one"), "--notebook", BOOKS / "sleeping.ipynb", cwd=tmp_path) as process:
        command = psutil.Process(process.pid)
        while not (kernels := [child for child in command.children() if "ipykernel_launcher" in child.cmdline()]):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(kernels, timeout=20)
    assert not alive


@pytest.mark.parametrize(("kernel", "why"), [({"name": "nosuch", "display_name": "x"}, "nosuch"), (None, "kernel name")])
def test_a_notebook_without_a_kernel_that_is_here_is_one_line(kernel: dict[str, str] | None, why: str, tmp_path: Path) -> None:
    book = nbformat.read(BOOKS / "which_kernel.ipynb", as_version=4)
    book.metadata.pop("kernelspec", None)
    if kernel:
        book.metadata["kernelspec"] = kernel
    nbformat.write(book, tmp_path / "own.ipynb")
    sweep = Sweep(name="one", base={**BASE, "model": "fake"})
    (report,) = notebook.execute([sweep], Store(tmp_path / "results"), Settings(), notebook=tmp_path / "own.ipynb")
    assert report.result.counts == {"done": 1}
    assert report.problem.startswith("the kernel failed: ") and why in report.problem
