"""Who may read what is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("shared", "of_files", "of_folders"), [("false", 0o600, 0o700), ("true", 0o644, 0o755)])
def test_clips_records_and_logs_are_this_users_alone_unless_they_are_shared(
    i2v_lab, tmp_path: Path, photograph: Path, shared: str, of_files: int, of_folders: int
) -> None:  # type: ignore[no-untyped-def]
    env = {"I2V_LAB_SHARED": shared, "I2V_LAB_LOG__DIRECTORY": str(tmp_path / "new" / "logs")}
    words = ("--image", photograph, "--model", "fake", "--resolution", "64x64", "--num-frames", "2", "--output-dir", "new/results")
    for format in ("mp4", "gif"):
        done = i2v_lab("generate", *words, "--format", format, env=env)
        assert done.returncode == 0, done.stderr
    made = sorted((tmp_path / "new").rglob("*"))
    assert {path.suffix for path in made if path.is_file()} == {".mp4", ".gif", ".jpg", ".db", ".db-spare", ".log"}
    for path in (tmp_path / "new", *made):
        assert path.stat().st_mode & 0o777 == (of_folders if path.is_dir() else of_files), path


def test_a_folder_that_was_there_keeps_its_rights(i2v_lab, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "results").mkdir(0o755)
    done = i2v_lab("generate", "--image", "sample:coffee", "--model", "fake", "--resolution", "64x64", "--num-frames", "2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "results" / "runs.db").stat().st_mode & 0o777 == 0o600
