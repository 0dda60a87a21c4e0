"""What several test files share: a photograph as people bring it, and the command line as people start it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from i2v_lab.cli import main
from i2v_lab.clip.picture import sample_path


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph in a JPEG file, 600x400 pixels."""
    path = tmp_path_factory.mktemp("pictures") / "my coffee.jpg"
    Image.open(sample_path("coffee")).convert("RGB").save(path, quality=92)
    return path


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("I2V_LAB_") and name != "COLUMNS"}
    return {**kept, "XDG_CONFIG_HOME": str(home / "config"), "HF_HUB_OFFLINE": "1", **more}


def start(*words: object, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "i2v_lab", *map(str, words)],
        cwd=cwd, env=environment(cwd, **(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def i2v_lab(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in tmp_path (or `cwd`) and returns how it ended."""

    def run(*words: object, cwd: Path = tmp_path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        with start(*words, cwd=cwd, env=env) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

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
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["i2v-lab", *map(str, words)])
        log, code = logging.getLogger("i2v_lab"), 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for handler in log.handlers[:]:
                log.removeHandler(handler)
                handler.close()
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run
