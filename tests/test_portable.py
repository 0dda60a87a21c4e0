"""Windows and macOS, as far as a Linux machine can hold them: without what POSIX alone has, with names of Windows, text in UTF-8."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path, PureWindowsPath

import pytest
from conftest import environment
from sweeps import TINY

from i2v_lab import portable
from i2v_lab.errors import ParamsError, SettingsError
from i2v_lab.models.stock import lora
from i2v_lab.settings import load_settings
from i2v_lab.widgets.studio.uploads import safe_name

ROOT = Path(__file__).parent.parent
WITHOUT = str(Path(__file__).parent / "not_posix")


def run(folder: Path, *words: object, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """The command line in a Python that lacks what POSIX alone has; so do the processes that it starts."""
    paths = os.pathsep.join([WITHOUT, str(ROOT)])
    return subprocess.run([sys.executable, "-m", "i2v_lab", *map(str, words)], cwd=folder, env=environment(folder, PYTHONPATH=paths),
                          capture_output=True, text=True, timeout=seconds, check=False)  # fmt: skip


def test_the_names_are_really_gone(tmp_path):
    code = (
        "import i2v_lab.cli.interrupt as one, i2v_lab.devices.turns as two, i2v_lab.jobs.worker, i2v_lab.report.notebook as three, os; "
        "print([hasattr(one.signal, 'SIGHUP'), hasattr(two.os, 'getuid'), hasattr(three.socket, 'AF_UNIX'), two.os.name, hasattr(os, 'getuid')])"
    )
    env = environment(tmp_path, PYTHONPATH=os.pathsep.join([WITHOUT, str(ROOT)]))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False, False, 'nt', True]"


def test_a_clip_is_made_without_posix(tmp_path):
    done = run(
        tmp_path,
        "generate",
        "sample:coffee",
        "zoom in",
        "--resolution",
        "64x64",
        "--num-frames",
        3,
        "--num-inference-steps",
        2,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["status"], Path(record["clip"]).is_file(), record["metrics"]["motion"] > 0) == ("done", True, True)
    done = run(tmp_path, "delete", record["id"])
    assert (done.returncode, Path(record["clip"]).exists()) == (0, False)


@pytest.mark.slow
def test_a_sweep_with_its_report_is_made_without_posix(tmp_path):
    (tmp_path / "s.yaml").write_text(json.dumps({"name": "s", "base": TINY, "axes": {"seed": [0, 1]}}), "utf-8")
    done = run(tmp_path, "sweep", "s.yaml", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["counts"], answer["problem"]) == ({"done": 2}, "")
    assert {"report.html", "grid.mp4", "table.csv", "table.parquet"} <= {Path(file).name for file in answer["files"]}


@pytest.mark.slow
def test_the_demo_that_the_readme_names_for_windows_runs_without_posix(tmp_path):
    done = run(tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(list(tmp_path.glob("**/report.html"))) == 1


@pytest.mark.slow
def test_the_queue_works_without_posix(tmp_path):
    code = (
        "import time; from pathlib import Path; from i2v_lab.jobs import JobRunner; from i2v_lab.store import Store; "
        "from i2v_lab.settings import Output, Settings; from i2v_lab.clip.params import ClipParams; "
        "settings = Settings(output=Output(directory=Path('results'))); runner = JobRunner(Store(Path('results')), settings); runner.start(); "
        f"jobs = [runner.jobs.add_clip(ClipParams(**{dict(TINY)!r}, seed=seed)) for seed in range(2)]; runner.wake()\n"
        "while any(not runner.status(job.id).job.ended for job in jobs): time.sleep(0.05)\n"
        "print([runner.status(job.id).job.state for job in jobs]); runner.close()"
    )
    env = environment(tmp_path, PYTHONPATH=os.pathsep.join([WITHOUT, str(ROOT)]))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "['done', 'done']", done.stderr


# Names


@pytest.mark.parametrize("prefix", [
    "a:b", "a<b", "a>b", 'a"b', "a|b", "a?b", "a*b", "C:\\x", "a/b", "a\tb", "a\x7fb", ".x", "CON", "con", "NUL.", "com1.x", "LPT9", "Aux",
])  # fmt: skip
def test_a_prefix_that_windows_cannot_store_is_refused(prefix):
    with pytest.raises(SettingsError, match=r"output\.prefix: expected the beginning of a file name"):
        load_settings(output={"prefix": prefix})


@pytest.mark.parametrize("prefix", ["console_", "com10_", "nul_", "waves ", "猫_", "v1.2_"])
def test_a_prefix_that_every_system_stores_is_taken(prefix):
    assert load_settings(output={"prefix": prefix}).output.prefix == prefix


@pytest.mark.parametrize(
    "path",
    ["C:\\loras\\style.safetensors", "D:/loras/style.safetensors", "\\\\server\\share\\style.safetensors", "style.safetensors"],
)
def test_a_lora_may_have_a_drive_letter(path):
    assert lora.parse(f"{path}:0.8, high={path}") == (lora.Lora(path, 0.8, ""), lora.Lora(path, 1.0, "high"))
    with pytest.raises(ParamsError):
        lora.parse(f"{path}:much")


def test_an_upload_has_a_name_that_every_system_stores():
    for name in ("C:\\Users\\me\\photo.jpg", "\\\\server\\share\\photo.jpg", "..\\photo.jpg"):
        assert safe_name(name) == PureWindowsPath(name).name == "photo.jpg"
    assert [safe_name(name) for name in ("C:photo.jpg", "a<b>?.png", "NUL.png", "con", "12:30 *.png")] == [
        "C_photo.jpg", "a_b__.png", "_NUL.png", "_con", "12_30 _.png",
    ]  # fmt: skip


# Files


class InUse(PermissionError):
    """What Windows raises where another program has the file open."""

    winerror = 32


def test_a_file_that_is_in_use_is_tried_again_until_it_is_free():
    left = [InUse(), InUse()]

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    assert portable.when_free(work) == "done"

    def busy() -> None:
        raise InUse

    began = time.monotonic()
    with pytest.raises(InUse):
        portable.when_free(busy, seconds=0.1)
    assert time.monotonic() - began >= 0.1

    calls = []

    def forbidden() -> None:
        calls.append(1)
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        portable.when_free(forbidden)
    assert len(calls) == 1


def _calls(path: Path):  # type: ignore[no-untyped-def]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


PYTHON = [*sorted((ROOT / "i2v_lab").rglob("*.py")), *sorted((ROOT / "experiments").glob("*.py"))]


def test_every_text_file_is_opened_as_utf8():
    """On Windows the default is another. `open` of a mode with b, and the package's own `models.open`, are no text files."""
    wrong = []
    for path in PYTHON:
        for node, name in _calls(path):
            named = {keyword.arg for keyword in node.keywords}
            given = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            if name in ("read_text", "write_text"):
                fine = "encoding" in named or "utf-8" in given or (name == "read_text" and len(node.args) > 1)
            elif name in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile") and any(
                isinstance(one, str) and set(one) <= set("rwxa+t") and one for one in given
            ):
                fine = "encoding" in named
            else:
                continue
            wrong += [] if fine else [f"{path.relative_to(ROOT)}:{node.lineno}: {name}"]
    assert wrong == []


def test_files_are_replaced_in_one_place():
    """`portable.replace` waits on Windows where another program has the file open."""
    found = []
    for path in PYTHON:
        for node, name in _calls(path):
            if name in ("rename", "renames") or (
                name == "replace" and isinstance(node.func, ast.Attribute) and len(node.args) == 1 and not node.keywords
            ):
                found.append(f"{path.relative_to(ROOT).as_posix()}: {ast.unparse(node)}")
    assert found == ["i2v_lab/portable.py: source.replace(target)"]
