"""The frames of a clip that are measured: all of a short one, runs of successive frames spread over a long one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from i2v_lab.clip import video
from i2v_lab.clip.decode import MAX_PIXELS
from i2v_lab.clip.ffmpeg import ask
from i2v_lab.clip.video import Frames
from i2v_lab.errors import ClipError, printable

FRAMES_MAX = 256  # frames that are measured
BYTES_MAX = 400_000_000  # and no more of them than this in memory
RUN = 8  # successive frames in each place of a longer clip


@dataclass(frozen=True)
class SampledFrames:
    """Frames of a clip.

    Attributes:
        frames: uint8 RGB, (N, H, W, 3).
        runs: the beginning and end, as of a slice, of each run of successive frames among them.
        total: how many frames the clip has.
    """

    frames: Frames
    runs: tuple[tuple[int, int], ...]
    total: int


def whole(frames: Frames) -> SampledFrames:
    """All frames of a clip."""
    return SampledFrames(frames, ((0, len(frames)),), len(frames))


def read_evenly(path: Path, extent: tuple[int, int] | None = None) -> SampledFrames:
    """Up to 256 frames of a clip, and up to 400 MB of them; of a longer one up to 32 runs of 8, spread evenly.

    Args:
        extent: (frames, pixels of one) where they are known; None: looked up.

    Raises:
        ClipError: no such file, not a whole MP4, WebM or GIF, or frames of more than 89 megapixels.
    """
    total, pixels = extent or _extent(path)
    if pixels > MAX_PIXELS:
        raise ClipError(f"{printable(path)}: expected frames of at most {MAX_PIXELS / 1e6:.0f} megapixels, got {pixels / 1e6:.0f}")
    room = max(2, min(FRAMES_MAX, BYTES_MAX // max(1, 3 * pixels)))
    if total <= room:
        return whole(video.read(path))
    run = min(RUN, room)
    stride = -(-total // (room // run))  # from one run to the next, rounded up
    # Every frame is decoded, few are returned.
    frames = video.read(path, f"lt(mod(n\\,{stride})\\,{run})")
    runs = tuple((start, min(start + run, len(frames))) for start in range(0, len(frames), run))
    return SampledFrames(frames, runs, total)


def _extent(path: Path) -> tuple[int, int]:
    """(frames, pixels of one) as the file says, without decoding it."""
    text = ask(path, ["-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"]).decode("ascii", "replace")
    size = re.search(r"^#dimensions 0: (\d+)x(\d+)$", text, re.MULTILINE)
    packets = len(re.findall(r"^0,", text, re.MULTILINE))
    if size is None or not packets:
        raise ClipError(f"{printable(path)}: expected a clip, found no frames")
    return packets, int(size[1]) * int(size[2])
