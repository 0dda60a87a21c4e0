"""What several test files share: which tests run and in what order, a photograph, and the command line as people start it.

**Fast and slow.** A test that takes more than some 5 seconds has `@pytest.mark.slow`. `make test` (plain `pytest`) skips it,
`make test-slow` (`pytest --slow`) runs these tests alone. One test by name: `pytest tests/test_x.py -k words`; a slow one needs
`--slow` too.

**Two processes.** `make test` gives each of two processes whole files. Each has locks of devices of its own (XDG_RUNTIME_DIR is
set here), so no test waits for another's clip. The files that take longest begin first (LONGEST).

**The command line.** `i2v_lab("runs", "--json")` runs a command in tmp_path and returns how it ended; `start("sweep", file, cwd=folder)`
starts one and returns a Popen. Both fork a process that has imported the libraries (tests/warm.py): 0.2 s instead of 2 s.

- `cold=True`: a new Python. For tests of the start itself, of imports, or of memory. A command whose environment is read at import
  (HOME, HF_*, OMP_*, PYTHON*, ...) gets one by itself.
- `warm.Warm([...], cwd=..., env=environment(folder), stdout=..., stderr=...)` is the Popen itself, for files and terminals as output.

`inside("show", clip)` runs a command in the process of the tests: for what ends before a clip is made.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

# Two processes of tests and the commands they start share two cores: torch with two threads in each would wait for itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
# pytest-xdist gives its processes a PYTHONPATH that ends in ":", which means the current folder of every command they start.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))

import pytest
import warm
from PIL import Image
from warm import Warm, must_be_cold

from i2v_lab.cli import main
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import sample_path
from i2v_lab.settings import Settings
from i2v_lab.store import Store

# Files, or beginnings of their paths, that take longest, the longest first: two processes then end at nearly the same time.
LONGEST = (
    "test_cluster", "test_planner", "test_docs", "test_ladder", "test_i2vgen_xl", "browser/test_studio", "test_server",
    "test_closed_form", "test_engine", "test_sweep", "browser/", "test_cli", "test_metrics", "test_api_fuzz",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests, and no others")
    parser.addoption("--gpu", action="store_true", help="run the tests that need a GPU, and no others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the fast tests, the slow ones or those on a GPU, and put the longest files first."""
    for name, where in (("gpu", "on a GPU: make test-gpu"), ("slow", "long: make test-slow")):
        marked = [item for item in items if item.get_closest_marker(name)]
        if config.getoption(f"--{name}"):
            config.hook.pytest_deselected(items=[item for item in items if item not in set(marked)])
            items[:] = marked
            continue
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=where))
    items.sort(key=lambda item: _rank(item.path.relative_to(Path(__file__).parent).as_posix()))  # a stable sort


def _rank(path: str) -> int:
    return next((rank for rank, beginning in enumerate(LONGEST) if path.startswith(beginning)), len(LONGEST))


def pytest_sessionstart() -> None:
    """A runtime folder for this process, with the locks of devices; and Ctrl-C works also where the tests run in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="i2v-lab-tests-")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin the imports of the warm process; let the garbage collector pass over what is imported (0.6 s each time with torch)."""
    if any("i2v_lab" in getattr(item, "fixturenames", ()) for item in session.items) and not session.config.option.collectonly:
        warm.begin()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell out file names that are no text in what a test printed or logged: they cannot be sent to the process that reports."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_sessionfinish() -> None:
    shutil.rmtree(os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph in a JPEG file, 600x400 pixels."""
    path = tmp_path_factory.mktemp("pictures") / "my coffee.jpg"
    Image.open(sample_path("coffee")).convert("RGB").save(path, quality=92)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty output folder, results/ in tmp_path."""
    return Store(tmp_path / "results")


@pytest.fixture
def settings() -> Settings:
    """The settings of nobody: all defaults."""
    return Settings()


@pytest.fixture
def params(photograph: Path) -> ClipParams:
    """A small clip of the fake model."""
    return ClipParams(model="fake", image=str(photograph), prompt="zoom in", resolution="64x96", num_frames=3)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is tmp_path."""
    monkeypatch.chdir(tmp_path)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment without the settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("I2V_LAB_") and name != "COLUMNS"}
    return {**kept, "XDG_CONFIG_HOME": str(home / "config"), "HF_HUB_OFFLINE": "1", **more}


def start(*words: object, cwd: Path, env: Mapping[str, str] | None = None, cold: bool = False) -> subprocess.Popen[str]:
    """Start the command line as a process of its own; see the top of this file for `cold`."""
    variables, texts = environment(cwd, **(env or {})), [str(word) for word in words]
    if cold or must_be_cold(variables):
        command = [sys.executable, "-m", "i2v_lab", *texts]
        return subprocess.Popen(command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return Warm(texts, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Wait for a command that was started: how it ended."""
    with process:
        out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def i2v_lab(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in tmp_path (or `cwd`) and returns how it ended; takes what `start` takes."""

    def run(*words: object, cwd: Path = tmp_path, **options: Any) -> subprocess.CompletedProcess[str]:
        return finish(start(*words, cwd=cwd, **options))

    return run


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `i2v_lab`, in this process: faster, for what ends before anything is made."""

    def run(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        for name in [name for name in os.environ if name.startswith("I2V_LAB_")]:
            monkeypatch.delenv(name)
        for name, value in {"XDG_CONFIG_HOME": str(tmp_path / "config"), **(env or {})}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONSAFEPATH", os.environ.get("PYTHONSAFEPATH", ""))
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["i2v-lab", *map(str, words)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        log, code = logging.getLogger("i2v_lab"), 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, before in handlers.items():
                signal.signal(number, before)
            for handler in log.handlers[:]:
                log.removeHandler(handler)
                handler.close()
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run
