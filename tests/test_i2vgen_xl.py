"""I2VGen-XL with a small random checkpoint: under every parameter, and what it says of itself."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BASE, SIZES, Ears, folder_fixture, model_fixture, painted, picture_fixture  # noqa: F401

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.video import Frames
from i2v_lab.errors import OutOfMemory, Stop, UnsupportedParams
from i2v_lab.models.base import VideoModel
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.i2vgen_xl.networks import preview
from i2v_lab.models.i2vgen_xl.parts import estimate_tokens


@pytest.fixture(scope="module")
def frames(model: I2VGenXL, picture: Picture) -> Frames:
    """The clip of BASE."""
    return model.generate(picture, BASE, Progress())


# --- what decides the frames


def test_one_seed_decides_everything(model: I2VGenXL, picture: Picture, folder: Path) -> None:
    loaded_again = I2VGenXL.load(folder)
    for scheduler in ("ddim", "euler-a"):
        params = BASE.replace(scheduler=scheduler, num_inference_steps=2)
        first = model.generate(picture, params, Progress())
        torch.manual_seed(99)  # no other randomness counts
        assert np.array_equal(first, model.generate(picture, params, Progress()))
        assert np.array_equal(first, loaded_again.generate(picture, params, Progress()))
        assert not np.array_equal(first, model.generate(picture, params.replace(seed=6), Progress()))


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a cat"}, {"negative_prompt": "a cat"}, {"condition_fps": 30}, {"guidance_scale": 4.0}, {"num_inference_steps": 4},
     {"scheduler": "euler"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_each_parameter_changes_the_frames(model: I2VGenXL, picture: Picture, frames: Frames, change: dict[str, Any]) -> None:
    assert frames.shape == (3, 64, 96, 3)
    assert frames.dtype == np.uint8
    assert not np.array_equal(frames, model.generate(picture, BASE.replace(**change), Progress()))


def test_the_picture_changes_the_frames(model: I2VGenXL, frames: Frames, tmp_path: Path) -> None:
    other = painted(tmp_path / "b.png", 1)
    assert not np.array_equal(frames, model.generate(other, BASE, Progress()))


def test_the_playback_rate_does_not(model: I2VGenXL, picture: Picture, frames: Frames) -> None:
    assert np.array_equal(frames, model.generate(picture, BASE.replace(fps=24), Progress()))


def test_without_guidance_there_is_one_pass_and_the_negative_prompt_is_not_read(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    hook = model.unet.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    try:
        one = model.generate(picture, BASE.replace(guidance_scale=1), Progress())
        assert sizes == [1, 1, 1]
        other = model.generate(picture, BASE.replace(guidance_scale=0.5, negative_prompt="a cat"), Progress())
        assert np.array_equal(one, other)
        sizes.clear()
        model.generate(picture, BASE, Progress())
        assert sizes == [2, 2, 2]
    finally:
        hook.remove()


def test_clip_tower_sees_no_black_edge(model: I2VGenXL) -> None:
    white = np.full((704, 1280, 3), 255, np.uint8)  # the native size, where the stock pipeline is a row short
    seen = model.clip_pixels(white, 1280)
    assert seen.shape == (1, 3, 224, 224)
    assert float(seen.amin((0, 2, 3)).sub(seen.amax((0, 2, 3))).abs().max()) == 0


@pytest.mark.parametrize("resolution", ["64x72", "104x88", "200x64"])
def test_any_multiple_of_eight_works_through_three_halvings(tmp_path: Path, picture: Picture, resolution: str) -> None:
    import diffusers

    config = {**SIZES["small"]["unet"], "block_out_channels": (16, 16, 16, 16), "attention_head_dim": 8}
    down, up = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",), ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3
    unet = diffusers.I2VGenXLUNet(**{**config, "down_block_types": down, "up_block_types": up}).eval()
    params = ClipParams(image="x", resolution=resolution)
    shape = (params.height // 8, params.width // 8)
    with torch.no_grad():
        out = unet(
            torch.randn(1, 4, 2, *shape), torch.tensor(500), fps=torch.tensor([8]), image_latents=torch.randn(1, 4, 2, *shape),
            image_embeddings=torch.randn(1, 1, 32), encoder_hidden_states=torch.randn(1, 77, 32), return_dict=False,
        )[0]  # fmt: skip
    assert out.shape == (1, 4, 2, *shape)


# --- what it says of itself


def test_it_is_a_video_model(model: I2VGenXL) -> None:
    assert isinstance(model, VideoModel)
    assert (model.device, model.dtype) == (("cuda:0", "float16") if torch.cuda.is_available() else ("cpu", "float32"))
    assert set(model.presets) == {"quick", "fast", "fast-cpu", "standard", "high", "extreme"}
    for fields in model.presets.values():
        I2VGenXL.check(ClipParams(image="x", **fields))


def test_sizes_that_are_no_multiples_are_refused() -> None:
    I2VGenXL.check(ClipParams(image="x", resolution="72x104"))
    with pytest.raises(UnsupportedParams, match=r"nearest: 104x96$"):
        I2VGenXL.check(ClipParams(image="x", resolution="101x99"))


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({}, []),
        ({"num_inference_steps": 49}, ["num_inference_steps"]),
        ({"num_inference_steps": 20, "scheduler": "dpm++-2m"}, []),
        ({"scheduler": "lcm"}, ["scheduler"]),
        ({"num_frames": 17}, ["num_frames"]),
        ({"resolution": "512x520"}, ["resolution"]),
        ({"resolution": "1024x512"}, ["resolution"]),
        ({"prompt": ""}, ["prompt"]),
        ({"prompt": "a boat " * 40}, ["prompt"]),
        ({"negative_prompt": "雾" * 80}, ["negative_prompt"]),
    ],
)
def test_advice(fields: dict[str, Any], about: list[str]) -> None:
    params = ClipParams(**{"image": "x", "prompt": "a boat sails by", **fields})
    assert [advice.field for advice in I2VGenXL.advice(params)] == about


def test_token_estimate() -> None:
    # What the published tokenizer makes of them: 2, 9 and 4 tokens.
    assert estimate_tokens("") == 2
    assert estimate_tokens("Papers were floating in the air.") == 9
    assert estimate_tokens("a cat") == 4


def test_another_dtype_than_it_was_loaded_with_is_refused(model: I2VGenXL, picture: Picture) -> None:
    with pytest.raises(UnsupportedParams, match=r"loaded as float32, got bfloat16; nearest: float32$"):
        model.generate(picture, BASE.replace(dtype="bfloat16"), Progress())


def test_steps_that_cannot_be_made_are_refused_before_any_work(model: I2VGenXL, picture: Picture) -> None:
    heard = Ears()
    with pytest.raises(UnsupportedParams, match=r"^num_inference_steps: .*; nearest: 999$"):
        model.generate(picture, BASE.replace(num_inference_steps=1000), heard)
    assert heard.events == []


# --- progress, preview, Stop


ALL = [("encode", 3), *["step"] * 3, ("denoise", 3), *["step"] * 3, ("decode", 3), *["step"] * 3]


def test_stages_steps_and_previews(model: I2VGenXL, picture: Picture) -> None:
    ears = Ears()
    model.generate(picture, BASE, ears)
    assert ears.events == ALL
    assert [shown.shape for shown in ears.previews] == [(3, 8, 12, 3)] * 3
    assert all(shown.dtype == np.uint8 and shown.std() > 0 for shown in ears.previews)


# Each stage once; every event with the slow tests.
AT = [at if at in (1, 6, 11) else pytest.param(at, marks=pytest.mark.slow) for at in range(1, len(ALL) + 1)]


@pytest.mark.parametrize("at", AT)
def test_stop_acts_at_every_event_and_leaves_the_model_usable(model: I2VGenXL, picture: Picture, at: int) -> None:
    ears = Ears(at, Stop("enough"))
    with pytest.raises(Stop):
        model.generate(picture, BASE, ears)
    assert ears.events == ALL[:at]
    if at in (3, 6):
        assert model.generate(picture, BASE, Progress()).std() > 0


def test_preview_of_anything() -> None:
    noise = torch.randn(2, 4, 3, 5)
    assert np.abs(preview(noise).astype(int) - preview(4096 * noise)).max() <= 3  # schedulers differ in scale
    assert preview(torch.full((2, 4, 3, 5), torch.nan)).shape == (2, 3, 5, 3)


def test_a_preview_looks_like_the_latents() -> None:
    bright, dark = (torch.tensor(sign * np.array([2.0, 1.0, 0.0, -1.0])).float().view(1, 4, 1, 1) for sign in (1, -1))
    assert preview(bright).min() > preview(dark).max()


# --- failures


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())  # isinstance would ask lazy modules


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), MemoryError()])
def test_out_of_memory_is_reported_and_nothing_is_kept(model: I2VGenXL, picture: Picture, error: Exception) -> None:
    before = tensors_alive()
    with pytest.raises(OutOfMemory, match=r"^3 frames of 64x96 in float32 do not fit .*; make fewer frames") as caught:
        model.generate(picture, BASE, (ears := Ears(7, error)))
    error.__traceback__ = None
    ears.previews.clear()
    assert caught.value.__context__ is None
    assert tensors_alive() <= before
    assert model.generate(picture, BASE, Progress()).std() > 0


@pytest.mark.slow
def test_a_real_allocation_that_fails(folder: Path, picture: Picture) -> None:
    code = (
        "import resource, sys\n"
        "from i2v_lab.errors import OutOfMemory\n"
        "from i2v_lab.clip.picture import open_picture\n"
        "from i2v_lab.models.i2vgen_xl.model import I2VGenXL\n"
        "from i2v_lab.clip.params import ClipParams\n"
        "from i2v_lab.clip.progress import Progress\n"
        "model, picture = I2VGenXL.load(sys.argv[1], device='cpu'), open_picture(sys.argv[2])\n"
        "small = ClipParams(image='x', resolution='64x64', num_frames=2, num_inference_steps=1)\n"
        "model.generate(picture, small, Progress())\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "try:\n"
        "    model.generate(picture, small.replace(resolution='1024p', num_frames=32), Progress())\n"
        "except OutOfMemory as error:\n"
        "    print(error)\n"
        "print(model.generate(picture, small, Progress()).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder, picture.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, shape = done.stdout.splitlines()
    assert told.startswith("32 frames of 1024x1024 in float32 do not fit into the memory of cpu")
    assert shape == "(2, 64, 64, 3)"
