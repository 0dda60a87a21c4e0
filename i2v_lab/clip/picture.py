"""The input picture: 8-bit RGB, cropped to the shape of the clip."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from i2v_lab.clip.decode import MAX_FILE_BYTES, decode, read_file
from i2v_lab.errors import PictureError, printable

__all__ = ["BLURRED_BELOW", "MAX_FILE_BYTES", "SAMPLES", "Picture", "open_picture", "sample_path"]

Pixels = npt.NDArray[np.uint8]

SAMPLES: Mapping[str, str] = {
    "coffee": "coffee.png", "cat": "chelsea.png", "astronaut": "astronaut.png", "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
}  # fmt: skip
"""Photographs that come with scikit-image, by the name that follows `sample:`, and their files. Nothing is downloaded."""

# Sharpness of crops of the five sample photographs, lowest and highest, after a Gaussian blur of some radius in pixels:
#
#     radius           0        0.5        1       1.5      2       3
#     256x256  1547-5531   642-2243   77-329   18-84   8-31     3-9
#     512x512   249-2834   179-1148   53-193   15-54   6-22     2-6    (enlarged up to 1.7 times)
#
# So 40 is above all values for a blur of 2 pixels or more, and below all values for a blur of 1 pixel or none.
BLURRED_BELOW = 40.0
"""A crop whose `Picture.sharpness` is below this looks blurred."""

_SIDE_SHOWN = 1024  # longest side of `draw_crop`, in pixels


@dataclass(frozen=True, eq=False)
class Picture:
    """An opened picture.

    Attributes:
        rgb: the picture, uint8 RGB, (H, W, 3), read-only.
        sha256: hex digest of the file's bytes: part of a run's key.
        path: the file it was read from, absolute.
        notes: what was changed to make RGB of the file, in a user's words; empty if nothing was.
    """

    rgb: Pixels
    sha256: str
    path: Path
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.rgb.shape[1])

    def crop_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The largest centred part with the shape of a clip of `height` x `width` pixels.

        Returns:
            left, top, right, bottom in pixels of the picture, not rounded: 0 <= left < right <= W, 0 <= top < bottom <= H.

        Raises:
            PictureError: a side is below 1.
        """
        if height < 1 or width < 1:
            raise PictureError(f"{printable(self.path)}: expected a crop of at least 1x1 pixels, got {height}x{width}")
        scale = min(self.height / height, self.width / width)
        box_height, box_width = min(height * scale, float(self.height)), min(width * scale, float(self.width))
        left, top = (self.width - box_width) / 2, (self.height - box_height) / 2
        return left, top, min(left + box_width, float(self.width)), min(top + box_height, float(self.height))

    def crop(self, height: int, width: int) -> Pixels:
        """The part inside `crop_box`, resampled (Lanczos): uint8 RGB, (height, width, 3), all of it picture."""
        box = self.crop_box(height, width)
        # The filter takes the edges of the box as fractions of a pixel, so nothing is rounded and no edge stays empty.
        return np.array(Image.fromarray(self.rgb).resize((width, height), Image.Resampling.LANCZOS, box=box))

    def draw_crop(self, height: int, width: int) -> Pixels:
        """The whole picture with a thin line around the crop and the rest darkened: uint8 RGB, (h, w, 3).

        It has the picture's shape; its longest side has at most 1024 pixels.
        """
        box = self.crop_box(height, width)
        scale = min(1.0, _SIDE_SHOWN / max(self.height, self.width))
        size = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        small = Image.fromarray(self.rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        # A picture of one row has no half pixels to show: the box keeps at least one.
        left, top = (min(int(edge * scale + 0.5), side - 1) for edge, side in zip(box[:2], size, strict=True))
        right, bottom = max(left + 1, round(box[2] * scale)), max(top + 1, round(box[3] * scale))
        shown = small.point([value * 2 // 5 for value in range(256)] * 3)
        shown.paste(small.crop((left, top, right, bottom)), (left, top))
        if min(right - left, bottom - top) > 4:  # a line would cover all of a thinner box
            ImageDraw.Draw(shown).rectangle((left, top, right - 1, bottom - 1), outline=(255, 255, 255))
        return np.array(shown)

    def upscale(self, height: int, width: int) -> float:
        """How many times the crop is enlarged to `height` x `width`: 1.0 is not at all, 2.0 makes 2x2 pixels of each."""
        left, _, right, _ = self.crop_box(height, width)
        return max(1.0, width / (right - left))

    def sharpness(self, height: int, width: int) -> float:
        """How sharp the crop is where it is sharpest; see BLURRED_BELOW.

        The variance of the Laplacian (4 times a pixel less its four neighbours) of the grey crop, 0 to 255, in each of
        4x4 tiles; the largest of the 16. A sharp face in front of a soft wall makes a sharp picture, so a mean would mislead.
        """
        grey = self.crop(height, width).astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)  # (H, W)
        around = np.pad(grey, 1, mode="edge")
        edges = 4 * grey - around[:-2, 1:-1] - around[2:, 1:-1] - around[1:-1, :-2] - around[1:-1, 2:]  # (H, W)
        rows = np.array_split(edges, min(4, height), axis=0)
        return max(float(tile.var()) for row in rows for tile in np.array_split(row, min(4, width), axis=1))


def sample_path(name: str) -> Path:
    """The file of a sample photograph, by a name of SAMPLES. scikit-image is located, not imported.

    Raises:
        PictureError: no such sample, or scikit-image is not installed.
    """
    if name not in SAMPLES:
        raise PictureError(f"sample:{printable(name)[-300:]}: expected one of {', '.join(f'sample:{known}' for known in SAMPLES)}")
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise PictureError(f"sample:{name}: the sample photographs come with scikit-image: pip install scikit-image")
    return Path(found.origin).parent / "data" / SAMPLES[name]


def open_picture(source: str | os.PathLike[str]) -> Picture:
    """Open a picture and make 8-bit RGB of it.

    EXIF rotation is applied, transparent parts are put on white, an embedded colour profile is converted to sRGB, more
    than 8 bits are scaled to 8, and of several frames or pages the first (of a HEIC file, the main one) is used.

    Args:
        source: a file, or `sample:` and a name of SAMPLES.

    Raises:
        PictureError: not a regular file, larger than 256 MiB or 89 megapixels, damaged, or nothing that can be decoded.
    """
    text = os.fspath(source)
    if text.startswith("sample:"):
        path = sample_path(text.removeprefix("sample:"))
    elif re.match(r"https?://", text):
        raise PictureError(f"{printable(text)[-300:]}: expected a file, got a web address; download the picture first")
    else:
        path = Path(text)
    image, notes = decode(data := read_file(path), path)
    rgb = np.asarray(image)  # (H, W, 3)
    rgb.setflags(write=False)
    return Picture(rgb, hashlib.sha256(data).hexdigest(), path.absolute(), tuple(notes))
