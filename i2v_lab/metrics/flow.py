"""Motion by dense optical flow (DIS: Kroeger et al. 2016): how much, in which direction, how smooth, and how consistent.

Flow is computed on grey frames of one size (`SampledFrames.small`), their histograms equalized, so that a change of light
is not taken for movement. Where a picture has no texture flow is a guess: pixels count by their gradient, and those near the rim,
where things enter that have no match, do not count. Where flow there and back disagree, nothing was followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from i2v_lab.clip.progress import Progress
from i2v_lab.metrics.frames import SampledFrames
from i2v_lab.metrics.pixels import ssim

Array = npt.NDArray[np.floating[Any]]
GreyFrame = npt.NDArray[np.uint8]

SHORTEST = 32  # pixels of a side: smaller frames have no flow
INNER = 0.42  # of a side, from the middle: what counts
TEXTURE = 1.0  # grey levels a pixel: below, nothing can be followed
TEXTURED = 0.01  # share of the inner pixels that must have that much
# Share of the texture that flow must follow, there and back: below, lengths are too short, up to a tenth of the true one.
FOLLOWED = 0.5
VISIBLE = 0.1  # share of the first frame that must still be seen for drift
DRIFT_FRAMES = 8  # frames that are compared with the first one


def coordinates(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """x (h, w) to the right and y (h, w) downwards of each pixel, from the middle, in short sides."""
    height, width = shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return (x - (width - 1) / 2) / min(height, width), (y - (height - 1) / 2) / min(height, width)


class Estimator:
    """Flow from one grey frame to another: float32 (h, w, 2), pixels to the right and downwards.

    `back` is the quick one (OpenCV's preset FAST, about four times as fast), good enough to check the other (MEDIUM).
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._quick = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def __call__(self, now: GreyFrame, after: GreyFrame, guess: Array | None = None) -> Array:
        return self._calc(self._dis, now, after, guess)

    def back(self, after: GreyFrame, now: GreyFrame, guess: Array | None = None) -> Array:
        return self._calc(self._quick, after, now, guess)

    def _calc(self, dis: Any, one: GreyFrame, other: GreyFrame, guess: Array | None) -> Array:
        self._progress.step()
        return np.asarray(dis.calc(cv2.equalizeHist(one), cv2.equalizeHist(other), None if guess is None else guess.copy()))


def texture(grey: GreyFrame) -> Array:
    """Weight of each pixel's flow: its gradient in grey levels a pixel; 0 near the rim and where it is flat."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    found = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8))
    found[found < TEXTURE] = 0
    height, width = grey.shape
    top, left = round((0.5 - INNER) * height), round((0.5 - INNER) * width)
    inner = np.zeros_like(found)
    inner[top : height - top, left : width - left] = found[top : height - top, left : width - left]
    return np.asarray(inner)


def fit(flow: Array, x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """Least squares of a flow field on a camera's movement: flow = (r, d) + z (x, y) + t (-y, x).

    Args:
        flow: (h, w, 2), in any unit. x, y: as from `coordinates`. weight: (h, w), not all 0.

    Returns:
        r (right), d (down), z (growth) and t (clockwise turn), all as displacement, z and t at one short side from the middle;
        and what is left of the flow (h, w, 2).
    """
    one, zero = np.ones_like(x), np.zeros_like(x)
    across = np.stack([one, zero, x, -y], -1)  # y grows downwards: (-y, x) turns clockwise
    down = np.stack([zero, one, y, x], -1)
    weighted = [(part * weight[..., None]).reshape(-1, 4) for part in (across, down)]
    matrix = sum(a.T @ b.reshape(-1, 4) for a, b in zip(weighted, (across, down), strict=True))
    values = sum(a.T @ flow[..., axis].ravel() for axis, a in enumerate(weighted))
    found = np.linalg.lstsq(np.asarray(matrix, np.float64), np.asarray(values, np.float64), rcond=None)[0]
    return found, flow - np.stack([across @ found, down @ found], -1)


def warp(picture: GreyFrame, flow: Array) -> Array:
    """The picture moved back along the flow: each pixel is taken from where the flow points, float32 (h, w)."""
    return np.asarray(
        cv2.remap(picture.astype(np.float32), *_targets(flow), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    ).clip(0, 255)


def _targets(flow: Array) -> tuple[Array, Array]:
    """x and y, float32 (h, w), of where each pixel goes."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return x + flow[..., 0].astype(np.float32), y + flow[..., 1].astype(np.float32)


def agree(there: Array, back: Array) -> npt.NDArray[np.bool_]:
    """Where a flow and the one back agree and stay in the frame (Sundaram et al. 2010): |a + b|² < 0.01 (|a|² + |b|²) + 0.5."""
    height, width = there.shape[:2]
    to_x, to_y = _targets(there)
    returned = cv2.remap(back, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    return np.asarray(inside & (_square(there + returned) < 0.01 * (_square(there) + _square(returned)) + 0.5))


def _square(flow: Array) -> Array:
    return flow[..., 0] ** 2 + flow[..., 1] ** 2


class Step(NamedTuple):
    """What the flow from one frame to the next comes to. The field itself is not kept: of a long clip all would be 130 MB.

    Attributes:
        fit: right, down, growth and turn, in short sides; see `fit`. followed: share of the texture where flow there and back agree.
        length, top: mean length, and that of the longest 5 %, in pixels of the small frames.
        miss: mean squared difference to the next frame moved back, where the flows agree; NaN where they do nowhere.
    """

    fit: Array
    followed: float
    length: float
    top: float
    miss: float


@dataclass(frozen=True)
class ClipFlow:
    """The flow of a clip: each frame to the next, where both have texture.

    Attributes:
        sampled: the clip.
    """

    sampled: SampledFrames
    estimator: Estimator = field(default_factory=Estimator)

    @cached_property
    def grey(self) -> list[GreyFrame]:
        """The small frames, (h, w) each."""
        return [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in self.sampled.small]

    @property
    def short_side(self) -> int:
        """Of the small frames, pixels."""
        return min(self.grey[0].shape)

    def _weight(self, k: int) -> Array:
        """`texture` of a frame; all 0 where there is too little of it."""
        found = texture(self.grey[k])
        return found if np.count_nonzero(found) >= TEXTURED * (2 * INNER) ** 2 * found.size else np.zeros_like(found)

    def flows(self) -> Iterator[tuple[int, int, Array, Array]]:
        """Of successive frames, where both have texture: (now, after, flow (h, w, 2) in pixels of the small frames, weight (h, w))."""
        known: dict[int, Array] = {}
        for now, after in self.sampled.pairs:
            known = {k: known[k] if k in known else self._weight(k) for k in (now, after)}
            if known[now].any() and known[after].any():
                yield now, after, self.estimator(self.grey[now], self.grey[after]), known[now]

    @cached_property
    def steps(self) -> list[Step]:
        x, y = coordinates(self.grey[0].shape)
        found = []
        for now, after, flow, weight in self.flows():
            mask = agree(flow, self.estimator.back(self.grey[after], self.grey[now]))
            length = np.sqrt(_square(flow))
            seen = np.sort(length[weight > 0])
            top = seen[-max(1, round(0.05 * len(seen))) :].mean()
            miss = (self.grey[now].astype(np.float32) - warp(self.grey[after], flow))[mask]
            found.append(Step(
                fit(flow / self.short_side, x, y, weight)[0], float(weight[mask].sum() / weight.sum()),
                float(np.average(length, weights=weight)), float(top), float((miss**2).mean()) if miss.size else math.nan,
            ))  # fmt: skip
        return found

    def followed(self) -> float:
        """Share of the texture that flow follows there and back, the mean over steps: 0 to 1."""
        return float(np.mean([step.followed for step in self.steps]))

    def speeds(self) -> tuple[float, float]:
        """(mean length, mean length of the longest 5 %) of the flow, in widths of the clip a second."""
        rate = self.sampled.fps / self.grey[0].shape[1]
        return float(np.mean([step.length for step in self.steps])) * rate, float(np.mean([step.top for step in self.steps])) * rate

    @property
    def fits(self) -> Array:
        """(steps, 4): right, down, growth and turn a second, in short sides; see `fit`."""
        return np.array([step.fit for step in self.steps]) * self.sampled.fps

    def warping_error(self) -> float:
        """Root mean square of each frame less the next one moved back, where flow there and back agree, grey levels."""
        errors = [step.miss for step in self.steps if not math.isnan(step.miss)]
        return math.sqrt(np.mean(errors)) if errors else math.nan

    def smoothness(self) -> float:
        """(255 - mean absolute error) / 255 of odd frames predicted from their neighbours; NaN with fewer than three."""
        errors = []
        for start, end in self.sampled.runs:
            for k in range(start + 1, end - 1, 2):
                before, after = self.grey[k - 1], self.grey[k + 1]
                there, back = self.estimator(before, after), self.estimator(after, before)
                predicted = (warp(before, back / 2) + warp(after, there / 2)) / 2
                errors.append(float(np.abs(self.grey[k].astype(np.float32) - predicted).mean()))
        return (255 - float(np.mean(errors))) / 255 if errors else math.nan

    def drift(self) -> float:
        """Mean SSIM of the first frame and later ones moved back to it, where both show the same; NaN where none does.

        Up to eight frames are taken, evenly, the last among them.
        """
        first, found = self.grey[0], []
        later = sorted({round(k) for k in np.linspace(0, len(self.grey) - 1, DRIFT_FRAMES + 1)} - {0})
        there: Array | None = None
        back: Array | None = None
        for k in later:
            # From the flow of the frame before: what moved far is found so.
            there, back = self.estimator(first, self.grey[k], there), self.estimator.back(self.grey[k], first, back)
            mask = agree(there, back)
            if mask.mean() >= VISIBLE:
                found.append(ssim(first, warp(self.grey[k], there), mask))
        known = [value for value in found if not math.isnan(value)]
        return float(np.mean(known)) if known else math.nan
