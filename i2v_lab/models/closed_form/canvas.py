"""The picture and what it has beyond the crop, from which frames of a motion are rendered."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from i2v_lab.clip.picture import Picture
from i2v_lab.models.closed_form.motions import Motion

CELLS = 64  # latent cells a frame and channel: 8 x 8 on a square
SHORT_MAX = 32767  # OpenCV's remap takes no more rows at once
FINE = 8  # pixels of the working picture a cell, along each side: motions smaller than a cell still show


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

    def render(self, motion: Motion, times: npt.NDArray[np.float32], interpolation: int) -> npt.NDArray[np.float32]:
        """The clip of one motion at some times (seconds): float32 from 0 to 255, (F, height, width, 3)."""
        short = min(self.height, self.width)
        x = ((np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) / short)[None, :]
        y = ((np.arange(self.height, dtype=np.float32) + 0.5 - self.height / 2) / short)[:, None]
        time = times.astype(np.float32)[:, None, None]
        source_x, source_y = motion.source(x, y, time)
        shape = (len(times), self.height, self.width)
        map_x = np.broadcast_to(source_x * short + (self.width / 2 - 0.5 + self.left), shape).astype(np.float32)
        map_y = np.broadcast_to(source_y * short + (self.height / 2 - 0.5 + self.top), shape).astype(np.float32)
        # Many frames in one call, one below the other: what OpenCV costs a call would otherwise be most of the time.
        moved = np.empty((len(times), self.height, self.width, 3), np.float32)
        group = max(1, SHORT_MAX // self.height)
        for first in range(0, len(times), group):
            part = slice(first, first + group)
            rows = cv2.remap(self.pixels, map_x[part].reshape(-1, self.width), map_y[part].reshape(-1, self.width), interpolation,
                             borderMode=cv2.BORDER_REFLECT_101)  # fmt: skip
            moved[part] = rows.reshape(-1, self.height, self.width, 3)
        return np.clip(moved * motion.brightness(time)[..., None], 0, 255)


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of latent cells for a clip: about CELLS in all, nearly square, whatever the resolution."""
    return max(2, round((CELLS * height / width) ** 0.5)), max(2, round((CELLS * width / height) ** 0.5))
