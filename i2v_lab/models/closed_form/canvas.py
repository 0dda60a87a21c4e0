"""The picture and what it has beyond the crop, from which frames of a motion are rendered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from i2v_lab.clip.picture import Picture
from i2v_lab.models.closed_form.framing import Bounds, Path, plan_path
from i2v_lab.models.closed_form.motions import Motion

CELLS = 64  # latent cells a frame and channel: 8 x 8 on a square
SHORT_MAX = 32767  # OpenCV's remap takes no more rows at once
FINE = 8  # pixels of the working picture a cell, along each side: motions smaller than a cell still show
BLUR_CELLS = 64  # cells of a short side in which the blur beyond the picture is computed
BLURS = ((0, 2.0), (4, 4.0), (12, 8.0), (24, 16.0))  # (cells beyond the edge, standard deviation in cells)


@dataclass(frozen=True)
class Canvas:
    """The crop together with what the picture has beyond it, resampled to one scale, for sampling at any position.

    Attributes:
        pixels: uint8 RGB, (h, w, 3).
        height, width: size of the crop within. top, left: where it begins.
    """

    pixels: npt.NDArray[np.uint8]
    height: int
    width: int
    top: int
    left: int

    @classmethod
    def of(cls, image: Picture, height: int, width: int) -> Canvas:
        """Resample so that the crop is exactly `image.crop(height, width)`, with up to its own size beyond each edge."""
        left, top, right, bottom = image.crop_box(height, width)
        across, down = (right - left) / width, (bottom - top) / height  # picture pixels a canvas pixel
        before_x, after_x = (min(width, int(room / across)) for room in (left, image.width - right))
        before_y, after_y = (min(height, int(room / down)) for room in (top, image.height - bottom))
        box = (
            max(0.0, left - before_x * across),
            max(0.0, top - before_y * down),
            min(float(image.width), right + after_x * across),
            min(float(image.height), bottom + after_y * down),
        )
        size = (width + before_x + after_x, height + before_y + after_y)
        pixels = np.asarray(Image.fromarray(image.rgb).resize(size, Image.Resampling.LANCZOS, box=box))
        return cls(pixels, height, width, before_y, before_x)

    @property
    def short(self) -> int:
        """The crop's short side in pixels: the unit of length of a motion."""
        return min(self.height, self.width)

    def path(self, motion: Motion, times: npt.NDArray[np.float32]) -> Path:
        """How a motion goes on this canvas; `times` (F,) are those of all frames of the clip, in seconds."""
        x, y = self.width / 2 - 0.5, self.height / 2 - 0.5  # from the middle of the crop to its outermost pixel centres
        down, across = self.pixels.shape[:2]
        edges = (x, y, -x - self.left, -y - self.top, across - 1 - self.left - x, down - 1 - self.top - y)
        return plan_path(motion, Bounds(*(edge / self.short for edge in edges)), times)

    def render(self, motion: Motion, path: Path, interpolation: int) -> npt.NDArray[np.float32]:
        """The frames of one motion along its path, or a part of it: float32 from 0 to 255, (F, height, width, 3)."""
        map_x, map_y = self.positions(motion, path)
        pixels = self.pixels
        if motion.camera.beyond:
            pixels, map_x, map_y = self.beyond, map_x + self.margins[1], map_y + self.margins[0]
        # Many frames in one call, one below the other: what OpenCV costs a call would otherwise be most of the time.
        moved = np.empty((*map_x.shape, 3), np.float32)
        group = max(1, SHORT_MAX // self.height)
        for first in range(0, len(moved), group):
            part = slice(first, first + group)
            rows = cv2.remap(pixels, map_x[part].reshape(-1, self.width), map_y[part].reshape(-1, self.width), interpolation,
                             borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
            moved[part] = rows.reshape(-1, self.height, self.width, 3)
        return np.clip(moved * motion.brightness(path.time)[..., None], 0, 255)

    def positions(self, motion: Motion, path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """x and y in `pixels`, each float32 (F, height, width), from which each pixel of the clip is taken.

        All are on the picture's pixels, except where the camera movement needs what is beyond it.
        """
        x = ((np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) / self.short)[None, :] * path.scale
        y = ((np.arange(self.height, dtype=np.float32) + 0.5 - self.height / 2) / self.short)[:, None] * path.scale
        source_x, source_y = motion.source(x, y, path.time, path.camera_time)
        shape = (len(path.time), self.height, self.width)
        map_x = np.broadcast_to(source_x * self.short + (self.width / 2 - 0.5 + self.left), shape).astype(np.float32)
        map_y = np.broadcast_to(source_y * self.short + (self.height / 2 - 0.5 + self.top), shape).astype(np.float32)
        return map_x, map_y

    @property
    def margins(self) -> tuple[int, int]:
        """Rows above and below, and columns left and right, by which `beyond` is larger than `pixels`."""
        down, across = self.pixels.shape[:2]
        missing_y = max(self.height // 2 - self.top, self.height // 2 + self.top + self.height - down, 0)
        missing_x = max(self.width // 2 - self.left, self.width // 2 + self.left + self.width - across, 0)
        return missing_y + 2, missing_x + 2

    @cached_property
    def beyond(self) -> npt.NDArray[np.uint8]:
        """The picture in the middle of a soft blur of the colours at its edge: uint8 RGB, (h + 2 rows, w + 2 columns, 3).

        The further out, the softer. It is computed on a small copy, so it takes the same time at any resolution.
        """
        (down, across), (rows, columns) = self.pixels.shape[:2], self.margins
        cell = max(1.0, self.short / BLUR_CELLS)
        around_y, around_x = round(rows / cell), round(columns / cell)
        small = cv2.resize(self.pixels, (max(1, round(across / cell)), max(1, round(down / cell))), interpolation=cv2.INTER_AREA)
        wide = cv2.copyMakeBorder(small, around_y, around_y, around_x, around_x, cv2.BORDER_REPLICATE).astype(np.float32)
        outside = [
            np.maximum(np.maximum(around - np.arange(size), np.arange(size) - (size - 1 - around)), 0)
            for around, size in ((around_y, len(wide)), (around_x, wide.shape[1]))
        ]
        distance = np.hypot(outside[0][:, None], outside[1][None, :])  # cells beyond the edge
        soft = np.zeros_like(wide)
        starts = [start for start, _ in BLURS]
        for index, (_, sigma) in enumerate(BLURS):
            share = np.interp(distance, starts, np.eye(len(BLURS))[index]).astype(np.float32)[..., None]
            soft += share * cv2.GaussianBlur(wide, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        size = (across + 2 * columns, down + 2 * rows)
        found = cv2.resize(np.rint(soft).astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)
        found[rows : rows + down, columns : columns + across] = self.pixels
        return found


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of latent cells for a clip: about CELLS in all, nearly square, whatever the resolution."""
    return max(2, round((CELLS * height / width) ** 0.5)), max(2, round((CELLS * width / height) ** 0.5))
