"""The closed-form model: its formula against automatic differentiation, its draws against its distribution, its clips by
optical flow."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import UnsupportedParams
from i2v_lab.models.closed_form import model as closed_form
from i2v_lab.models.closed_form.model import Canvas, ClosedForm, Mixture, NoiseLevels, grid_size, log_probabilities
from i2v_lab.models.closed_form.motions import MOTIONS, understand
from i2v_lab.models.sampling import SCHEDULERS, denoise, make_scheduler
from i2v_lab.run import run_clip
from i2v_lab.store import Store

MODEL = ClosedForm()
TINY = ClipParams(image="sample:coffee", resolution="64x64", num_frames=4, condition_fps=4, num_inference_steps=10)

spec = importlib.util.spec_from_file_location("check", Path(__file__).parent.parent / "experiments" / "closed_form_check.py")
assert spec is not None
assert spec.loader is not None
check = importlib.util.module_from_spec(spec)
__import__("sys").modules["check"] = check  # dataclasses look their module up
spec.loader.exec_module(check)


@pytest.fixture(scope="module")
def coffee():
    return open_picture("sample:coffee")


@pytest.mark.parametrize("timestep", [999, 900, 500, 100, 10, 0, 499.5])
def test_the_denoiser_is_tweedies_formula_of_its_own_density(coffee, timestep):
    centres = MODEL.encode(coffee, TINY, Progress()).flatten(1).double()
    mixture = Mixture(centres, closed_form.SIGMA)
    a, s = NoiseLevels(make_scheduler("ddim", closed_form.SCHEDULER_CONFIG).alphas_cumprod)(timestep)
    assert a * a + s * s == pytest.approx(1)
    log_p = log_probabilities("camera panning left")
    generator = torch.Generator().manual_seed(0)
    x = a * centres[5] + s * torch.randn(centres.shape[1], generator=generator, dtype=torch.float64)
    x.requires_grad_()
    # log p(x_t), written out as a mixture by torch.distributions: not the code under test.
    width = (a * a * closed_form.SIGMA**2 + s * s) ** 0.5
    normal = torch.distributions.Independent(torch.distributions.Normal(a * centres, width), 1)
    density = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=log_p), normal)
    (score,) = torch.autograd.grad(density.log_prob(x), x)
    tweedie = (x + s * s * score) / a  # E[x0 | x_t] (Efron 2011)
    assert torch.allclose(mixture.denoise(x.detach(), a, s, log_p), tweedie, rtol=0, atol=1e-5)


def test_without_guidance_motions_come_as_often_as_the_prompt_says(coffee):
    """Chi-square over 500 seeds: each motion that the prompt names, and the rest by kind of camera."""
    prompt = "camera panning left"
    params = TINY.replace(prompt=prompt, guidance_scale=1, num_inference_steps=64, num_frames=3)
    clips = MODEL.encode(coffee, params, Progress())
    mixture, log_p = Mixture(clips.flatten(1).double(), closed_form.SIGMA), log_probabilities(prompt)
    levels = NoiseLevels(make_scheduler("ddim", closed_form.SCHEDULER_CONFIG).alphas_cumprod)

    def predict(latents, timestep, with_negative):
        a, s = levels(float(timestep))
        x = latents.flatten().double()
        clean = mixture.denoise(x, a, s, log_p)
        return (a * (x - a * clean) / s - s * clean).reshape(1, *latents.shape).float()

    def kind(motion):
        return motion.name if understand(prompt).names(motion) else motion.camera.name.split()[0]

    drawn: Counter[str] = Counter()
    for seed in range(500):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(clips.shape[1:], generator=generator)
        scheduler = make_scheduler("ddim", closed_form.SCHEDULER_CONFIG)
        latents = denoise(predict, noise, scheduler, params, generator, Progress())
        drawn[kind(MOTIONS[int(mixture.log_joint(latents.flatten().double(), 1, 0, torch.zeros(len(MOTIONS))).argmax())])] += 1
    expected: Counter[str] = Counter()
    for motion, probability in zip(MOTIONS, log_p.exp().tolist(), strict=True):
        expected[kind(motion)] += 500 * probability
    assert min(expected.values()) > 5
    kinds = sorted(expected)
    assert chisquare([drawn[name] for name in kinds], [expected[name] for name in kinds]).pvalue > 0.01


def test_probabilities_are_the_prompts_share_and_the_leak():
    p = log_probabilities("zoom in slowly").exp()
    assert float(p.sum()) == pytest.approx(1)
    named = [understand("zoom in slowly").names(motion) for motion in MOTIONS]
    assert sum(named) == 1
    leak = closed_form.LEAK / len(MOTIONS)
    assert p[named.index(True)] == pytest.approx(1 - closed_form.LEAK + leak)
    assert p.min() == pytest.approx(leak)
    for prompt in ("", "a cat"):
        assert log_probabilities(prompt).exp().tolist() == pytest.approx([1 / len(MOTIONS)] * len(MOTIONS))


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("camera panning left slowly", {"slow pan left"}),
        ("镜头缓慢向左平移", {"slow pan left"}),
        ("pan up and left, quickly", {"fast pan up left"}),
        ("pan left then zoom in fast", {"fast pan left", "fast zoom in"}),
        ("ocean waves", {"slow ripple", "ripple", "fast ripple"}),
        ("wind blowing, camera zooms slowly in", {"zoom in + sway"}),
        ("static shot of the sea", {"slow ripple", "ripple", "fast ripple"}),
        ("逆时针旋转", {"slow rotate counterclockwise", "rotate counterclockwise", "fast rotate counterclockwise"}),
        ("镜头拉近，海浪", {"zoom in + ripple"}),
        ("no camera movement", {"still"}),
        ("a man on the left, without wind", set()),
        ("", set()),
    ],
)
def test_prompts_name_motions_in_two_languages(prompt, names):
    assert {motion.name for motion in MOTIONS if understand(prompt).names(motion)} == names


def test_the_table_of_motions_is_what_it_says():
    assert 100 <= len(MOTIONS) <= 200
    assert len({motion.name for motion in MOTIONS}) == len(MOTIONS)
    x, y = np.linspace(-0.5, 0.5, 5, dtype=np.float32)[None, :], np.linspace(-0.5, 0.5, 5, dtype=np.float32)[:, None]
    for motion in MOTIONS:
        at_x, at_y = motion.source(x, y, np.zeros((1, 1, 1), np.float32))
        assert np.allclose(np.broadcast_to(at_x, (1, 5, 5)), x, atol=1e-6), motion.name
        assert np.allclose(np.broadcast_to(at_y, (1, 5, 5)), y, atol=1e-6), motion.name
        assert np.allclose(motion.brightness(np.zeros(1, np.float32)), 1)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (65, 99), (64, 512), (512, 64), (300, 451)])
def test_the_canvas_holds_the_crop_exactly_and_more_of_the_picture(coffee, height, width):
    canvas = Canvas.of(coffee, height, width)
    crop = canvas.pixels[canvas.top : canvas.top + height, canvas.left : canvas.left + width]
    assert np.array_equal(crop, coffee.crop(height, width))
    if (height, width) == (256, 256):  # coffee is 600 x 400: a quarter of the crop's width lies beyond on each side
        assert canvas.pixels.shape == (256, 256 + 2 * 64, 3)


def test_latents_are_some_thousand_numbers_whatever_the_resolution():
    for size in ((64, 64), (512, 512), (704, 1280), (2048, 64)):
        rows, columns = grid_size(*size)
        assert 48 <= rows * columns <= 96
    assert grid_size(512, 512) == (8, 8)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_scheduler_ends_in_a_clean_clip_as_told(coffee, scheduler):
    crop = coffee.crop(128, 128).astype(float)
    told = 0
    for seed in range(3):
        params = TINY.replace(prompt="zoom in", resolution="128x128", scheduler=scheduler, num_inference_steps=50, seed=seed,
                              num_frames=8, condition_fps=16)  # fmt: skip
        frames = MODEL.generate(coffee, params, Progress())
        assert 10 * np.log10(255**2 / np.mean((frames[0] - crop) ** 2)) > 35
        told += check.PROMPTS["zoom in"](check.movement(frames))
    assert told >= 2


def test_seeds_differ_and_the_same_seed_does_not(coffee):
    clips = [MODEL.generate(coffee, TINY.replace(seed=seed), Progress()) for seed in (1, 1, 2)]
    assert np.array_equal(clips[0], clips[1])
    assert np.abs(clips[0].astype(int) - clips[2]).mean() > 2


def test_the_negative_prompt_pushes_away(coffee):
    params = TINY.replace(
        resolution="64x64", num_inference_steps=20, guidance_scale=9, prompt="", negative_prompt="camera panning left"
    )
    for seed in range(5):
        moved = check.movement(MODEL.generate(coffee, params.replace(seed=seed, num_frames=8, condition_fps=16), Progress()))
        assert not check.pans(1, 0)(moved)


def test_what_it_cannot_do_it_says():
    with pytest.raises(UnsupportedParams, match="dtype: closed-form computes in float32, got float16; nearest: float32"):
        MODEL.check(TINY.replace(dtype="float16"))


def test_a_clip_moves_as_told_by_optical_flow_of_the_file(tmp_path):
    """A sample of experiments/closed_form_check.py, which makes all 144 clips: each prompt over one of four photographs."""
    told = 0
    store = Store(tmp_path)
    for number, prompt in enumerate(check.PROMPTS):
        params = ClipParams(image=check.PHOTOGRAPHS[number % 4], prompt=prompt, seed=number)
        record = run_clip(params, MODEL, store)
        told += check.follows(tmp_path / record.clip, prompt)
        assert check.psnr_first(tmp_path / record.clip, params) > 35
    assert told >= 11  # 95 % of 12, rounded down
