"""Clips, read back by tools that did not write them (ffprobe and ffmpeg of the system, OpenCV, Pillow); and their settings."""

from __future__ import annotations

import json
import os
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SETTINGS, decoded, moving, needs_ffprobe, nothing_left, photograph, psnr, streams
from PIL import Image

from i2v_lab.clip import ffmpeg, video
from i2v_lab.errors import ClipError, WriteError


@needs_ffprobe
@pytest.mark.parametrize("fps", ["8", "25/2", "24000/1001", "30000/1001", "1", "119", "1189/10", "120"])
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
@pytest.mark.parametrize("fps", ["49/10", "8", "24000/1001", "30000/1001", "1189/10"])
def test_webm_is_what_was_asked(tmp_path: Path, fps: str) -> None:
    info = video.write(moving(), tmp_path, stem="clip", fps=Fraction(fps), format="webm")
    found = streams(info.path)
    assert (found["codec_name"], found["pix_fmt"], int(found["nb_read_frames"])) == ("vp9", "yuv420p", 6)
    assert abs(Fraction(found["avg_frame_rate"]) / Fraction(fps) - 1) < 0.002
    assert info.fps == Fraction(fps) or (fps == "49/10" and abs(info.fps / Fraction(fps) - 1) < 0.002)


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


def test_encoders_are_tried() -> None:
    found = ffmpeg.encoders()
    assert set(found) == {"libx264", "libvpx-vp9", "libsvtav1", "h264_nvenc"}
    assert found["libx264"]
    assert found["libvpx-vp9"]
    assert "." in ffmpeg.ffmpeg_version()


def test_names_are_exported() -> None:
    assert all(hasattr(video, name) for name in video.__all__)
