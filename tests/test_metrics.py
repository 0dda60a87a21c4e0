"""Metrics of clips whose motion is known in advance, against other implementations, and against the prompt."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_clips import KINDS, clip, measured, write
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from i2v_lab import measure
from i2v_lab.clip import video
from i2v_lab.metrics import METRICS, measure_frames, pixels, registry
from i2v_lab.metrics.flow import coordinates
from i2v_lab.metrics.prompt import asked, field_of
from i2v_lab.models.closed_form.motions import CAMERAS

ROOT = Path(__file__).parent.parent


# Known answers

PAN = 100 * 2 / 512 * 8  # per cent of the width a second: 2 of 512 pixels a frame, 8 frames a second


@pytest.mark.parametrize(
    ("kind", "name", "value", "tolerance"),
    [
        ("shift", "motion", PAN, 0.1), ("shift", "motion_top5", PAN, 0.4), ("shift", "scene_right", PAN, 0.1), ("shift", "scene_down", 0, 0.1),
        ("shift", "scene_zoom", 0, 0.4), ("shift", "scene_turn", 0, 0.4),
        ("zoom", "scene_zoom", 16, 0.4), ("zoom", "scene_right", 0, 0.2), ("zoom", "scene_turn", 0, 0.4),
        ("turn", "scene_turn", 8, 0.24), ("turn", "scene_zoom", 0, 0.4), ("turn", "scene_down", 0, 0.2),
        ("frozen", "motion", 0, 1e-6), ("frozen", "frozen_frames", 1, 0), ("frozen", "repeated_frames", 1, 0),
        ("noise", "scene_right", 0, 0.1), ("noise", "scene_zoom", 0, 0.4), ("noise", "repeated_frames", 0, 0), ("noise", "noise_frames", 0, 0),
        ("black", "black_frames", 1 / 16, 0), ("black", "scene_right", PAN, 0.1), ("black", "repeated_frames", 0, 0),
        ("shift", "black_frames", 0, 0), ("shift", "drift_ssim", 1, 0.01), ("zoom", "drift_ssim", 1, 0.05), ("shift", "smoothness", 1, 0.002),
    ],
)  # fmt: skip
def test_a_clip_whose_motion_is_known_has_that_value(kind, name, value, tolerance):
    assert measured(kind)[name] == pytest.approx(value, abs=tolerance)


def test_clips_are_put_in_the_right_order():
    def order(name: str, *kinds: str) -> list[str]:
        return sorted(kinds, key=lambda kind: measured(kind)[name])

    assert order("motion", *KINDS)[:2] == ["frozen", "noise"]
    assert order("temporal_flickering", "shift", "black") == ["black", "shift"]
    assert order("smoothness", "shift", "noise", "black") == ["black", "noise", "shift"]
    assert order("warping_error", "shift", "noise") == ["shift", "noise"]
    assert order("drift_ssim", "shift", "noise") == ["noise", "shift"]
    assert order("sharpness", "shift", "noise") == ["shift", "noise"]
    blurring = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.1 + k / 4) for k, frame in enumerate(clip("shift"))])
    lost = measure_frames(blurring)
    assert lost["sharpness_loss"] > 0.9 and lost["drift_ssim"] < measured("zoom")["drift_ssim"]
    half = measure_frames(np.concatenate([clip("shift")[:8], clip("shift")[7:8].repeat(8, 0)]))
    twice = measure_frames(clip("shift")[:8].repeat(2, 0))
    assert (half["frozen_frames"], half["repeated_frames"]) == (8 / 15, 8 / 15)
    assert (twice["frozen_frames"], twice["repeated_frames"]) == (1 / 15, 8 / 15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_has_nearly_the_values_of_its_frames(kind, tmp_path):
    found, exact = measure(write(tmp_path, clip(kind))), measured(kind)
    for name, least in (("motion", 0.1), ("scene_right", 0.1), ("scene_zoom", 0.24), ("scene_turn", 0.24)):
        assert found[name] == pytest.approx(exact[name], abs=least), name
    for name in ("smoothness", "temporal_flickering") if kind != "frozen" else ():
        assert found[name] == pytest.approx(exact[name], abs=0.015 if kind == "noise" else 0.003)  # 4:2:0 changes colours
    for name in ("black_frames", "frozen_frames", "repeated_frames"):
        assert found[name] == exact[name], name
    why = "the clip is frozen" if kind == "frozen" else "the prompt is not known"
    assert found["prompt_agreement"] is None and found.missing["prompt_agreement"] == why


def vbench_temporal_flickering(path: Path) -> float:
    """VBench, vbench/temporal_flickering.py, written out, on small frames: mae_seq over successive ones, (255 - mean) / 255."""
    shown = [cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA) for frame in video.read(path)]
    differences = [np.mean(cv2.absdiff(np.array(a, np.float32), np.array(b, np.float32))) for a, b in pairwise(shown)]
    return (255.0 - np.mean(np.array(differences)).item()) / 255.0


def test_temporal_flickering_is_that_of_vbench_on_ten_clips(tmp_path):
    shown = {kind: clip(kind, 8, 256) for kind in KINDS if kind != "frozen"}
    shown |= {f"turn from {n}": clip("turn", 8, 256)[n:] for n in range(3)}
    shown |= {"large": clip("zoom", 4), "two": clip("shift")[:2]}
    assert len(shown) == 10
    for name, each in shown.items():
        path = write(tmp_path, each, name)
        assert measure(path)["temporal_flickering"] == pytest.approx(vbench_temporal_flickering(path), abs=1e-6)


def test_ssim_and_psnr_are_those_of_scikit_image():
    one, other = clip("frozen")[0], clip("noise")[0]
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (one, other)]
    theirs = structural_similarity(*grey, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    assert pixels.ssim(*grey) == pytest.approx(theirs, abs=1e-9)
    assert pixels.psnr(one, other) == pytest.approx(peak_signal_noise_ratio(one, other, data_range=255), abs=1e-9)
    assert pixels.psnr(one, one) == pixels.PSNR_MAX


# The prompt


@pytest.mark.parametrize(
    ("prompt", "kind", "value"),
    [
        ("camera panning left", "shift", 1), ("镜头向左平移", "shift", 1), ("camera panning right", "shift", -1), ("镜头向右平移", "shift", -1),
        ("camera pans up", "shift", 0), ("zoom in", "shift", 0), ("zoom in", "zoom", 1), ("镜头拉近", "zoom", 1), ("zooming out", "zoom", -1),
        ("camera panning left", "zoom", 0), ("camera rotating counterclockwise", "turn", 1), ("camera rotating clockwise", "turn", -1),
        ("camera rotating", "turn", 1), ("still", "frozen", 1), ("静止", "frozen", 1), ("still", "shift", -1), ("still", "noise", 0.9),
        ("camera panning left", "noise", 0),
    ],
)  # fmt: skip
def test_motion_is_held_against_the_prompt(prompt, kind, value):
    assert measure_frames(clip(kind, 5, 256), prompt=prompt)["prompt_agreement"] == pytest.approx(value, abs=0.1)


@pytest.mark.parametrize("prompt", ["", "a man on the left", "ocean waves", "hand-held camera, shaking"])
def test_a_prompt_without_direction_has_no_agreement(prompt):
    found = measure_frames(clip("shift", 3), prompt=prompt)
    assert found["prompt_agreement"] is None
    assert found.missing["prompt_agreement"] == "the prompt names no direction, zoom or stillness"


def test_the_field_of_a_camera_movement_is_against_the_camera():
    x, y = coordinates((65, 129))
    fields = {part.name: field_of(part, x, y) for part in CAMERAS if part.name != "shake"}
    assert set(fields) >= set(asked("camera pans left, zoom in, tilts up, rotates clockwise, dolly in, then is still"))
    assert fields["pan left"][..., 0].min() > 0 and abs(fields["pan left"][..., 1]).max() < 1e-9
    assert (fields["zoom in"] * np.stack([x, y], -1)).sum(-1).min() > -1e-9
    assert fields["tilt up"][32, 64, 1] > 0 > fields["rotate clockwise"][32, 128, 1]


# Docs


def test_the_docs_have_the_table_of_metrics():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert registry.markdown() in page
    assert set(measured("shift").values) == set(METRICS) - {"subject_consistency"}


class Encoder:
    """A model with an image encoder whose embedding of a frame is its mean colour."""

    name = "encoder"

    def clip_pixels(self, shown: np.ndarray, width: int):
        import torch

        return torch.from_numpy(shown.reshape(-1, 3).mean(0)).float()

    def look(self, seen):
        return seen[None, None]


def test_subject_consistency_follows_vbench_with_the_models_own_encoder():
    shown = np.zeros((3, 40, 40, 3), np.uint8)
    shown[0, ..., 0], shown[1, ..., 1], shown[2, ..., 0] = 200, 200, 100
    assert measure_frames(shown, model=Encoder())["subject_consistency"] == pytest.approx((0 + 0 + 1 + 0) / 4)
    assert measure_frames(shown[[0, 2, 0]], model=Encoder())["subject_consistency"] == pytest.approx(1)
    none = measure_frames(shown, model=object())
    assert none["subject_consistency"] is None and "no image encoder" in none.missing["subject_consistency"]
    assert "subject_consistency" not in measure_frames(shown).values
