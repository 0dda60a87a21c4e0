"""How a script opens a picture and crops it. The source of these functions is what it carries, so they use Pillow alone, and Python's library.

`recipe` tries them on the picture itself: what a script is given makes the pixels of `Picture.crop`, or there is no script.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageCms, ImageOps

from i2v_lab.clip.picture import Picture
from i2v_lab.errors import PictureError, printable


def open_rgb(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def open_upright(path: str) -> Image.Image:
    """RGB, turned as its EXIF says; transparent parts are white."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGBA").convert("RGB"), mask=image.convert("RGBA").getchannel("A"))
    return white


def open_in_srgb(path: str) -> Image.Image:
    """RGB, turned as its EXIF says, converted from its colour profile to sRGB; transparent parts are white."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    opaque = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[profile.profile.xcolor_space]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image = ImageCms.buildTransform(profile, srgb, mode, "RGB").apply(image.convert(mode))
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=opaque)
    return white


def crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The largest centred part with the shape of the clip, not rounded to whole pixels, in the size of the clip."""
    scale = min(image.height / height, image.width / width)
    tall, wide = min(height * scale, image.height), min(width * scale, image.width)
    left, top = (image.width - wide) / 2, (image.height - tall) / 2
    box = (left, top, min(left + wide, image.width), min(top + tall, image.height))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


_WAYS: Mapping[Callable[[str], Image.Image], tuple[str, str]] = {
    open_rgb: ("", "Image"),
    open_upright: ("", "Image, ImageOps"),
    open_in_srgb: ("import io\n", "Image, ImageCms, ImageOps"),
}
"""{function: (the import of the standard library that it needs, its imports from PIL)}, the shortest first."""


def recipe(picture: Picture, height: int, width: int) -> dict[str, str]:
    """What a template of a script needs, by its names, to make the crop that the product makes of this picture.

    Raises:
        PictureError: it is of a kind that takes more than Pillow's own functions.
    """
    wanted, path = picture.crop(height, width), str(picture.path)
    for way, (standard, pil) in _WAYS.items():
        if _gives(way, path, wanted):
            with Image.open(path) as opened:
                heif = opened.format == "HEIF"
            return {
                "standard": standard, "pil": pil, "open": way.__name__,
                "heif": "import pillow_heif\n" if heif else "", "opener": "pillow_heif.register_heif_opener()\n" if heif else "",
                "functions": f"{inspect.getsource(way)}\n\n{inspect.getsource(crop)}".rstrip(),
            }  # fmt: skip
    raise PictureError(f"{printable(path)}: expected a picture that Pillow alone opens as the clip had it, got one that takes more "
                       f"({'; '.join(picture.notes) or 'of a rare kind'}); save it as PNG, and make the clip of that")  # fmt: skip


def _gives(way: Callable[[str], Image.Image], path: str, wanted: np.ndarray) -> bool:
    try:
        height, width = wanted.shape[:2]
        return bool(np.array_equal(np.asarray(crop(way(path), height, width)), wanted))
    except Exception:  # noqa: BLE001 - not a way to open this picture
        return False
