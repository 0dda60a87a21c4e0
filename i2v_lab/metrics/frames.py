"""The frames of a clip that are looked at: all of a short one, runs of successive frames spread over a long one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from i2v_lab.clip import video
from i2v_lab.clip.ffmpeg import ask, shown
from i2v_lab.errors import ClipError

Frames = npt.NDArray[np.uint8]

FRAMES_MAX = 256  # frames that are looked at
BYTES_MAX = 400_000_000  # and no more of them than this in memory
RUN = 8  # successive frames in each place of a longer clip
PIXELS_MAX = 89_478_485  # of one frame: as of an input picture


@dataclass(frozen=True)
class Sampled:
    """Frames of a clip.

    Attributes:
        frames: uint8 RGB, (N, H, W, 3).
        runs: the beginning and end, as of a slice, of each run of successive frames among them.
        total: how many frames the clip has.
    """

    frames: Frames
    runs: tuple[tuple[int, int], ...]
    total: int


def whole(frames: Frames) -> Sampled:
    """All frames of a clip."""
    return Sampled(frames, ((0, len(frames)),), len(frames))


def read_evenly(path: Path, extent: tuple[int, int] | None = None) -> Sampled:
    """Up to 256 frames of a clip, and up to 400 MB of them; of a longer one up to 32 runs of 8, spread evenly.

    Args:
        extent: (frames, pixels of one) where they are known; None: looked up.

    Raises:
        ClipError: no such file, not a whole MP4, WebM or GIF, or frames of more than 89 megapixels.
    """
    total, pixels = extent or _extent(path)
    if pixels > PIXELS_MAX:
        raise ClipError(f"{shown(path)}: expected frames of at most {PIXELS_MAX / 1e6:.0f} megapixels, got {pixels / 1e6:.0f}")
    room = max(2, min(FRAMES_MAX, BYTES_MAX // max(1, 3 * pixels)))
    if total <= room:
        return whole(video.read(path))
    run = min(RUN, room)
    stride = -(-total // (room // run))  # from one run to the next, rounded up
    # As video.read, but for the choice. Every frame is decoded, few are handed over.
    chosen = f"select=lt(mod(n\\,{stride})\\,{run}),scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
    data = ask(path, ["-map", "0:v:0", "-vf", chosen, "-fps_mode", "passthrough", "-c:v", "ppm", "-pix_fmt", "rgb24",
                      "-f", "image2pipe", "-"])  # fmt: skip
    frames = _parse(data, path)
    runs = tuple((start, min(start + run, len(frames))) for start in range(0, len(frames), run))
    return Sampled(frames, runs, total)


def _extent(path: Path) -> tuple[int, int]:
    """(frames, pixels of one) as the file says, without decoding it."""
    text = ask(path, ["-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"]).decode("ascii", "replace")
    size = re.search(r"^#dimensions 0: (\d+)x(\d+)$", text, re.MULTILINE)
    packets = len(re.findall(r"^0,", text, re.MULTILINE))
    if size is None or not packets:
        raise ClipError(f"{shown(path)}: expected a clip, found no frames")
    return packets, int(size[1]) * int(size[2])


def _parse(data: bytes, path: Path) -> Frames:
    """PPM pictures of one size, one after another."""
    head = re.match(rb"P6\n(\d+) (\d+)\n255\n", data)
    if head is None:
        raise ClipError(f"{shown(path)}: expected a clip, found no frames")
    width, height = int(head[1]), int(head[2])
    rows = np.frombuffer(data, np.uint8)
    each = head.end() + height * width * 3
    if rows.size % each:
        raise ClipError(f"{shown(path)}: expected frames of one size, {width}x{height}; they change within the clip")
    return rows.reshape(-1, each)[:, head.end() :].reshape(-1, height, width, 3)
