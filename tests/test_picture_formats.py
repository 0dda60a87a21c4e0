"""Pictures as people bring them: each becomes RGB with known values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import (
    BLOCKS,
    COLOURS,
    GREYS,
    RAMP16,
    RED_ON_WHITE,
    animation,
    blocks,
    encode,
    grey,
    grey16_rgb,
    heic,
    key16,
    oriented,
    palette,
    srgb_profile,
    swapped_profile,
    white_is_zero,
    with_alpha,
)
from PIL import Image

from i2v_lab import ClipParams, Store, read_settings, run_clip
from i2v_lab.clip.picture import open_picture
from i2v_lab.settings import Settings

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
    ("phone.heic", heic, BLOCKS, 8, ""),
    ("wrong_name.jpg", heic, BLOCKS, 8, ""),
    ("photo.hif", lambda: heic(bits=10), BLOCKS, 8, "10-bit"),
    ("swapped.heic", lambda: heic(icc_profile=swapped_profile()), SWAPPED, 24, "profile"),
    ("srgb.heic", lambda: heic(icc_profile=srgb_profile()), BLOCKS, 8, ""),
    ("rgba.heic", lambda: encode(with_alpha().resize((48, 64), Image.Resampling.NEAREST), "HEIF", quality=-1), RED_ON_WHITE.repeat(
        16, axis=0).repeat(16, axis=1), 8, "white"),
    ("grey.heic", lambda: encode(Image.fromarray(GREYS.repeat(4, 0).repeat(4, 1)), "HEIF", quality=-1), grey(
        GREYS.repeat(4, 0).repeat(4, 1)), 2, ""),
    ("burst.heic", lambda: heic(more=2), BLOCKS, 8, "main one of 3 pictures"),
    ("second_is_main.heic", lambda: heic(more=2, primary=1), 255 - BLOCKS, 8, "main one of 3 pictures"),
    ("broken_exif.heic", lambda: heic(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), BLOCKS, 8, ""),
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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"turned.{kind.lower()}"
    path.write_bytes(oriented(kind, orientation))
    picture = open_picture(path)
    assert picture.rgb.shape == BLOCKS.shape
    assert np.abs(picture.rgb[4::16, 4::16].astype(int) - COLOURS).max() <= {"JPEG": 4, "WEBP": 4, "HEIF": 8, "AVIF": 8}.get(
        kind, 0
    )
    assert any("upright" in note for note in picture.notes) == (orientation != 1)


@pytest.mark.parametrize("name", ["my photo (1).jpg", "🐈‍⬛ 猫.heic", "画" * 83 + ".jpg", "-y.jpg", "100%#?.jpg"])
def test_a_picture_of_any_name_makes_a_clip_and_its_folder_stays_as_it_was(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a phone's folder"
    folder.mkdir()
    path = folder / name
    path.write_bytes(heic() if name.endswith("heic") else encode(blocks(), "JPEG", quality=95))
    folder.chmod(0o555)
    params = ClipParams(model="fake", image=str(path), resolution="64x64", num_frames=2, num_inference_steps=1)
    store = Store(tmp_path / "results")
    record = run_clip(params, None, store, settings=Settings())
    assert record.status == "done", record.reason
    assert read_settings(store.directory / record.clip)["params"]["image"] == name  # no folder of this machine goes into a clip
    assert [one.name for one in folder.iterdir()] == [name]
