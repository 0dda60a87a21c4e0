"""Pictures that the tests of `clip.picture` and `clip.decode` make, with known values."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms

from i2v_lab.clip.picture import Picture

pillow_heif.register_heif_opener()

# Six colours that all codecs keep apart; no symmetry, so every turn and mirror shows.
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 0, 0], [255, 255, 255]]], np.uint8)  # (2, 3, 3)
BLOCKS = COLOURS.repeat(16, axis=0).repeat(16, axis=1)  # (32, 48, 3): blocks of a JPEG's size
GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP16 = np.linspace(0, 65535, 4096).round().astype(np.uint16).reshape(64, 64)


def grey(values: np.ndarray) -> np.ndarray:
    """uint8 (H, W) as RGB (H, W, 3)."""
    return np.repeat(values[..., None], 3, axis=2)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand: `rows` are filter bytes and samples, as the format has them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def blocks(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(BLOCKS).convert(mode)


def with_alpha() -> Image.Image:
    """Columns of alpha 255, 0 and 51 over pure red."""
    red = np.zeros((4, 3, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, (255, 0, 51)
    return Image.fromarray(red)


RED_ON_WHITE = np.broadcast_to(np.array([[255, 0, 0], [255, 255, 255], [255, 204, 204]], np.uint8), (4, 3, 3))


def palette(**options: object) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return encode(image, **options)


def heic(bits: int = 8, more: int = 0, primary: int = 0, **options: object) -> bytes:
    """BLOCKS as an iPhone saves them; and `more` others, inverted, in the same file."""
    file, kept = pillow_heif.HeifFile(), io.BytesIO()
    for pixels in (BLOCKS, *[255 - BLOCKS] * more):
        values = pixels.astype(np.uint16) * 257 if bits > 8 else pixels
        file.add_frombytes("RGB;16" if bits > 8 else "RGB", (48, 32), values.tobytes())
    file.save(kept, quality=95, primary_index=primary, **options)
    return kept.getvalue()


def grey16_rgb() -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in RAMP16)
    return png(64, 64, 16, 2, rows)


def swapped_profile() -> bytes:
    """sRGB with the names of red and green exchanged: what it calls red is green."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return icc.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def oriented(kind: str, orientation: int) -> bytes:
    """BLOCKS stored turned, with the EXIF tag that undoes it (the inverse of each turn, written out)."""
    stored = {
        1: BLOCKS,
        2: BLOCKS[:, ::-1],
        3: BLOCKS[::-1, ::-1],
        4: BLOCKS[::-1],
        5: BLOCKS.transpose(1, 0, 2),
        6: np.rot90(BLOCKS),
        7: BLOCKS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(BLOCKS, -1),
    }.get(orientation, BLOCKS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(
        Image.fromarray(np.ascontiguousarray(stored)),
        kind,
        exif=exif.tobytes(),
        **({"quality": 95} if kind in ("JPEG", "HEIF") else {}),
    )


def white_is_zero() -> bytes:
    """16-bit grey TIFF in which 0 is white."""
    data = bytearray(encode(Image.fromarray(RAMP16), "TIFF"))
    photometric = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[photometric] = 0
    return bytes(data)


def animation(kind: str) -> bytes:
    others = [Image.new("RGB", (48, 32), colour) for colour in ("black", "white")]
    options = {"WEBP": {"lossless": True}, "MPO": {"quality": 95}}.get(kind, {})
    return encode(blocks(), kind, save_all=True, append_images=others, **options)


def key16(values: np.ndarray) -> bytes:
    """16-bit grey PNG in which value 0 is transparent."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, 0, rows, chunk(b"tRNS", b"\0\0"))


def picture_of(rgb: np.ndarray) -> Picture:
    return Picture(rgb, "", Path("made.png"))
