"""The frames of a clip that are measured: all of a short one, runs of successive frames spread over a long one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from i2v_lab.clip import video
from i2v_lab.clip.decode import MAX_PIXELS
from i2v_lab.clip.ffmpeg import ask
from i2v_lab.clip.video import Frames
from i2v_lab.errors import ClipError, printable

FRAMES_MAX = 256  # frames that are measured
BYTES_MAX = 400_000_000  # and no more of them than this in memory
COMMON_PIXELS = 256 * 256  # of a frame at which clips of all sizes are compared
RUN = 8  # successive frames in each place of a longer clip


@dataclass(frozen=True)
class SampledFrames:
    """Frames of a clip.

    Attributes:
        frames: uint8 RGB, (N, H, W, 3).
        runs: the beginning and end, as of a slice, of each run of successive frames among them.
        total: how many frames the clip has.
        fps: frames a second, as the clip is played.
    """

    frames: Frames
    runs: tuple[tuple[int, int], ...]
    total: int
    fps: float

    @cached_property
    def small(self) -> Frames:
        """The frames at the one size at which clips are compared: COMMON_PIXELS pixels in the clip's own shape, (N, h, w, 3)."""
        height, width = self.frames.shape[1:3]
        scale = math.sqrt(COMMON_PIXELS / (height * width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size == (width, height):
            return self.frames
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return np.stack([cv2.resize(frame, size, interpolation=how) for frame in self.frames])

    @property
    def pairs(self) -> Iterator[tuple[int, int]]:
        """The places of successive frames, two by two."""
        for start, end in self.runs:
            yield from ((k, k + 1) for k in range(start, end - 1))


def whole(frames: Frames, fps: float) -> SampledFrames:
    """All frames of a clip."""
    return SampledFrames(frames, ((0, len(frames)),), len(frames), fps)


def read_evenly(path: Path, extent: tuple[int, int, float] | None = None) -> SampledFrames:
    """Up to 256 frames of a clip, and up to 400 MB of them; of a longer one up to 32 runs of 8, spread evenly.

    Args:
        extent: (frames, pixels of one, frames a second) where they are known; None: looked up.

    Raises:
        ClipError: no such file, not a whole MP4, WebM or GIF, or frames of more than 89 megapixels.
    """
    total, pixels, fps = extent or _extent(path)
    if pixels > MAX_PIXELS:
        raise ClipError(f"{printable(path)}: expected frames of at most {MAX_PIXELS / 1e6:.0f} megapixels, got {pixels / 1e6:.0f}")
    room = max(2, min(FRAMES_MAX, BYTES_MAX // max(1, 3 * pixels)))
    if total <= room:
        return whole(video.read(path), fps)
    run = min(RUN, room)
    stride = -(-total // (room // run))  # from one run to the next, rounded up
    # Every frame is decoded, few are returned.
    frames = video.read(path, f"lt(mod(n\\,{stride})\\,{run})")
    runs = tuple((start, min(start + run, len(frames))) for start in range(0, len(frames), run))
    return SampledFrames(frames, runs, total, fps)


def _extent(path: Path) -> tuple[int, int, float]:
    """(frames, pixels of one, frames a second) as the file says, without decoding it."""
    text = ask(path, ["-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"]).decode("ascii", "replace")
    size, base = (re.search(pattern, text, re.MULTILINE) for pattern in (r"^#dimensions 0: (\d+)x(\d+)$", r"^#tb 0: (\d+)/(\d+)$"))
    shown_at = [int(time) for time in re.findall(r"^0,[^,]*,\s*(-?\d+),", text, re.MULTILINE)]
    if size is None or base is None or not shown_at:
        raise ClipError(f"{printable(path)}: expected a clip, found no frames")
    seconds = (max(shown_at) - min(shown_at)) * int(base[1]) / int(base[2])
    return len(shown_at), int(size[1]) * int(size[2]), (len(shown_at) - 1) / seconds if seconds else 1.0
