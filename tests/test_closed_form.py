"""The closed-form model: its formula against automatic differentiation, its draws against its distribution, its clips by
optical flow."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from experiment import load_experiment
from scipy.stats import chisquare

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import UnsupportedParams
from i2v_lab.models.closed_form import model as closed_form
from i2v_lab.models.closed_form.canvas import Canvas, grid_size
from i2v_lab.models.closed_form.mixture import Mixture, NoiseLevels
from i2v_lab.models.closed_form.model import ClosedForm, log_probabilities
from i2v_lab.models.closed_form.motions import MOTIONS, understand
from i2v_lab.models.sampling import SCHEDULERS, denoise, make_scheduler
from i2v_lab.run import run_clip
from i2v_lab.store import Store

MODEL = ClosedForm()
TINY = ClipParams(image="sample:coffee", resolution="64x64", num_frames=4, condition_fps=4, num_inference_steps=10)

check = load_experiment("closed_form_check")


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


@pytest.mark.slow
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
        start = np.zeros((1, 1, 1), np.float32)
        at_x, at_y = motion.source(x, y, start, start)
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
def test_every_scheduler_ends_in_a_clean_clip_that_follows_the_prompt(coffee, scheduler):
    crop = coffee.crop(64, 64).astype(float)
    followed = 0
    for seed in range(3):
        params = TINY.replace(prompt="zoom in", scheduler=scheduler, num_inference_steps=50, seed=seed, condition_fps=8)
        frames = MODEL.generate(coffee, params, Progress())
        assert 10 * np.log10(255**2 / np.mean((frames[0] - crop) ** 2)) > 35
        followed += check.zooms(1)(check.movement(frames))
    assert followed >= 2


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


@pytest.mark.slow
def test_clips_follow_their_prompts_by_optical_flow_of_the_file(tmp_path):
    """A sample of experiments/closed_form_check.py, which makes all 165 clips at 512p: every other prompt, one photograph each."""
    followed = 0
    store = Store(tmp_path)
    for number, prompt in enumerate(list(check.PROMPTS)[::2]):
        image = check.PHOTOGRAPHS[number % len(check.PHOTOGRAPHS)]
        params = ClipParams(image=image, prompt=prompt, seed=number, resolution="256p", num_frames=8, num_inference_steps=25)
        record = run_clip(params, MODEL, store)
        followed += check.follows(tmp_path / record.clip, prompt)
        assert check.psnr_first(tmp_path / record.clip, params) > 35
    assert followed >= 16  # 95 % of 17, rounded down


# --- what is beyond the picture


@pytest.mark.parametrize("sample", ["coffee", "astronaut"])
def test_no_frame_shows_the_picture_mirrored(sample):
    """All but zooming out and rotating stay inside; those show a blur without detail, which is not the mirrored picture's."""
    found = check.edge(open_picture(f"sample:{sample}"), side=128, num_frames=8)
    assert found.inside == sum(not motion.camera.beyond for motion in MOTIONS)
    assert found.beyond < 0.65
    assert found.detail < 1.5  # grey levels
    assert found.picture_detail > 3
    assert found.mirrored < 0.35


@pytest.mark.parametrize("sample", ["coffee", "astronaut"])  # 600x400: room at the sides; 512x512: none
@pytest.mark.parametrize(("resolution", "num_frames"), [("65x131", 2), ("131x65", 16), ("96x96", 96)])
def test_a_path_stays_inside_and_is_gentle(sample, resolution, num_frames):
    params = TINY.replace(resolution=resolution)
    canvas = Canvas.of(open_picture(f"sample:{sample}"), params.height, params.width)
    times = (np.arange(num_frames) / 16).astype(np.float32)
    rows, columns = canvas.pixels.shape[:2]
    for motion in MOTIONS:
        path = canvas.path(motion, times)
        scale, pace = path.scale[:, 0, 0], path.camera_time[1:] / path.time[1:]
        assert scale[0] == 1
        assert (np.diff(scale) <= 0).all()  # it never zooms back
        assert scale[-1] > 0.499
        assert np.ptp(pace) < 1e-6
        assert 0 < pace[0] <= 1
        if motion.camera.beyond:
            assert (scale == 1).all()
            continue
        for frame in (num_frames // 2, num_frames - 1):
            x, y = canvas.positions(motion, path.part(frame, frame + 1))
            assert -0.5 < x.min() <= x.max() < columns - 0.5, motion.name
            assert -0.5 < y.min() <= y.max() < rows - 0.5, motion.name


def test_a_move_uses_the_room_before_it_zooms():
    pan = next(motion for motion in MOTIONS if motion.name == "pan left")
    times = (np.arange(16) / 16).astype(np.float32)
    room, none = (Canvas.of(open_picture(f"sample:{name}"), 96, 96).path(pan, times) for name in ("coffee", "astronaut"))
    assert (room.scale == 1).all()
    assert float(none.scale[-1, 0, 0]) == pytest.approx(1 - 2 * 0.2 * 15 / 16, abs=0.01)  # what is left of a pan's way
    assert np.allclose(np.diff(np.log(none.scale[:, 0, 0])), np.log(none.scale[-1, 0, 0]) / 15, atol=0.002)  # at an even speed
