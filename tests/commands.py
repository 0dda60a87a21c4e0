"""What the tests of the command line share: how a command answers, what it complains of, which runs it left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import finish, start

FAKE = ("--model", "fake", "--resolution", "64x96", "--num-frames", "3")
needs_ffprobe = pytest.mark.skipif(
    not shutil.which("ffprobe"), reason="ffprobe is not on the PATH (Debian: apt-get install ffmpeg)"
)


def answer(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    """The one JSON object on standard output."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def complaint(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on standard error, where there is nothing on standard output."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def records(folder: Path, *only: str) -> list[dict[str, Any]]:
    """The runs as another process reads them from the store."""
    done = finish(start("runs", "--json", "--output-dir", folder, *only, cwd=folder.parent))
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def ffprobe(clip: str | Path) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", clip]
    stream: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"][0]
    return stream
