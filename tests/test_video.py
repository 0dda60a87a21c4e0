"""Clips, read back by tools that did not write them: ffprobe and ffmpeg of the system, OpenCV, Pillow."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import skimage
from PIL import Image

from i2v_lab.clip import ffmpeg, publish, video
from i2v_lab.errors import ClipError, Stop, WriteError

needs_ffprobe = pytest.mark.skipif(
    not (shutil.which("ffprobe") and shutil.which("ffmpeg")), reason="ffprobe is not on the PATH (Debian: apt-get install ffmpeg)"
)
SETTINGS = {
    "prompt": "海浪拍打沙滩 🌊\nline two\r\n\"quoted\" 'single' back\\slash \\n ;=# é \u2028 \x00",
    "negative_prompt": ";FFMETADATA1\n[CHAPTER]\ncomment=no",
    "guidance_scale": 9.5,
    "nested": {"list": [1, None, True]},
}


def photograph(name: str = "coffee.png") -> np.ndarray:
    """A photograph (H, W, 3), even sides."""
    pixels = np.asarray(Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB"))
    return pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]


def moving(frames: int = 6, height: int = 64, width: int = 64) -> np.ndarray:
    """A window sliding over a photograph, (F, H, W, 3)."""
    picture = photograph()
    return np.stack([picture[100 : 100 + height, 200 + 2 * k : 200 + 2 * k + width] for k in range(frames)])


def streams(path: Path) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", path]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {**answer["streams"][0], "format": answer["format"]}


def decoded(path: Path, height: int, width: int) -> np.ndarray:
    """Frames by the system's ffmpeg, chroma interpolated as players do."""
    smooth = "scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-vf", smooth, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8).reshape(-1, height, width, 3)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def nothing_left(folder: Path) -> bool:
    return not list(folder.iterdir()) and not children()


# --- what other tools find in the file


@needs_ffprobe
@pytest.mark.parametrize("fps", ["8", "25/2", "24000/1001", "30000/1001", "1", "120"])
def test_mp4_is_what_was_asked(tmp_path: Path, fps: str) -> None:
    info = video.write(moving(), tmp_path, stem="clip", fps=Fraction(fps))
    found = streams(info.path)
    assert (found["codec_name"], found["pix_fmt"], found["width"], found["height"]) == ("h264", "yuv420p", 64, 64)
    assert int(found["nb_read_frames"]) == info.frames == 6
    assert Fraction(found["r_frame_rate"]) == Fraction(found["avg_frame_rate"]) == info.fps == Fraction(fps)
    assert {found[f"color_{what}"] for what in ("space", "transfer", "primaries")} == {"bt709"}
    assert info.path == tmp_path / "clip.mp4"
    assert info.file_bytes == info.path.stat().st_size
    assert info == video.probe(info.path)


@needs_ffprobe
@pytest.mark.parametrize("fps", ["8", "24000/1001", "30000/1001"])
def test_webm_is_what_was_asked(tmp_path: Path, fps: str) -> None:
    info = video.write(moving(), tmp_path, stem="clip", fps=Fraction(fps), format="webm")
    found = streams(info.path)
    assert (found["codec_name"], found["pix_fmt"], int(found["nb_read_frames"])) == ("vp9", "yuv420p", 6)
    assert abs(Fraction(found["avg_frame_rate"]) / Fraction(fps) - 1) < 0.002
    assert info.fps == Fraction(fps)


@pytest.mark.parametrize(("fps", "centiseconds"), [("8", 75), ("24000/1001", 25), ("50", 12), ("10", 60)])
def test_gif_says_the_rate_it_really_has(tmp_path: Path, fps: str, centiseconds: int) -> None:
    info = video.write(moving(height=33, width=45), tmp_path, stem="clip", fps=Fraction(fps), format="gif")
    with Image.open(info.path) as picture:
        delays = []
        for index in range(picture.n_frames):
            picture.seek(index)
            delays.append(picture.info["duration"] // 10)
        picture.seek(0)
        assert picture.info["loop"] == 0
        assert picture.size == (45, 33)
    assert info.fps == Fraction(len(delays) * 100, sum(delays))
    assert len(delays) == info.frames == 6
    assert abs(sum(delays) - centiseconds) <= 2
    assert info.padded == (0, 0)


def test_mp4_starts_fast(tmp_path: Path) -> None:
    data = video.write(moving(), tmp_path, stem="clip", fps=Fraction(8), settings=SETTINGS).path.read_bytes()
    boxes, place = [], 0
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        boxes.append(kind)
        place += size
    assert boxes.index(b"moov") < boxes.index(b"mdat")


@needs_ffprobe
@pytest.mark.parametrize("format", ["mp4", "webm"])
@pytest.mark.parametrize(("height", "width"), [(63, 65), (63, 64), (64, 65), (1, 1)])
def test_odd_sizes_repeat_one_row_and_column(tmp_path: Path, format: str, height: int, width: int) -> None:
    frames = moving(2, height, width)
    info = video.write(frames, tmp_path, stem="odd", fps=Fraction(8), format=format)
    assert info.padded == (height % 2, width % 2)
    found = streams(info.path)
    assert (found["height"], found["width"]) == (height + height % 2, width + width % 2) == (info.height, info.width)
    back = decoded(info.path, info.height, info.width)
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert psnr(back, padded) > 33  # not shifted: one pixel off is below 28
    if height > 1:
        assert psnr(back[:, -2:], padded[:, -2:]) > 30
        assert psnr(back[:, :, -2:], padded[:, :, -2:]) > 30


@needs_ffprobe
@pytest.mark.parametrize("name", ["coffee.png", "astronaut.png", "chelsea.png"])
@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_photographs_survive(tmp_path: Path, name: str, format: str) -> None:
    picture = photograph(name)
    frames = np.stack([np.roll(picture, k, axis=1) for k in range(3)])
    info = video.write(frames, tmp_path, stem="photo", fps=Fraction(60), format=format)
    assert psnr(decoded(info.path, *picture.shape[:2]), frames) >= 38
    assert psnr(video.read(info.path), frames) >= 38


@pytest.mark.parametrize("format", video.FORMATS)
def test_colours_are_right(tmp_path: Path, format: str) -> None:
    colours = np.array(
        [
            [255, 0, 0],
            [0, 255, 0],
            [0, 0, 255],
            [255, 255, 0],
            [0, 255, 255],
            [255, 0, 255],
            [255, 255, 255],
            [0, 0, 0],
            [128, 128, 128],
            [200, 100, 50],
        ],
        np.uint8,
    )
    frame = np.repeat(np.repeat(colours[None], 32, axis=1), 32, axis=0)  # (32, 320, 3)
    path = video.write([frame] * 3, tmp_path, stem="colours", fps=Fraction(8), format=format).path
    reader = cv2.VideoCapture(str(path))
    good, bgr = reader.read()
    reader.release()
    assert good
    for seen in (bgr[..., ::-1], video.read(path)[-1]):
        assert np.abs(seen[16, 16::32].astype(int) - colours).max() <= 4


# --- settings inside


@pytest.mark.parametrize("format", video.FORMATS)
@pytest.mark.parametrize("extra", [0, 300_000])
def test_settings_come_back(tmp_path: Path, format: str, extra: int) -> None:
    settings = {**SETTINGS, "long": "x;=\\\n" * (extra // 5)}
    info = video.write(moving(2), tmp_path, stem="-y", fps=Fraction(8), format=format, settings=settings)
    assert video.read_settings(info.path) == settings
    assert info.file_bytes == info.path.stat().st_size
    if format == "gif":
        with Image.open(info.path) as picture:
            assert json.loads(picture.info["comment"]) == settings
            assert picture.n_frames == 2
    elif shutil.which("ffprobe"):
        tags = {key.lower(): value for key, value in streams(info.path)["format"]["tags"].items()}
        assert json.loads(tags["comment"]) == settings


def test_settings_must_be_json_and_fit(tmp_path: Path) -> None:
    for settings, error in (({"a": object()}, TypeError), ({"a": float("nan")}, ValueError), ({"a": "x" * 8_000_001}, WriteError)):
        with pytest.raises(error):
            video.write(moving(2), tmp_path, stem="clip", fps=Fraction(8), settings=settings)
    assert nothing_left(tmp_path)


def with_comment(folder: Path, comment: bytes) -> Path:
    """A GIF with any comment, made by Pillow."""
    Image.new("RGB", (4, 4)).save(folder / "other.gif", comment=comment)
    return folder / "other.gif"


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        (b"hello", "broken JSON"),
        (b"[1, 2]", "expected a JSON object"),
        (b"[" * 100_000, "broken JSON"),
        (b"9" * 10_000, "broken JSON"),
        (b'{"a": "\xff\xfe', "broken JSON"),
        (b'"' + b"x" * 8_000_100, "over 8000000 bytes"),
    ],
    ids=["text", "list", "deep", "number", "cut", "long"],
)
def test_a_foreign_comment_is_refused(tmp_path: Path, comment: bytes, words: str) -> None:
    with pytest.raises(ClipError, match=words) as caught:
        video.read_settings(with_comment(tmp_path, comment))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_clips(tmp_path: Path) -> None:
    bare = video.write(moving(), tmp_path, stem="bare", fps=Fraction(8))
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.gif").touch()
    (tmp_path / "short.gif").write_bytes(b"GIF89a\x01")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile '{bare.path}'\n")
    (tmp_path / "cut.mp4").write_bytes(bare.path.read_bytes()[: bare.file_bytes * 2 // 3])
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("text.mp4", "empty.gif", "short.gif", "list.mp4", "list.txt", "pipe.mp4", "no\nne.mp4", "cut.mp4", "."):
        for function in (video.probe, video.read, video.read_settings):
            with pytest.raises(ClipError) as caught:
                function(tmp_path / name)
            assert "\n" not in str(caught.value)
    for name in ("http://127.0.0.1:9/x.mp4", f"concat:{bare.path}", f"file:{bare.path}", "-version", "-"):
        with pytest.raises(ClipError, match="no such file"):
            video.read(Path(name))
    with pytest.raises(ClipError, match="carries no settings"):
        video.read_settings(bare.path)


def test_names_that_look_like_options_or_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stem in ("-y", "http:x", "a%03d", "海 浪", "x" * 240):
        info = video.write(moving(2), Path(), stem=stem, fps=Fraction(8), settings={"stem": stem})
        assert info.path == Path(f"{stem}.mp4")
        assert video.read_settings(info.path) == {"stem": stem}
        assert video.read(info.path).shape == (2, 64, 64, 3)


@pytest.mark.parametrize("stem", ["", "..", "a/b", "../a", "a\\b", "a\0b", "/a"])
def test_a_stem_stays_in_the_folder(tmp_path: Path, stem: str) -> None:
    with pytest.raises(WriteError, match="one plain file name"):
        video.write(moving(2), tmp_path / "in", stem=stem, fps=Fraction(8))
    assert nothing_left(tmp_path)


# --- what goes wrong leaves nothing


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
        video.ffmpeg_version()


# --- names


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


# --- folders and disks


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
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(WriteError, match=r"cannot write into .*\(Permission denied\): choose another folder with --output-dir"):
            video.write(moving(2), folder, stem="clip", fps=Fraction(8))
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
        with pytest.raises(WriteError, match=r"the disk that holds .* is full \(.* MB free\): free .*--output-dir") as caught:
            video.write(noise, disk, stem="clip", fps=Fraction(8), format=format, settings=SETTINGS)
        assert "\n" not in str(caught.value)
        assert nothing_left(disk)
        if kilobytes == 200:  # settings that no longer fit
            with pytest.raises(WriteError, match="is full"):
                video.write(moving(2), disk, stem="clip", fps=Fraction(8), format=format, settings={"long": "x" * 300_000})
            assert nothing_left(disk)
    finally:
        subprocess.run(["umount", disk], check=True)


# --- the rest


def test_encoders_are_tried() -> None:
    found = video.encoders()
    assert set(found) == {"libx264", "libvpx-vp9", "libsvtav1", "h264_nvenc"}
    assert found["libx264"]
    assert found["libvpx-vp9"]
    assert "." in video.ffmpeg_version()


def test_long_errors_do_not_block(tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    data = bytearray(video.write(moving(60, 128, 128), tmp_path, stem="clip", fps=Fraction(8)).path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 5000 :: 7] = bytes(len(data[start + 5000 :: 7]))
    noise.write_bytes(data)
    with pytest.raises(ClipError):
        video.read(noise)


def test_names_are_exported() -> None:
    assert all(hasattr(video, name) for name in video.__all__)
    assert video.encoders is ffmpeg.encoders
