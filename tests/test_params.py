"""ClipParams: what is accepted, what is refused, and how it is said."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest

from i2v_lab import models
from i2v_lab.clip.levers import LEVERS
from i2v_lab.clip.params import ClipParams, count_actions, from_mapping
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ParamsError
from i2v_lab.models import LISTED, advice, find, preset, resolve


@pytest.mark.parametrize(
    ("given", "height", "width", "written"),
    [
        ("512p", 512, 512, "512p"),
        ("512", 512, 512, "512p"),
        (768, 768, 768, "768p"),
        ("512x512", 512, 512, "512p"),
        ("704x1280", 704, 1280, "704x1280"),
        ("704×1280", 704, 1280, "704x1280"),
    ],
)
def test_a_resolution_is_height_by_width_and_has_one_spelling(given, height, width, written):
    params = ClipParams(image="a.png", resolution=given)
    assert (params.height, params.width, params.resolution) == (height, width, written)


@pytest.mark.parametrize(
    ("given", "exact", "plain"),
    [
        (8, Fraction(8), 8),
        ("12.5", Fraction(25, 2), "25/2"),
        ("24000/1001", Fraction(24000, 1001), "24000/1001"),
        (23.976, Fraction(24000, 1001), "24000/1001"),
        (29.97, Fraction(30000, 1001), "30000/1001"),
    ],
)
def test_fps_is_an_exact_ratio_and_survives_json(given, exact, plain):
    params = ClipParams(image="a.png", fps=given)
    assert params.fps == exact
    assert params.plain()["fps"] == plain
    assert ClipParams.model_validate_json(params.model_dump_json()) == params


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"guidance": 9}, "guidance: unknown name; did you mean guidance_scale?"),
        ({"guidance_scale": 51}, "guidance_scale: input should be less than or equal to 50, got 51"),
        ({"guidance_scale": float("nan")}, "guidance_scale: input should be a finite number"),
        ({"num_frames": 1}, "num_frames: input should be greater than or equal to 2, got 1"),
        ({"num_frames": 2.5}, "num_frames: input should be a valid integer"),
        ({"seed": -2}, "seed: input should be greater than or equal to -1"),
        ({"resolution": "511p"}, "768p, 1024p or HEIGHTxWIDTH such as 704x1280, got '511p'"),
        ({"resolution": "32x64"}, "resolution: expected sides of 64 to 2048 pixels, got '32x64'"),
        ({"fps": "1/0"}, "fps: expected frames a second as a number or a ratio such as 24000/1001, got '1/0'"),
        ({"fps": 0.5}, "fps: expected 1 to 120 frames a second, got 0.5"),
        ({"scheduler": "dimm"}, "scheduler: input should be 'ddim'"),
        ({"prompt": "x" * 2001}, "prompt: string should have at most 2000 characters"),
        ({"image": ""}, "image: string should have at least 1 character"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(fields, says):
    with pytest.raises(ParamsError) as caught:
        ClipParams(**{"image": "a.png", **fields})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_all_that_is_wrong_is_in_one_error():
    with pytest.raises(ParamsError, match=r"image: missing; num_frames: .*; guidence_scale: unknown name"):
        ClipParams(num_frames=0, guidence_scale=3)


def test_params_are_frozen_and_changes_are_checked_copies():
    params = ClipParams(image="a.png")
    assert params.replace(seed=7).seed == 7
    assert params.seed == 0
    with pytest.raises(ParamsError, match="num_inference_steps"):
        params.replace(num_inference_steps=0)


def test_empty_cells_of_a_table_mean_the_default():
    assert from_mapping({"image": "a.png", "seed": "3", "fps": "", "prompt": None}) == ClipParams(image="a.png", seed=3)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"guidance_scale": 17}, "guidance_scale"),
        ({"guidance_scale": 5.9}, "guidance_scale"),
        ({"fps": 5}, "fps"),
        ({"fps": 13}, "fps"),
        ({"prompt": "zoom in, running, jumping, singing, dancing"}, "prompt"),
        ({"prompt": "a cat"}, "prompt"),
        ({"model": "i2vgen-xl", "prompt": "a cat", "num_inference_steps": 49}, "num_inference_steps"),
        ({"model": "i2vgen-xl", "prompt": "a cat", "num_frames": 17}, "num_frames"),
    ],
)
def test_advice_is_data_about_the_field_that_disappoints(fields, field):
    base = {"image": "a.png", "prompt": "zoom in"}
    assert advice(ClipParams(**base)) == []
    (found,) = advice(ClipParams(**{**base, **fields}))
    assert found.field == field
    assert all((found.what, found.why, found.remedy))


def test_actions_are_counted_in_english_and_chinese():
    assert count_actions("a king in the morning") == 0
    assert count_actions("a man walking, then running in the evening") == 2
    assert count_actions("小猫走着，然后跳起来") == 2


@pytest.mark.parametrize("name", LISTED)
def test_every_preset_of_every_family_is_valid_and_within_what_it_can_do(name):
    kind, _ = find(name)
    assert {"quick", "standard"} <= set(kind.presets) <= {"quick", "few-steps", "fast", "fast-cpu", "standard", "high", "extreme"}
    wide = SimpleNamespace(width=1280, height=720)
    clips = {key: resolve(ClipParams(image="a.png", model=name, **fields), lambda: wide) for key, fields in kind.presets.items()}
    for params in clips.values():
        kind.check(params)
    standard = clips["standard"]
    if fast := clips.get("fast"):
        assert fast.num_inference_steps == standard.num_inference_steps
        assert fast.cache or fast.guidance_interval
        assert fast.replace(**dict.fromkeys(LEVERS)).plain() == standard.plain()
    if few := clips.get("few-steps"):
        assert few.num_inference_steps <= 8 < standard.num_inference_steps
        assert few.guidance_scale == 1
        assert few.lora
    assert ("few-steps" in clips) == name.startswith(("wan", "ltx-video-13b"))
    if name == "closed-form":
        with pytest.raises(
            ParamsError, match=r"preset: expected quick, standard, high, extreme or a file such as winner.yaml, got 'fast'"
        ):
            preset(name, "fast")


def test_a_size_that_is_turned_is_advised_against_and_auto_is_offered():
    wide = open_picture("sample:coffee")  # 400 high, 600 wide
    found = {item.field: item for item in advice(ClipParams(image="x", prompt="zoom in", resolution="480x320"), wide)}
    assert str(found["resolution"]) == (
        "resolution: 480x320 is 480 high x 320 wide, and the picture is 400 high x 600 wide: 56 % of the picture is cut off; "
        "auto takes the picture's own shape"
    )
    for resolution in ("320x480", "256p", "auto"):
        fine = models.resolve(ClipParams(image="sample:coffee", prompt="zoom in", resolution=resolution))
        assert "resolution" not in {item.field for item in advice(fine, wide)}
    high = replace(wide, rgb=wide.rgb.transpose(1, 0, 2))
    assert "resolution" not in {
        item.field for item in advice(ClipParams(image="x", model="cogvideox-5b-i2v", resolution="480x720"), high)
    }
