"""Pictures as people bring them: each becomes RGB with known values, or one clear line."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from i2v_lab.clip.picture import BLURRED_BELOW, MAX_FILE_BYTES, SAMPLES, Picture, open_picture
from i2v_lab.errors import PictureError

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
    return encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


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


BILEVEL = np.where(GREYS > 127, 255, 0)
RAMP8 = (RAMP16.astype(float) / 257).round().astype(np.uint8)
FLOATS = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
SWAPPED = BLOCKS[..., [1, 0, 2]]
WHITE_KEYED = grey(np.where(RAMP16 == 0, 255, RAMP8).astype(np.uint8))

# name, bytes, expected RGB, levels that a codec may miss by, a word that a note must hold ("" for no note at all)
GOOD: list[tuple[str, Callable[[], bytes], np.ndarray, int, str]] = [
    ("plain.png", lambda: encode(blocks(), "PNG"), BLOCKS, 0, ""),
    ("photo.jpg", lambda: encode(blocks(), "JPEG", quality=95), BLOCKS, 3, ""),
    ("steps.jpg", lambda: encode(blocks(), "JPEG", quality=95, progressive=True), BLOCKS, 3, ""),
    ("wrong_name.png", lambda: encode(blocks(), "JPEG", quality=95), BLOCKS, 3, ""),
    ("no_suffix", lambda: encode(blocks(), "PNG"), BLOCKS, 0, ""),
    ("a.bmp", lambda: encode(blocks(), "BMP"), BLOCKS, 0, ""),
    ("a.ppm", lambda: encode(blocks(), "PPM"), BLOCKS, 0, ""),
    ("a.tga", lambda: encode(blocks(), "TGA"), BLOCKS, 0, ""),
    ("a.jp2", lambda: encode(blocks(), "JPEG2000"), BLOCKS, 0, ""),
    ("a.webp", lambda: encode(blocks(), "WEBP", lossless=True), BLOCKS, 0, ""),
    ("a.avif", lambda: encode(blocks(), "AVIF", quality=95), BLOCKS, 8, ""),
    ("a.ico", lambda: encode(blocks(), "ICO", sizes=[(48, 32)]), BLOCKS, 0, ""),
    ("lzw.tif", lambda: encode(blocks(), "TIFF", compression="tiff_lzw"), BLOCKS, 0, ""),
    ("grey.png", lambda: encode(Image.fromarray(GREYS), "PNG"), grey(GREYS), 0, ""),
    ("palette.gif", lambda: encode(blocks("P"), "GIF"), BLOCKS, 0, ""),
    ("palette.png", lambda: palette(kind="PNG"), COLOURS[:1, [0, 2]], 0, ""),
    ("key.png", lambda: palette(kind="PNG", transparency=0), np.array([[[255] * 3, [0, 0, 255]]]), 0, "white"),
    ("half_key.png", lambda: palette(kind="PNG", transparency=b"\x33\xff"), np.array([[[255, 204, 204], [0, 0, 255]]]), 0, "white"),
    ("key.gif", lambda: palette(kind="GIF", transparency=1), np.array([[[255, 0, 0], [255] * 3]]), 0, "white"),
    ("rgba.png", lambda: encode(with_alpha(), "PNG"), RED_ON_WHITE, 0, "white"),
    ("rgba.webp", lambda: encode(with_alpha(), "WEBP", lossless=True, exact=True), RED_ON_WHITE, 0, "white"),
    ("rgba.tif", lambda: encode(with_alpha(), "TIFF"), RED_ON_WHITE, 0, "white"),
    ("opaque.png", lambda: encode(blocks("RGBA"), "PNG"), BLOCKS, 0, ""),
    ("la.png", lambda: encode(Image.new("LA", (2, 2), (0, 51)), "PNG"), np.full((2, 2, 3), 204), 0, "white"),
    ("colour_key.png", lambda: encode(blocks(), "PNG", transparency=(255, 0, 0)), np.where(
        (BLOCKS == (255, 0, 0)).all(-1, keepdims=True), 255, BLOCKS), 0, "white"),
    ("bilevel.png", lambda: encode(Image.fromarray(GREYS > 127), "PNG"), grey(BILEVEL), 0, ""),
    ("fax.tif", lambda: encode(Image.fromarray(GREYS > 127), "TIFF", compression="group4"), grey(BILEVEL), 0, ""),
    ("grey16.png", lambda: encode(Image.fromarray(RAMP16), "PNG"), grey(RAMP8), 0, "16-bit"),
    ("grey16.tif", lambda: encode(Image.fromarray(RAMP16), "TIFF"), grey(RAMP8), 0, "16-bit"),
    ("grey16be.tif", lambda: encode(Image.fromarray(RAMP16.astype(">u2")), "TIFF"), grey(RAMP8), 0, "16-bit"),
    ("grey16.jp2", lambda: encode(Image.fromarray(RAMP16), "JPEG2000"), grey(RAMP8), 0, "16-bit"),
    ("grey16.pgm", lambda: b"P5 64 64 65535\n" + RAMP16.astype(">u2").tobytes(), grey(RAMP8), 0, "65535"),
    ("white_is_zero.tif", white_is_zero, grey(255 - RAMP8), 0, "16-bit"),
    ("key16.png", lambda: key16(RAMP16), WHITE_KEYED, 0, "white"),
    ("rgb16.png", grey16_rgb, grey(RAMP8), 1, "16-bit"),
    ("int32.tif", lambda: encode(Image.fromarray(RAMP16.astype(np.int32)), "TIFF"), grey(RAMP8), 0, "65535"),
    ("float.tif", lambda: encode(Image.fromarray(FLOATS), "TIFF"), grey(GREYS), 0, "0 to 1"),
    ("float255.tif", lambda: encode(Image.fromarray(FLOATS * 255), "TIFF"), grey(GREYS), 0, "255"),
    ("float_range.tif", lambda: encode(Image.fromarray(FLOATS * 2e6 - 1e6), "TIFF"), grey(GREYS), 0, "-1e+06"),
    ("nan.tif", lambda: encode(Image.fromarray(FLOATS * np.float32(np.nan)), "TIFF"), np.zeros((16, 16, 3)), 0, "8 bits"),
    ("cmyk.jpg", lambda: encode(blocks("CMYK"), "JPEG", quality=95), BLOCKS, 4, "CMYK"),
    ("cmyk.tif", lambda: encode(blocks("CMYK"), "TIFF"), BLOCKS, 0, "CMYK"),
    ("ycbcr.tif", lambda: encode(blocks("YCbCr"), "TIFF"), BLOCKS, 2, ""),
    ("lab.tif", lambda: encode(Image.new("LAB", (2, 2), (137, 128, 128)), "TIFF"), np.full((2, 2, 3), 128), 2, "Lab"),
    ("swapped.png", lambda: encode(blocks(), "PNG", icc_profile=swapped_profile()), SWAPPED, 2, "profile"),
    ("swapped.jpg", lambda: encode(blocks(), "JPEG", quality=95, icc_profile=swapped_profile()), SWAPPED, 24, "profile"),
    ("srgb.png", lambda: encode(blocks(), "PNG", icc_profile=srgb_profile()), BLOCKS, 0, ""),
    ("grey_srgb.png", lambda: encode(Image.fromarray(GREYS), "PNG", icc_profile=srgb_profile()), grey(GREYS), 0, ""),
    ("broken_profile.png", lambda: encode(blocks(), "PNG", icc_profile=b"not a profile" * 20), BLOCKS, 0, "broken"),
    ("other_profile.jpg", lambda: encode(blocks("CMYK"), "JPEG", quality=95, icc_profile=srgb_profile()), BLOCKS, 4, "ignored"),
    ("broken_exif.jpg", lambda: encode(blocks(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), BLOCKS, 3, ""),
    ("odd_exif.jpg", lambda: oriented("JPEG", 99), BLOCKS, 3, ""),
    ("animated.gif", lambda: animation("GIF"), BLOCKS, 0, "first of 3 frames"),
    ("animated.webp", lambda: animation("WEBP"), BLOCKS, 0, "first of 3 frames"),
    ("animated.png", lambda: animation("PNG"), BLOCKS, 0, "first of 3 frames"),
    ("pages.tif", lambda: animation("TIFF"), BLOCKS, 0, "first of 3 pages"),
    ("burst.jpg", lambda: animation("MPO"), BLOCKS, 3, "first of 3 pictures"),
    ("one.png", lambda: encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), np.array([[[1, 2, 3]]]), 0, ""),
    ("tall.png", lambda: encode(Image.new("RGB", (1, 5000), (1, 2, 3)), "PNG"), np.broadcast_to([1, 2, 3], (5000, 1, 3)), 0, ""),
]  # fmt: skip


@pytest.mark.parametrize("row", GOOD, ids=[row[0] for row in GOOD])
def test_odd_picture_becomes_rgb(tmp_path: Path, row: tuple[str, Callable[[], bytes], np.ndarray, int, str]) -> None:
    name, make, expected, tolerance, note = row
    path = tmp_path / name
    path.write_bytes(make())
    picture = open_picture(path)
    assert picture.rgb.dtype == np.uint8
    assert (picture.height, picture.width, 3) == picture.rgb.shape == expected.shape
    inside = np.s_[4::16, 4::16] if tolerance > 1 and expected.shape == BLOCKS.shape else np.s_[:]  # codecs blur between blocks
    assert np.abs(picture.rgb[inside].astype(int) - expected[inside]).max() <= tolerance
    assert note in "; ".join(picture.notes) if note else picture.notes == ()
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert picture.path == path
    crop = picture.crop(64, 96)
    assert crop.shape == (64, 96, 3)
    assert int(crop.min()) >= int(picture.rgb.min()) - 40  # Lanczos rings a little; an empty edge would be black


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"turned.{kind.lower()}"
    path.write_bytes(oriented(kind, orientation))
    picture = open_picture(path)
    assert picture.rgb.shape == BLOCKS.shape
    assert np.abs(picture.rgb[4::16, 4::16].astype(int) - COLOURS).max() <= (4 if kind in ("JPEG", "WEBP") else 0)
    assert any("upright" in note for note in picture.notes) == (orientation != 1)


def half(kind: str, **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        data = encode(Image.fromarray(noise), kind, **options)
        return data[: len(data) // 2]

    return make


BOMB = png(30000, 30000, 8, 2, b"")
SCANS = encode(blocks(), "JPEG", progressive=True)
LAST_SCAN = SCANS[SCANS.rindex(b"\xff\xda") : -2]
# name, bytes, a word that the message must hold
BAD: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty.png", lambda: b"", "empty"),
    ("text.jpg", lambda: b"hello, this is no picture\n" * 50, "something else"),
    ("noise.png", lambda: np.random.default_rng(0).bytes(5000), "something else"),
    ("noise.tga", lambda: b"\0" * 500, "something else"),
    ("tga.bin", lambda: encode(blocks(), "TGA"), "something else"),
    ("page.jpg", lambda: b"<!DOCTYPE html><html><svg></svg></html>", "web page"),
    ("drawing.svg", lambda: b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ("slow.svg", lambda: b"<!---->" * 2000, "something else"),
    ("paper.pdf", lambda: b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    ("drawing.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS"),
    ("phone.heic", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
    ("clip.mp4", lambda: b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(99), "video"),
    ("layers.psd", lambda: b"8BPS\0\x01" + bytes(99), "Photoshop"),
    ("camera.NEF", lambda: encode(blocks(), "TIFF"), "raw"),
    ("bomb.png", lambda: BOMB, "900.0"),
    ("big.png", lambda: png(9500, 9500, 8, 0, b""), "90.2"),
    ("scans.jpg", lambda: SCANS[:-2] + LAST_SCAN * 2000 + b"\xff\xd9", "scans"),
    ("header.png", lambda: BOMB[:20], "damaged"),
    ("header.jpg", lambda: b"\xff\xd8\xff\xe0", "damaged"),
    *[(f"half.{kind.lower()}", half(kind), "damaged") for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "JPEG2000")],
    ("half.ppm", half("PPM"), "damaged"),
    ("half.ico", half("ICO"), "damaged"),
    ("half.tga", half("TGA"), "damaged"),
    ("half.tif", half("TIFF", compression="tiff_lzw"), "damaged"),
    ("half_progressive.jpg", half("JPEG", progressive=True), "damaged"),
    ("crc.png", lambda: encode(blocks(), "PNG").replace(b"IDAT", b"IDAT\xff", 1), "damaged"),
    ("text_bomb.png", lambda: png(1, 1, 8, 0, b"\0\0", *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))]), "damaged"),
    ("new\nline\x1b[31m.png", lambda: b"no", "something else"),
]  # fmt: skip


def one_line(message: str, path: Path) -> bool:
    shown = path.name if path.name.isprintable() else repr(path.name)[1:-1]
    return message.isprintable() and shown in message and len(message) < 600


@pytest.mark.parametrize(("name", "make", "word"), BAD, ids=[row[0].encode("unicode_escape").decode() for row in BAD])
def test_what_is_no_picture_is_one_clear_line(tmp_path: Path, name: str, make: Callable[[], bytes], word: str) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    start = time.monotonic()
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert time.monotonic() - start < 5
    assert one_line(str(caught.value), path)
    assert word in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no chain of Pillow's own


@pytest.mark.parametrize(
    "source", ["missing.png", "", "a\0b.png", "x" * 5000, "https://example.org/a.png", "sample:dog", "sample:"]
)
def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PictureError) as caught:
        open_picture(source)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_special_files_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 2**20)
    for path, word in [
        (tmp_path, "folder"), (tmp_path / "pipe.png", "pipe"), (Path("/dev/zero"), "device"), (tmp_path / "loop.png", "error"),
        (tmp_path / "gone.png", "no such file"), (tmp_path / "huge.png", "257 MiB"),
    ]:  # fmt: skip
        with pytest.raises(PictureError, match=word) as caught:
            open_picture(path)
        assert one_line(str(caught.value), path)


def test_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(BOMB)
    # In a process of its own that may take 200 MB more than it begins with; decoding would take 3.6 GB.
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom i2v_lab.clip.picture import open_picture\n"
        "most = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + 200 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try: open_picture(sys.argv[1])\nexcept Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("PictureError")
    assert "expected at most 89.5 megapixels, got 900.0" in done.stdout


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_sharp_photographs_and_blur_is_seen(name: str) -> None:
    picture = open_picture(f"sample:{name}")
    assert min(picture.height, picture.width) >= 300
    assert picture.sharpness(256, 256) > BLURRED_BELOW
    assert picture.sharpness(512, 512) > BLURRED_BELOW
    small = Image.fromarray(picture.crop(256, 256))
    tiny = small.resize((40, 40), Image.Resampling.BOX).resize((256, 256), Image.Resampling.BICUBIC)
    assert Picture(np.asarray(tiny), "", picture.path).sharpness(256, 256) < BLURRED_BELOW
    with pytest.raises(ValueError, match="read-only"):
        picture.rgb[0, 0, 0] = 1


def test_samples_need_no_import_of_scikit_image() -> None:
    script = (
        "import sys, i2v_lab.clip.picture as i; i.open_picture('sample:coffee'); print({'skimage', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def picture_of(rgb: np.ndarray) -> Picture:
    return Picture(rgb, "", Path("made.png"))


def test_box_is_inside_centred_and_in_shape() -> None:
    rng = np.random.default_rng(7)
    for _ in range(500):
        side = [int(rng.integers(1, limit)) for limit in rng.choice((13, 6000), 2)]
        height, width = (int(value) for value in rng.integers(1, 2049, 2))
        picture = picture_of(np.broadcast_to(np.uint8(9), (*side, 3)))
        left, top, right, bottom = picture.crop_box(height, width)
        assert 0 <= left < right <= side[1]
        assert 0 <= top < bottom <= side[0]
        assert (right - left) / (bottom - top) == pytest.approx(width / height, rel=1e-6)
        assert left + right == pytest.approx(side[1])
        assert top + bottom == pytest.approx(side[0])
        # The largest: it reaches two opposite edges of the picture.
        assert right - left == pytest.approx(side[1]) or bottom - top == pytest.approx(side[0])


@pytest.mark.parametrize(
    ("size", "clip"),
    [((512, 512), (704, 1280)), ((512, 512), (1280, 704)), ((333, 777), (512, 512)), ((1, 5000), (512, 512)),
     ((5000, 1), (64, 2048)), ((1, 1), (64, 96)), ((2, 3), (2048, 64)), ((1000, 1500), (64, 64)), ((479, 641), (257, 255))],
)  # fmt: skip
def test_crop_has_no_black_edge(size: tuple[int, int], clip: tuple[int, int]) -> None:
    picture = picture_of(np.full((*size, 3), (10, 200, 90), np.uint8))
    assert (picture.crop(*clip) == (10, 200, 90)).all()
    assert picture.crop(*clip).shape == (*clip, 3)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 64), (256, 512), (300, 700), (90, 31)])
def test_crop_of_a_gradient_keeps_the_values_of_the_box(height: int, width: int) -> None:
    x, y = np.meshgrid(np.arange(256), np.arange(200))
    picture = picture_of(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))  # (200, 256, 3)
    left, top, right, bottom = picture.crop_box(height, width)
    # The value at the middle of each new pixel: pixel n of the picture covers n to n+1, so its own middle is n + 0.5.
    across = left + (np.arange(width) + 0.5) * (right - left) / width - 0.5
    down = top + (np.arange(height) + 0.5) * (bottom - top) / height - 0.5
    crop = picture.crop(height, width)
    assert np.abs(crop[:, :, 0].mean(0) - across).max() < 1.5
    assert np.abs(crop[:, :, 1].mean(1) - down).max() < 1.5
    assert np.abs(crop[:, :, 2].mean(0) - (255 - across)).max() < 1.5


def test_crop_is_deterministic_and_refuses_nothing() -> None:
    picture = open_picture("sample:cat")
    assert (picture.crop(100, 300) == open_picture("sample:cat").crop(100, 300)).all()
    with pytest.raises(PictureError, match="0x10"):
        picture.crop(0, 10)


@pytest.mark.parametrize(
    ("clip", "scale"), [((50, 50), 1.0), ((100, 100), 1.0), ((200, 200), 2.0), ((100, 200), 1.0), ((1000, 2000), 10.0)]
)
def test_upscale_says_how_much_is_enlarged(clip: tuple[int, int], scale: float) -> None:
    assert picture_of(np.zeros((100, 200, 3), np.uint8)).upscale(*clip) == pytest.approx(scale)


def test_sharpness_of_known_patterns() -> None:
    flat = picture_of(np.full((64, 64, 3), 77, np.uint8))
    assert flat.sharpness(64, 64) == pytest.approx(0, abs=1e-6)
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    # Inside a chessboard the Laplacian is 4 * 255 up and down, so its variance is that squared.
    assert picture_of(grey(checks.astype(np.uint8))).sharpness(64, 64) == pytest.approx((4 * 255) ** 2, rel=1e-3)
    one_sharp_corner = np.full((64, 64), 128)
    one_sharp_corner[:16, :16] = checks[:16, :16]
    assert picture_of(grey(one_sharp_corner.astype(np.uint8))).sharpness(64, 64) > BLURRED_BELOW
    assert picture_of(np.zeros((1, 1, 3), np.uint8)).sharpness(1, 1) == 0


def test_drawn_crop_darkens_what_is_left_out() -> None:
    drawn = picture_of(np.full((100, 200, 3), 200, np.uint8)).draw_crop(64, 64)  # the box is columns 50 to 150
    assert drawn.shape == (100, 200, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[:, :50] == 80).all()
    assert (drawn[:, 150:] == 80).all()
    assert (drawn[1:-1, 51:149] == 200).all()
    assert (drawn[:, [50, 149]] == 255).all()
    assert (drawn[[0, -1], 50:150] == 255).all()


@pytest.mark.parametrize(
    ("size", "shown"), [((3000, 1500), (1024, 512)), ((1, 5000), (1, 1024)), ((5000, 1), (1024, 1)), ((1, 1), (1, 1))]
)
def test_drawn_crop_of_any_shape_is_small(size: tuple[int, int], shown: tuple[int, int]) -> None:
    drawn = picture_of(np.full((*size, 3), 200, np.uint8)).draw_crop(512, 512)
    assert drawn.shape == (*shown, 3)
    assert drawn.max() >= 200  # some of the box is always seen
