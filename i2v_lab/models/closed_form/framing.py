"""Keeps what a motion shows inside the picture.

A motion first uses the room that the picture has beyond the crop. Where there is no more, a slow zoom in goes along, as
documentary editors do (the Ken Burns effect). A camera movement that needs more than that is slowed down until it fits.

Zooming out and rotating need what is outside (`Part.beyond`): there the canvas continues the picture as a soft blur.
They too are slowed down where they would show more than half a clip beyond the picture.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from i2v_lab.models.closed_form.motions import Array, Motion

ZOOM_MAX = 2.0  # no clip is zoomed in further than this for lack of room
REFINEMENTS = 6  # of the zoom that is needed; the first is exact for a pan
HALVINGS = 12  # of the interval in which the speed of a slowed camera is searched
CLOSE = 1e-4  # of half a crop: a tenth of a pixel at the largest size counts as inside
OUTLINE = 65  # points along each edge of the clip: a ripple has five waves along it


class Bounds(NamedTuple):
    """The outermost pixel centres of the crop and of the picture, in the coordinates of motions.py."""

    half_width: float
    half_height: float
    left: float
    top: float
    right: float
    bottom: float

    def grown(self) -> Bounds:
        """The same with half a crop beyond each edge of the crop, or the picture where that reaches further."""
        across, down = 2 * self.half_width, 2 * self.half_height
        return self._replace(
            left=min(self.left, -across), top=min(self.top, -down), right=max(self.right, across), bottom=max(self.bottom, down)
        )


class Path(NamedTuple):
    """How a motion goes on one canvas: three numbers a frame, each (F, 1, 1).

    Attributes:
        time: seconds. camera_time: seconds of the camera's movement; less than `time` where it is slowed down.
        scale: by what positions are multiplied before the motion; below 1 is a zoom in.
    """

    time: npt.NDArray[np.float32]
    camera_time: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def part(self, first: int, last: int) -> Path:
        """The frames from `first` up to but not including `last`."""
        return Path(*(values[first:last] for values in self))


def plan_path(motion: Motion, bounds: Bounds, times: npt.NDArray[np.float32]) -> Path:
    """The path of a motion that stays inside.

    Args:
        times: (F,), seconds, rising from 0.
    """
    time = times.astype(np.float32)[:, None, None]
    one = np.ones_like(time)
    if motion.camera.beyond:
        return Path(time, time * _pace(motion, bounds.grown(), time, one), one)
    path, overshoot = _zoomed(motion, bounds, Path(time, time, one))
    if overshoot > CLOSE:
        camera_time = time * _pace(motion, bounds, time, one / ZOOM_MAX)
        path, _ = _zoomed(motion, bounds, Path(time, camera_time, one))
    zoom = _gentlest(-np.log(path.scale[:, 0, 0]))
    return path._replace(scale=np.exp(-zoom).astype(np.float32)[:, None, None])


def _zoomed(motion: Motion, bounds: Bounds, path: Path) -> tuple[Path, float]:
    """The path with the zoom that each frame needs, and by how much the clip is still outside."""
    for _ in range(REFINEMENTS):
        overshoot = _overshoot(motion, bounds, path)
        if overshoot.max() <= CLOSE:
            break
        path = path._replace(scale=np.maximum(path.scale - overshoot, 1 / ZOOM_MAX))
    return path, float(overshoot.max())


@lru_cache(maxsize=8)
def _outline(bounds: Bounds) -> tuple[Array, Array]:
    """x and y of points around the edge of the clip, each (1, P)."""
    along, edge = np.linspace(-1, 1, OUTLINE, dtype=np.float32), np.ones(OUTLINE, np.float32)
    x = np.concatenate([along, along, edge, -edge]) * bounds.half_width
    y = np.concatenate([edge, -edge, along, along]) * bounds.half_height
    return x[None], y[None]


def _overshoot(motion: Motion, bounds: Bounds, path: Path) -> Array:
    """How far the clip reaches beyond the bounds, as a share of half the crop: (F, 1, 1), 0 where it is inside."""
    outline = _outline(bounds)
    x, y = motion.source(outline[0] * path.scale, outline[1] * path.scale, path.time, path.camera_time)
    across = np.maximum(x - bounds.right, bounds.left - x) / bounds.half_width
    down = np.maximum(y - bounds.bottom, bounds.top - y) / bounds.half_height
    return np.maximum(np.maximum(across, down).max(2, keepdims=True), 0)


def _pace(motion: Motion, bounds: Bounds, time: Array, scale: Array) -> float:
    """The highest speed of the camera, up to 1 (its own), at which a clip of this scale stays inside."""

    def fits(pace: float) -> bool:
        return bool(_overshoot(motion, bounds, Path(time, time * np.float32(pace), scale)).max() <= CLOSE)

    low, high = 0.0, 1.0
    if fits(high):
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _gentlest(needed: Array) -> Array:
    """The zoom over the frames that is nowhere below what is needed, never goes back and never speeds up: (F,)."""
    corners = [0]
    while corners[-1] < len(needed) - 1:
        rises = (needed[corners[-1] + 1 :] - needed[corners[-1]]) / np.arange(1, len(needed) - corners[-1])
        if rises.max() <= 0:
            break
        corners.append(corners[-1] + 1 + int(rises.argmax()))
    return np.interp(np.arange(len(needed)), corners, needed[corners])
