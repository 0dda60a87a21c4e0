"""Writing a clip: what goes wrong leaves nothing, names are never taken twice, folders and full disks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import SETTINGS, children, moving, nothing_left

from i2v_lab.clip import ffmpeg, publish, video
from i2v_lab.errors import ClipError, Stop, WriteError


@pytest.mark.parametrize(
    ("bad", "came"),
    [
        (np.zeros((64, 66, 3), np.uint8), r"uint8 \(64, 66, 3\)"),
        (np.zeros((64, 64, 3), np.float32), "float32"),
        (np.zeros((64, 64, 4), np.uint8), r"\(64, 64, 4\)"),
        ("a string", "str"),
    ],
    ids=["size", "dtype", "alpha", "type"],
)
@pytest.mark.parametrize("index", [0, 3])
def test_a_bad_frame_is_named(tmp_path: Path, bad: Any, came: str, index: int) -> None:
    frames: list[Any] = list(moving())
    frames[index] = bad
    if index == 0 and came.startswith("uint8"):
        index = 1  # the first frame sets the size, so the next one is the odd one out
    with pytest.raises(WriteError, match=f"frame {index}: .*{came}|frame 1: "):
        video.write(iter(frames), tmp_path, stem="clip", fps=Fraction(8))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("format", "fps", "words"),
    [("avi", 8, "mp4, webm, gif"), ("gif", 60, "at most"), ("mp4", 0, "positive"), ("mp4", 1 + Fraction(1, 10**9), "24000")],
)
def test_a_format_or_rate_that_cannot_be(tmp_path: Path, format: str, fps: Any, words: str) -> None:
    with pytest.raises(WriteError, match=words):
        video.write(moving(), tmp_path / "new", stem="clip", fps=Fraction(fps), format=format)
    assert nothing_left(tmp_path)


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no frames"):
        video.write([], tmp_path, stem="clip", fps=Fraction(8))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("error", [Stop("stopped by hand"), KeyboardInterrupt(), FileNotFoundError("theirs"), GeneratorExit()])
@pytest.mark.parametrize("after", [0, 3])
def test_what_the_frames_raise_passes_through(tmp_path: Path, error: BaseException, after: int) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from moving(after) if after else ()
        raise error

    with pytest.raises(type(error)) as caught:
        video.write(frames(), tmp_path, stem="clip", fps=Fraction(8), settings=SETTINGS)
    assert caught.value is error
    assert nothing_left(tmp_path)


def test_ffmpeg_killed_midway(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        for index, frame in enumerate(moving(40, 256, 256)):
            if index == 2:
                (child,) = children()
                os.kill(child.pid, signal.SIGKILL)
            yield frame

    with pytest.raises(WriteError, match="killed by signal 9"):
        video.write(frames(), tmp_path, stem="clip", fps=Fraction(8))
    assert nothing_left(tmp_path)


def test_ffmpeg_own_words_are_in_the_error(tmp_path: Path) -> None:
    wide = np.zeros((2, 16, 20_000, 3), np.uint8)  # H.264 ends at 16384 pixels
    with pytest.raises(WriteError, match=r"FFmpeg failed with exit code \d+ \(.+\).*doctor") as caught:
        video.write(wide, tmp_path, stem="clip", fps=Fraction(8))
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("text", [None, "not a program"])
def test_ffmpeg_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    binary = tmp_path / "ffmpeg"
    if text is not None:
        binary.write_text(text)
        binary.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(binary))
    out = tmp_path / "out"
    with pytest.raises(WriteError, match=r"FFmpeg cannot be run .*reinstall imageio-ffmpeg"):
        video.write(moving(), out, stem="clip", fps=Fraction(8))
    assert nothing_left(out)
    with pytest.raises(WriteError, match="FFmpeg cannot be run"):
        ffmpeg.ffmpeg_version()


def write_one(job: tuple[str, int]) -> str:
    folder, number = job
    return str(video.write(moving(3) // (number + 1), Path(folder), stem="same", fps=Fraction(8), settings={"n": number}).path)


def test_eight_processes_one_name(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        paths = pool.map(write_one, [(str(tmp_path), number) for number in range(8)], chunksize=1)
    assert sorted(paths) == sorted(str(path) for path in tmp_path.iterdir())
    assert {Path(path).name for path in paths} == {"same.mp4", *(f"same_{n}.mp4" for n in range(1, 8))}
    for number, path in enumerate(paths):
        assert video.read_settings(Path(path)) == {"n": number}
        assert video.probe(Path(path)).frames == 3


def test_threads_and_nothing_overwritten(tmp_path: Path) -> None:
    (tmp_path / "same.mp4").write_text("mine")
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(write_one, [(str(tmp_path), number) for number in range(4)]))
    assert (tmp_path / "same.mp4").read_text() == "mine"
    assert {Path(path).name for path in paths} == {f"same_{n}.mp4" for n in range(1, 5)}


def test_names_without_hard_links(tmp_path: Path) -> None:
    final = tmp_path / "clip.mp4"
    partials = [tmp_path / f"{number}.partial" for number in range(32)]
    for number, partial in enumerate(partials):
        partial.write_text(str(number))
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda partial: publish.claim_without_links(partial, final), partials))
    assert won.count(True) == 1
    assert final.read_text() == str(won.index(True))
    assert len(list(tmp_path.iterdir())) == 32


def test_stale_partials_go_and_live_ones_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = publish.host_name()

    def partial(host: str, pid: int, ending: str = "mp4") -> Path:
        path = tmp_path / f".my.clip.{host}-{pid}-0123456789ab.partial.{ending}"
        path.touch()
        return path

    stale = [partial(host, dead.pid), partial(host, dead.pid, "txt")]
    kept = [partial(host, os.getpid()), partial("elsewhere", dead.pid), partial(f"x-{host}", dead.pid), tmp_path / ".partial.mp4"]
    kept[-1].touch()
    info = video.write(moving(2), tmp_path, stem="clip", fps=Fraction(8))
    assert not any(path.exists() for path in stale)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, info.path])


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    assert video.write(moving(2), tmp_path / "a" / "b", stem="clip", fps=Fraction(8)).path.is_file()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "in"):
        with pytest.raises(WriteError, match=r"cannot write into .*: choose another folder with --output-dir"):
            video.write(moving(2), folder, stem="clip", fps=Fraction(8))


def test_a_folder_that_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    shown = moving(2)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(WriteError, match=r"cannot write into .*\(Permission denied\): choose another folder with --output-dir"):
            video.write(shown, folder, stem="clip", fps=Fraction(8))
    finally:
        os.seteuid(user)
    assert nothing_left(folder)


@pytest.mark.root
@pytest.mark.parametrize("format", video.FORMATS)
@pytest.mark.parametrize("kilobytes", [16, 200])
def test_a_full_disk(tmp_path: Path, format: str, kilobytes: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
    try:
        noise = np.random.default_rng(0).integers(0, 256, (24, 128, 128, 3), np.uint8)
        with pytest.raises(
            WriteError, match=r"the disk that holds .* is full \(.* MB free\): .*free some space .*--output-dir"
        ) as caught:
            video.write(noise, disk, stem="clip", fps=Fraction(8), format=format, settings=SETTINGS)
        assert "\n" not in str(caught.value)
        assert nothing_left(disk)
        if kilobytes == 200:  # settings that no longer fit
            with pytest.raises(WriteError, match="is full"):
                video.write(moving(2), disk, stem="clip", fps=Fraction(8), format=format, settings={"long": "x" * 300_000})
            assert nothing_left(disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_long_errors_do_not_block(tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    data = bytearray(video.write(moving(60, 128, 128), tmp_path, stem="clip", fps=Fraction(8)).path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 5000 :: 7] = bytes(len(data[start + 5000 :: 7]))
    noise.write_bytes(data)
    with pytest.raises(ClipError):
        video.read(noise)
