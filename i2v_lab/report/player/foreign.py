"""Clips of other tools: which of them browsers do not play, and animated pictures as clips.

Every browser plays H.264 and AV1 in MP4, and VP8, VP9 and AV1 in WebM, with 8-bit 4:2:0 pixels. All else is shown as a copy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from i2v_lab.clip import video
from i2v_lab.errors import ClipError, printable

_PLAYED = {"video/mp4": ("h264", "av1"), "video/webm": ("vp8", "vp9", "av1")}
_NAMES = {"h264": "H.264", "hevc": "HEVC", "mpeg4": "MPEG-4 part 2", "vp9": "VP9", "av1": "AV1", "gif": "GIF", "prores": "ProRes"}
_ANIMATED_PIXELS = 500_000_000  # of all frames of an animated picture: 1.5 GB as RGB


@cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for clips that are in no file of the user's; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="i2v-lab-clips-")


def container(path: Path) -> str:
    """video/mp4 or video/webm; "" for what browsers do not open, or not all of them (MOV, MKV, AVI, GIF)."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        return "" if head[8:12] == b"qt  " else "video/mp4"
    return "video/webm" if head.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in head else ""


def foreign(info: video.VideoInfo) -> str:
    """Why browsers do not play this file as it is, in a word or two; "" where they do."""
    mime = container(info.path)
    name = _NAMES.get(info.codec, info.codec)
    if info.codec not in _PLAYED["video/mp4"] + _PLAYED["video/webm"]:
        return name
    if not info.plain:
        return f"{name}, not 8-bit 4:2:0"
    if info.codec not in _PLAYED.get(mime, ()):
        return f"{name} in {info.path.suffix[1:].upper() or 'another container'}"
    return "" if info.steady else f"{name}, variable frame rate"


def at_one_rate(info: video.VideoInfo) -> video.VideoInfo:
    """The clip as its copy shows it: one of variable frame rate gets 30 or 60 frames a second."""
    if info.steady:
        return info
    seconds, fps = info.frames / info.fps, Fraction(60 if info.fps > 31 else 30)
    return replace(info, fps=fps, frames=max(round(seconds * fps), 1))


def is_picture(path: Path) -> str:
    """WebP or PNG where the file is such a picture, animated or not; else ""."""
    with path.open("rb") as file:
        head = file.read(12)
    return "WebP" if head[:4] + head[8:] == b"RIFFWEBP" else "PNG" if head.startswith(b"\x89PNG") else ""


def animation(path: Path) -> video.VideoInfo:
    """An animated WebP or PNG as an MP4 in the scratch folder, which FFmpeg cannot read.

    Raises:
        ClipError: it cannot be read, or is not animated.
    """
    from PIL import Image, ImageSequence

    try:
        with Image.open(path, formats=("WEBP", "PNG")) as image:
            count = getattr(image, "n_frames", 1)
            if count < 2:
                raise ClipError(f"{printable(path)}: expected a clip, got a picture that does not move")
            if count * image.width * image.height > _ANIMATED_PIXELS:
                raise ClipError(
                    f"{printable(path)}: expected at most {_ANIMATED_PIXELS / 1e6:g} megapixels in all frames, got more"
                )
            frames, lasts = [], []
            for frame in ImageSequence.Iterator(image):
                frames.append(np.asarray(frame.convert("RGB")))
                lasts.append(max(int(frame.info.get("duration", 0)), 10) or 100)  # ms; 0 and less than 10 are no durations
    except ClipError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow meets damaged bytes with every kind of exception
        raise ClipError(
            f"{printable(path)}: expected a whole animated picture; it cannot be read ({printable(error)[:200]})"
        ) from None
    return written(spread(frames, lasts), Fraction(1000, min(lasts)))


def spread(frames: Sequence[Any], lasts: Sequence[int]) -> np.ndarray[Any, Any]:
    """Frames at one rate, that of the shortest: each is repeated as long as it lasts. `lasts` in milliseconds."""
    ends = np.cumsum(lasts)
    shown = np.searchsorted(ends, np.arange(0, ends[-1], min(lasts)), side="right")
    return np.stack([frames[place] for place in shown])


def written(frames: Any, fps: Fraction, stem: str = "clip") -> video.VideoInfo:
    """Frames, uint8 RGB (F, H, W, 3), as an MP4 in the scratch folder."""
    return video.write(frames, Path(scratch().name), stem=stem, fps=fps)
