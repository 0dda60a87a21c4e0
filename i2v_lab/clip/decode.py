"""A picture's file to 8-bit RGB, safely.

People bring what their phone, scanner or browser saved. `decode` makes RGB of anything that can be decoded, and says in
words what it had to change; all else is one PictureError of one line. A picture comes from outside, so nothing in it is
trusted: no device or pipe is read, no decoder that starts a program is used, and what the file declares is checked before
memory is taken for it.
"""

from __future__ import annotations

import io
import re
import stat
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from i2v_lab.errors import Message, PictureError, printable

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 89_478_485
"""Pillow's own limit (a quarter of a GiB at 3 bytes a pixel); kept here too, in case another library switched Pillow's off."""

_MAX_SCANS = 100  # a progressive JPEG has about ten
_COUNT_FRAMES_BELOW = 4 * 2**20  # bytes: counting the frames of a GIF or TIFF walks the whole file

# Not EPS (starts Ghostscript), not rare formats. "JPEG" opens MPO, what some cameras write, as well.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "ICO", "QOI")
_EXPECTED = "expected a picture (JPEG, PNG, WebP, HEIC, AVIF, GIF, TIFF, BMP, JPEG 2000 or PPM)"
_HEIF = rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)"  # "mif1" may be AVIF too, which Pillow reads itself
_RAW_SUFFIXES = frozenset((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"))
_SAVE = "save it as JPEG or PNG and use that"
# What people take for a picture, and the beginnings of true ones: consulted only once decoding has failed.
_LIKELY: tuple[tuple[bytes, str, str], ...] = (
    (_HEIF, "a HEIC photograph of a kind that cannot be read, or a damaged one", _SAVE),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "a JPEG XL picture", _SAVE),
    (rb".{4}ftyp(?!avi[fs])|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", "a video", "take one frame out of it, as PNG"),
    (rb"%PDF", "a PDF document", "save the page as PNG"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "an EPS drawing", "export it as PNG"),
    (rb"(?i)\s*(<!doctype html|<html|<head)", "a web page", "download the picture itself, not the page that shows it"),
    (rb"(\xef\xbb\xbf)?\s*<[?!s].*?svg", "an SVG drawing", "export it as PNG"),
    (rb"8BPS", "a Photoshop document", _SAVE),
    (rb"II\*\x00|MM\x00\*", "a TIFF file of a kind that cannot be read, or a damaged one", _SAVE),
    (rb"\xff\xd8\xff|\x89PNG|.{4}ftypavi[fs]|GIF8|RIFF.{4}WEBP|BM", "a damaged or cut one", "get a fresh copy"),
    (rb"", "something else", "check that this is the right file"),
)
_TURNED = range(2, 9)  # values of the EXIF orientation tag of pictures that are not upright


def read_file(path: Path) -> bytes:
    """The bytes of a regular file of sensible size; its kind is checked first, since opening a pipe would wait for ever."""
    name = printable(path)[-300:]
    try:
        status = path.stat()
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            what = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}.get(kind, "a device")
            raise PictureError(f"{name}: expected a picture file, got {what}; name one file")
        if status.st_size > MAX_FILE_BYTES:
            size = f"{status.st_size / 2**20:.0f} MiB"
            raise PictureError(f"{name}: expected at most {MAX_FILE_BYTES // 2**20} MiB, got {size}; save a smaller copy")
        with path.open("rb") as file:
            data = file.read(status.st_size)  # no more, though it may grow meanwhile
    except FileNotFoundError:
        text = f"{name}: expected a picture file, got no such file; check the path, or try sample:coffee"
        raise PictureError(Message(text, "picture.not_found", name=name)) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise PictureError(f"{name}: expected a file that can be read, got an error: {reason}; check its name and rights") from None
    if not data:
        raise PictureError(f"{name}: expected a picture, got an empty file; get a fresh copy")
    return data


def decode(data: bytes, path: Path) -> tuple[Image.Image, list[str]]:
    """Mode RGB and the notes, from a file's bytes. Whatever Pillow raises becomes one PictureError."""
    name, suffix = printable(path)[-300:], path.suffix.lower()
    if suffix in _RAW_SUFFIXES:  # many are TIFF, which would open as the thumbnail inside
        raise PictureError(f"{name}: {_EXPECTED}, got a camera's raw file; develop it and save it as JPEG or PNG")
    formats = (*_FORMATS, "TGA") if suffix in (".tga", ".targa") else _FORMATS  # TGA has no signature: noise may look like it
    if re.match(_HEIF, data[:12], re.DOTALL):
        import pillow_heif  # only where it is needed: importing takes some 20 ms

        pillow_heif.register_heif_opener(thumbnails=False)
        formats = (*formats, "HEIF")
    notes: list[str] = []
    try:
        # The warnings filter belongs to the whole process, so another thread may undo it: the size is checked here as well.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(name, image.width * image.height)
                if image.format in ("JPEG", "MPO") and _jpeg_scans(data) > _MAX_SCANS:
                    raise PictureError(f"{name}: expected at most {_MAX_SCANS} scans in a JPEG, got more; {_SAVE}")
                if image.format == "PNG":  # its decoder passes over checksums, and leaves black what it cannot read
                    Image.open(io.BytesIO(data), formats=("PNG",)).verify()
                return _upright_rgb(image, len(data), notes), notes
    except PictureError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        digits = re.search(r"\d+", str(error))
        raise _too_large(name, int(digits[0]) if digits else MAX_PIXELS) from None
    except UnidentifiedImageError:
        what, remedy = next(row[1:] for row in _LIKELY if re.match(row[0], data[:4096], re.DOTALL))
        raise PictureError(f"{name}: {_EXPECTED}, got {what}; {remedy}") from None
    except MemoryError:
        raise PictureError(f"{name}: not enough memory to decode the picture; save a smaller copy") from None
    except Exception as error:  # noqa: BLE001 - decoders meet damaged bytes with every kind of exception
        reason = printable(" ".join(str(error).split())[:120] or type(error).__name__)
        raise PictureError(f"{name}: expected a whole picture, got a damaged or cut one ({reason}); get a fresh copy") from None


def _too_large(name: str, pixels: int) -> PictureError:
    allowed, came = f"{MAX_PIXELS / 1e6:.1f} megapixels", f"{pixels / 1e6:.1f}"
    return PictureError(f"{name}: expected at most {allowed}, got {came}; shrink the picture and try again")


def _jpeg_scans(data: bytes) -> int:
    """How many passes over the pixels a JPEG asks for: a small file can ask for thousands, each as slow as a decode."""
    scans, at = 0, 2
    marker = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
    while (found := marker.search(data, at)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


def _upright_rgb(image: Image.Image, size: int, notes: list[str]) -> Image.Image:
    """RGB of an opened, not yet loaded picture of `size` bytes."""
    _note_frames(image, size, notes)
    if (bits := image.info.get("bit_depth", 8)) > 8:
        notes.append(f"{bits}-bit values brought to 8 bits")
    if image.mode.startswith(("RGB", "LA")) and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        notes.append("16-bit values brought to 8 bits")
    declared = image.info.get("original_orientation") or _orientation(image)  # a HEIC is turned as it is opened
    image.load()
    if (remaining := _orientation(image)) in _TURNED:  # a TIFF was turned by Pillow as it loaded
        with suppress(Exception):  # it turns first and corrects the EXIF then, which may be broken
            ImageOps.exif_transpose(image, in_place=True)
    icc = image.info.get("icc_profile")
    image, alpha = _split_alpha(image, notes)
    image = _to_srgb(image, icc, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        notes.append("transparent parts put on white")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=alpha)
        image = white
    if declared in _TURNED or remaining in _TURNED:
        notes.append("turned upright as its EXIF says")
    return image


def _note_frames(image: Image.Image, size: int, notes: list[str]) -> None:
    if not getattr(image, "is_animated", False):
        return
    counted = size <= _COUNT_FRAMES_BELOW or image.format not in ("GIF", "TIFF")
    many = getattr(image, "n_frames", "several") if counted else "several"
    what = {"TIFF": "pages", "MPO": "pictures", "HEIF": "pictures"}.get(str(image.format), "frames")
    which = "main one" if image.format == "HEIF" else "first"
    notes.append(f"{which} of {many} {what} of the {image.format} file used")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - broken EXIF is common and no reason to refuse the picture
        return 1
    return value if isinstance(value, int) else 1


def _split_alpha(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """The picture with 8 bits a channel and no alpha; and its alpha (mode L, 255 is opaque), None where it has none."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _to_8_bits(image, notes)
    if not image.has_transparency_data:
        return image, None
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("La", "RGBa"):
        image = image.convert("RGBA")
    image = image.convert("LA" if grey else "RGBA")
    return (image.getchannel("L") if grey else image.convert("RGB")), image.getchannel("A")


def _to_8_bits(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """Mode L and an alpha of a grey picture with 16 or 32 bits (mode I;16 and kin, I, F)."""
    tags = getattr(image, "tag_v2", {})
    values = np.array(image)  # (H, W)
    alpha = None
    if isinstance(clear := image.info.get("transparency"), int):
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
    if image.mode.startswith("I;16"):
        bits = tags.get(258, (16,))[0]
        table = np.arange(2**16, dtype=np.uint32) * 255 + (2**bits - 1) // 2
        grey = np.minimum(table // (2**bits - 1), 255).astype(np.uint8)[values]
        notes.append(f"{bits}-bit values brought to 8 bits")
    else:
        finite = np.isfinite(values)
        low, high = float(np.min(values, where=finite, initial=0)), float(np.max(values, where=finite, initial=0))
        # The file does not say which value is white. The usual ranges are 0 to 1, 8 bits and 16 bits; another is stretched.
        tops = (65535.0,) if image.format == "PPM" and image.mode == "I" else (1.0, 255.0, 65535.0)[image.mode != "F" :]
        top = next((top for top in tops if high <= top), high)
        scaled = np.nan_to_num(values.astype(np.float32), nan=low, posinf=top, neginf=low)
        grey = ((scaled - low) * (255 / (top - low)) + 0.5).clip(0, 255).astype(np.uint8)
        notes.append(f"values from {low:g} to {top:g} brought to 8 bits")
    if tags.get(262) == 0:  # white is zero: Pillow inverts it at 8 bits alone
        grey = 255 - grey
    return Image.fromarray(grey), alpha


def _to_srgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    """Mode RGB of a picture without alpha, by its colour profile where it has one."""
    if image.mode == "LAB":
        notes.append("Lab colours converted to RGB")
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return ImageCms.buildTransform(lab, _srgb(), "LAB", "RGB").apply(image)
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if image.mode == "CMYK":
        notes.append("CMYK converted to RGB")
    if icc:
        try:
            image = _by_profile(image, icc, notes)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append("its colour profile is broken and was ignored")
    return image if image.mode == "RGB" else image.convert("RGB")


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _by_profile(image: Image.Image, icc: bytes, notes: list[str]) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(profile.profile.xcolor_space)
    if mode == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if mode != image.mode:
        notes.append("its colour profile is for other colours and was ignored")
        return image
    transform = ImageCms.buildTransform(profile, _srgb(), mode, "RGB")
    if mode != "CMYK":
        # Many profiles are sRGB under some name. Converting those would only add rounding: see what this one does.
        ramp = np.indices((9, 9, 9)).reshape(3, 9, 81).transpose(1, 2, 0) * 31  # (9, 81, 3)
        probe = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
        moved = np.asarray(transform.apply(probe), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
        if np.abs(moved).max() <= 2:
            return image
    notes.append("colours converted to sRGB by its colour profile")
    return transform.apply(image)
