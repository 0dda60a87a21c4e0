"""The price of a lever, against tools that did not compute it: the system's FFmpeg, NumPy, and movements that are known."""

from __future__ import annotations

import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import needs_ffprobe, psnr

from i2v_lab.clip import video
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ClipError
from i2v_lab.metrics.price import compare, has_vmaf, price, price_of


def shifted(a_frame: float, count: int = 16, noise: float = 0.0) -> np.ndarray:
    """A photograph that moves to the right by so many pixels a frame, (F, 256, 256, 3)."""
    picture = cv2.resize(open_picture("sample:astronaut").rgb, (450, 450), interpolation=cv2.INTER_AREA)
    rng, frames = np.random.default_rng(0), []
    for k in range(count):
        move = np.array([[1, 0, a_frame * k - 100], [0, 1, -100]], np.float32)
        frame = cv2.warpAffine(picture, move, (256, 256), flags=cv2.INTER_CUBIC) + rng.normal(0, noise, (256, 256, 3))
        frames.append(np.clip(frame.round(), 0, 255).astype(np.uint8))
    return np.stack(frames)


def planes(path: Path) -> np.ndarray:
    """All bytes of luma and chroma, by the system's FFmpeg."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("prices")
    clips = {"plain": shifted(2), "slow": shifted(1), "noisy": shifted(2, noise=8), "short": shifted(2, count=8)}
    clips["soft"] = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in clips["plain"]])
    return {name: video.write(frames, folder, stem=name, fps=Fraction(8)).path for name, frames in clips.items()}


def test_a_clip_costs_nothing_against_itself_and_another_rate_of_playback_changes_nothing(
    files: dict[str, Path], tmp_path: Path
) -> None:
    other_rate = video.retime(files["plain"], tmp_path, stem="rate", fps=Fraction(24000, 1001), settings={})[0].path
    for same in (files["plain"], other_rate):
        found = compare(same, files["plain"])
        assert (found.psnr, found.ssim, found.first_frame_psnr) == (100, 1, 100)
        assert found.vmaf > 97  # VMAF's own ceiling of equal clips


@needs_ffprobe
def test_psnr_and_ssim_are_those_of_another_ffmpeg_and_of_numpy(files: dict[str, Path]) -> None:
    found = price_of(compare(files["noisy"], files["plain"]), {}, {})
    graph = "[0:v]settb=AVTB,setpts=N,split[a][b];[1:v]settb=AVTB,setpts=N,split[c][d];[a][c]psnr;[b][d]ssim"
    command = ["ffmpeg", "-nostdin", "-i", files["noisy"], "-i", files["plain"], "-lavfi", graph, "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stderr
    average, likeness = re.search(r"PSNR .*average:([0-9.]+)", said), re.search(r"SSIM .*All:([0-9.]+)", said)
    assert average
    assert likeness
    assert found.psnr == pytest.approx(float(average[1]), abs=1e-3)
    assert found.ssim == pytest.approx(float(likeness[1]), abs=1e-5)
    noisy, plain = (planes(files[name]) for name in ("noisy", "plain"))
    assert found.psnr == pytest.approx(psnr(noisy, plain), abs=1e-2)
    assert found.motion_kept is None
    assert found.flicker_added is None


def test_a_worse_copy_costs_more_by_every_figure(files: dict[str, Path]) -> None:
    noisy, soft, slow = (price(files[name], files["plain"]) for name in ("noisy", "soft", "slow"))
    assert slow.vmaf < soft.vmaf < 85  # other content is worse than a blur of the same
    assert noisy.flicker_added is not None
    assert noisy.flicker_added > 1
    assert slow.first_frame_psnr > 45  # it begins with the same picture
    assert max(noisy.first_frame_psnr, soft.first_frame_psnr) < 40
    assert max(noisy.ssim, soft.ssim) < 0.95


def test_a_clip_slowed_by_half_keeps_half_of_the_motion(files: dict[str, Path]) -> None:
    assert price(files["slow"], files["plain"]).motion_kept == pytest.approx(0.5, abs=0.02)
    assert price(files["plain"], files["slow"]).motion_kept == pytest.approx(2, abs=0.08)


def test_clips_of_two_lengths_have_no_price(files: dict[str, Path]) -> None:
    with pytest.raises(ClipError, match=r"same size and length as its reference, 16 frames of 256x256, got 8 frames of 256x256"):
        price(files["short"], files["plain"])


@needs_ffprobe
def test_without_libvmaf_the_other_figures_are_the_same(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compare(files["noisy"], files["plain"])
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(shutil.which("ffmpeg")))  # Debian's has none
    has_vmaf.cache_clear()
    try:
        if has_vmaf():
            pytest.skip("this system's FFmpeg has libvmaf")
        found = compare(files["noisy"], files["plain"])
    finally:
        has_vmaf.cache_clear()
    assert found.vmaf is None
    assert (found.psnr, found.ssim) == pytest.approx((expected.psnr, expected.ssim), abs=1e-3)
