"""The crop of a picture: its box, pixels, enlargement and sharpness; and the samples."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pictures import grey, picture_of
from PIL import Image

from i2v_lab.clip.picture import BLURRED_BELOW, SAMPLES, Picture, open_picture
from i2v_lab.errors import PictureError


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
