"""A disk of 2 MB, as a plugin of pytest: `pytest_plugins = ("disks",)`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the rights to mount a small tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)
