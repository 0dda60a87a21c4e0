"""Levers that save time: what they change, what they leave alone, and what was predicted of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BASE, Ears, folder_fixture, model_fixture, picture_fixture  # noqa: F401
from forecasts import empty_cost_cache
from tiny_families import by_hand, loaded, make_checkpoint, params_for, small_sizes

from i2v_lab import models
from i2v_lab.clip.key import clip_key
from i2v_lab.clip.levers import Cache, Step, steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.cost import Forecaster
from i2v_lab.errors import ParamsError, Stop, UnsupportedParams
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.levers import Clock, caching
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.stock.calibrate import calibrated
from i2v_lab.models.stock.families import FAMILIES

TEN = BASE.replace(num_inference_steps=10)
LEVERS: dict[str, list[dict[str, Any]]] = {
    "i2vgen-xl": [
        {"guidance_interval": "0.1-0.8"}, {"cache": "deep:2"}, {"cache": "deep:3"}, {"cache": "pab:2"}, {"cache": "taylor:3"},
        {"cache": "deep:3", "guidance_interval": "0.2-0.7", "scheduler": "heun"},
    ],
    "svd": [{"cache": "deep:2"}, {"cache": "deep:3"}, {"cache": "pab:2"}],
    "wan2.2-ti2v-5b": [{"guidance_interval": "0.1-0.8"}, {"cache": "pab:2"}, {"cache": "taylor:3", "guidance_interval": "0.2-1"}],
    "ltx-video": [{"cache": "pab:3"}],
    "wan2.2-i2v-a14b": [{"cache": "pab:2"}, {"cache": "pab:3", "scheduler": "euler"}],  # two networks: the second has kept nothing
    "cogvideox1.5-5b-i2v": [{"cache": "faster:3"}],
}  # fmt: skip
SLOW = ("svd", "wan2.2-ti2v-5b", "wan2.2-i2v-a14b", "cogvideox1.5-5b-i2v")
EACH = [
    pytest.param(name, change, marks=pytest.mark.slow if name in SLOW else ())
    for name, changes in LEVERS.items()
    for change in changes
]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with empty_cost_cache(tmp_path_factory.mktemp("cache")), small_sizes():
        yield


class Tiny(dict[str, tuple[Any, Path, ClipParams]]):
    """{family: (its model, the checkpoint's folder, a clip of ten steps)}, each made when it is first asked for."""

    def __init__(self, root: Path, **known: tuple[Any, Path, ClipParams]) -> None:
        super().__init__(known)
        self.root = root

    def __missing__(self, name: str) -> tuple[Any, Path, ClipParams]:
        at = make_checkpoint(name, self.root / name)
        steps = {"svd": 5}.get(name, 10)
        self[name] = loaded(name, at), at, params_for(name, at, num_inference_steps=steps)
        return self[name]


@pytest.fixture(scope="module")
def tiny(model: I2VGenXL, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("stock"), **{"i2vgen-xl": (model, folder, TEN)})


class Denoising(Progress):
    """FLOPs of the stage, by a tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.at = tracker, dict[str, int]()

    def stage(self, name: str, total: int | None = None) -> None:
        self.at[name] = self.tracker.flops

    @property
    def flops(self) -> int:
        return self.at["decode"] - self.at["denoise"]


@pytest.mark.parametrize(("name", "change"), EACH, ids=lambda value: value if isinstance(value, str) else "-".join(value.values()))
def test_a_lever_saves_the_flops_that_were_predicted_and_leaves_nothing_behind(
    name: str, change: dict[str, Any], tiny: Tiny, picture: Picture
) -> None:
    model, at, plain = tiny[name]
    before = model.generate(picture, plain, Progress())
    params = plain.replace(**change)
    with Tracker() as tracker:
        denoising = Denoising(tracker)
        frames = model.generate(picture, params, denoising)
    cost = {stage.stage: stage for stage in type(model).cost(params, checkpoint=str(at), device="cpu", dtype="float32")}
    assert denoising.flops == pytest.approx(cost["denoise"].flops, rel=1e-9)
    assert not np.array_equal(frames, before)
    with pytest.raises(Stop):
        model.generate(picture, params, Ears(at=9, error=Stop("now")))  # in the middle of the steps
    assert np.array_equal(model.generate(picture, plain, Progress()), before)
    assert np.array_equal(model.generate(picture, params, Progress()), frames)


@pytest.mark.parametrize("change", [{"guidance_interval": "0-1"}, {"cache": "deep:1"}], ids=str)
def test_a_neutral_value_is_no_lever(change: dict[str, Any], model: I2VGenXL, picture: Picture) -> None:
    plain, neutral = BASE, BASE.replace(**change)
    assert np.array_equal(model.generate(picture, neutral, Progress()), model.generate(picture, plain, Progress()))
    assert clip_key(neutral, "0", model) == clip_key(plain, "0", model)
    assert clip_key(BASE.replace(cache="deep:2"), "0", model) != clip_key(plain, "0", model)


def test_guidance_within_an_interval_is_that_of_the_stock_pipeline_told_so_step_by_step(tiny: Tiny, picture: Picture) -> None:
    model, at, plain = tiny["wan2.2-ti2v-5b"]

    def told(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale = plain.guidance_scale if index + 1 < 6 else 1.0
        return tensors

    def prepare(pipe: Any) -> None:
        true = type(pipe).__call__
        kind = type(
            "Told",
            (type(pipe),),
            {"__call__": lambda self, *args, **options: true(self, *args, callback_on_step_end=told, **options)},
        )
        pipe.__class__ = kind

    expected = by_hand(at, FAMILIES["wan2.2-ti2v-5b"], plain, picture, prepare)
    assert np.array_equal(model.generate(picture, plain.replace(guidance_interval="0-0.6"), Progress()), expected)


def test_broadcast_attention_is_that_of_diffusers_where_both_prompts_go_in_one_pass(tiny: Tiny, picture: Picture) -> None:
    from diffusers import PyramidAttentionBroadcastConfig

    model, at, plain = tiny["ltx-video"]
    calls = [0]

    def prepare(pipe: Any) -> None:
        def count(*_: Any) -> None:
            calls[0] += 1

        pipe.transformer.register_forward_hook(count)
        # Steps 2 to 8 of 10, as the product counts them; iterations are counted from the first step, so that 2 is a multiple.
        pipe.transformer.enable_cache(PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, cross_attention_block_skip_range=2, spatial_attention_timestep_skip_range=(0, 2),
            cross_attention_timestep_skip_range=(0, 2), current_timestep_callback=lambda: 1 if 2 <= calls[0] < 9 else 5,
        ))  # fmt: skip

    expected = by_hand(at, FAMILIES["ltx-video"], plain, picture, prepare)
    assert calls[0] == 10
    assert np.array_equal(model.generate(picture, plain.replace(cache="pab:2"), Progress()), expected)


class Names(Progress):
    """The stages that were shown, and how many steps each was said to have and had."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []

    def stage(self, name: str, total: int | None = None) -> None:
        if not self.stages or self.stages[-1][0] != name:
            self.stages.append([name, total, 0])
        self.stages[-1][1] = total

    def step(self, preview: Any = None) -> None:
        self.stages[-1][2] += 1


@pytest.mark.slow
def test_magcache_measures_its_ratios_once_and_again_finds_the_same(tiny: Tiny, picture: Picture, tmp_path: Path) -> None:
    model, _, plain = tiny["wan2.2-ti2v-5b"]
    before = model.generate(picture, plain, Progress())
    params, names = plain.replace(cache="mag:0.3", seed=5), Names()
    with pytest.raises(Stop):
        model.generate(picture, params, Ears(at=9, error=Stop("now")))  # while it measures
    assert np.array_equal(model.generate(picture, plain, Progress()), before)
    frames = model.generate(picture, params, names)
    assert names.stages[0] == ["calibrate", 10, 10]
    assert [name for name, *_ in names.stages] == ["calibrate", "encode", "denoise", "decode"]
    assert re.fullmatch(r"mag: [4-6] of 10 steps reused", model.remarks[0])
    for change in ({"guidance_scale": 9.0}, {"prompt": "a dog runs"}, {"cache": "mag:0.01"}, {}):  # the ratios are theirs too
        names = Names()
        again = model.generate(picture, params.replace(**change), names)
        assert names.stages[0][0] == "encode"
    assert np.array_equal(again, frames)
    assert np.array_equal(model.generate(picture, plain, Progress()), before)
    assert model.remarks == ()
    with empty_cost_cache(tmp_path):  # as another process, or another machine, measures them
        assert np.array_equal(model.generate(picture, params, Progress()), frames)
    with Tracker() as tracker:
        denoising = Denoising(tracker)
        model.generate(picture, params, denoising)
    forecast = Forecaster().plan(params, model)
    flops = denoising.flops + sum(stage.flops for stage in forecast.stages if stage.stage != "denoise")
    assert forecast.least_flops < flops < forecast.flops
    assert "; what the cache saves depends on the clip; the first clip of these settings measures" in forecast.sentence()


def test_magcache_is_that_of_diffusers_where_both_prompts_go_in_one_pass(tiny: Tiny, picture: Picture) -> None:
    from diffusers import MagCacheConfig

    model, at, plain = tiny["ltx-video"]
    ratios = calibrated(model, plain.replace(cache="mag"), Progress())
    assert len(set(ratios)) > 5
    config = MagCacheConfig(threshold=0.1, mag_ratios=list(ratios), num_inference_steps=10)
    expected = by_hand(at, FAMILIES["ltx-video"], plain, picture, lambda pipe: pipe.transformer.enable_cache(config))
    assert np.array_equal(model.generate(picture, plain.replace(cache="mag:0.1"), Progress()), expected)


@pytest.mark.slow
def test_fastercache_is_that_of_diffusers(tiny: Tiny, picture: Picture) -> None:
    from diffusers import FasterCacheConfig

    model, at, plain = tiny["cogvideox1.5-5b-i2v"]

    def prepare(pipe: Any) -> None:
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        pipe.transformer.enable_cache(FasterCacheConfig(
            tensor_format="BFCHW", unconditional_batch_skip_range=3, current_timestep_callback=lambda: pipe.current_timestep,
            attention_weight_callback=lambda _: 0.5,
        ))  # fmt: skip

    with warnings.catch_warnings():
        expected = by_hand(at, FAMILIES["cogvideox1.5-5b-i2v"], plain, picture, prepare)
    assert np.array_equal(model.generate(picture, plain.replace(cache="faster:3"), Progress()), expected)


def test_the_preset_fast_says_what_it_saves(tiny: Tiny) -> None:
    model, _, plain = tiny["i2vgen-xl"]
    fast = plain.replace(
        **{name: value for name, value in I2VGenXL.presets["fast"].items() if name in ("cache", "guidance_interval")}
    )
    forecast, standard = (Forecaster().plan(params, model) for params in (fast, plain.replace(num_inference_steps=50)))
    share = forecast.flops / standard.flops
    assert standard.of_standard is None
    assert forecast.of_standard == pytest.approx(share)
    assert f"; {share:.2g} of the FLOPs of standard" in forecast.sentence()


def test_a_step_that_reuses_what_the_same_input_gave_gives_the_same(model: I2VGenXL, tiny: Any) -> None:
    """DeepCache leaves out what it would have computed, and nothing else: of equal inputs the shallow pass is exact."""
    generator = torch.Generator().manual_seed(0)
    svd = tiny["svd"][0].pipe.unet

    def of_i2vgen_xl() -> torch.Tensor:
        noise, text = torch.randn(1, 4, 3, 8, 12, generator=generator), torch.zeros(1, 77, model.unet.config.cross_attention_dim)
        return model.unet(noise, torch.tensor(500), torch.tensor([8]), noise, torch.zeros(1, 1, text.shape[-1]), text)[0]

    def of_svd() -> torch.Tensor:
        noise = torch.randn(1, 3, svd.config.in_channels, 8, 8, generator=generator)
        return svd(noise, torch.tensor(1.0), torch.zeros(1, 1, svd.config.cross_attention_dim), torch.zeros(1, 3))[0]

    for network, forward in ((model.unet, of_i2vgen_xl), (svd, of_svd)):
        clock = Clock([Step(guided=False, reused=False), Step(guided=False, reused=True)])
        with torch.no_grad(), caching([network], Cache("deep", 2), clock):
            generator.manual_seed(0)
            whole = forward()
            clock.next_step()
            generator.manual_seed(0)
            assert torch.equal(forward(), whole)
            clock.next_step()
            generator.manual_seed(1)
            assert not torch.equal(forward(), whole)


class Line(torch.nn.Module):
    """A network whose output grows by 2 a step, and which counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, step: int) -> tuple[torch.Tensor]:
        self.calls += 1
        return (torch.full((2, 2), 3.0 + 2 * step),)


def test_a_taylor_series_extends_what_grows_evenly_without_error() -> None:
    line, clock = Line(), Clock(steps_of(ClipParams(image="x", cache="taylor:4", guidance_scale=1), 13))
    with caching([line], Cache("taylor", 4), clock):
        for step in range(13):
            assert torch.equal(line(step)[0], torch.full((2, 2), 3.0 + 2 * step))
            clock.next_step()
    assert line.calls == 5  # 0, 1, 2, 6 and 10


def test_the_steps_of_a_run() -> None:
    def steps(count: int, **fields: Any) -> tuple[str, str]:
        found = steps_of(ClipParams(image="x", **fields), count)
        return "".join("-+"[step.guided] for step in found), "".join(".r"[step.reused] for step in found)

    assert steps(4) == ("++++", "....")
    assert steps(4, guidance_scale=1, guidance_interval="0-0.5") == ("----", "....")
    assert steps(10, guidance_interval="0.1-0.8") == ("-+++++++--", "..........")
    assert steps(7, cache="deep:3") == ("+++++++", ".rr.rr.")
    assert steps(10, cache="pab:2") == ("++++++++++", "...r.r.r..")
    assert steps(10, cache="faster:3") == ("++++++++++", "....rr.rr.")
    assert [step for step, one in enumerate(steps_of(ClipParams(image="x", cache="faster:3"), 10)) if not one.attends] == [5, 7]
    assert steps(10, cache="mag:0.1") == ("++++++++++", "..........")  # without ratios
    # Where guidance begins or ends, the batch is another, and nothing can be reused.
    assert steps(8, cache="deep:4", guidance_interval="0.5-0.75") == ("----++--", ".rrr.r.r")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guidance_interval": "0.8-0.1"}, "guidance_interval: expected two shares of the steps from 0 to 1, the lower first"),
        ({"guidance_interval": "0.1"}, "such as 0.1-0.8, got '0.1'"),
        ({"guidance_interval": "-0.1-0.5"}, "got '-0.1-0.5'"),
        ({"cache": "tea"}, "cache: expected deep:3, pab:2, first-block:0.1, taylor:3, mag:0.06, faster:5, got 'tea'"),
        ({"cache": "faster:1"}, "a whole number of steps from 2 to 20 after faster, such as faster:5, got 'faster:1'"),
        ({"cache": "mag:2"}, "a number of threshold from 0 to 1 after mag, such as mag:0.06, got 'mag:2'"),
        ({"cache": "deep:0"}, "a whole number of steps from 1 to 20 after deep, such as deep:3, got 'deep:0'"),
        ({"cache": "deep:1.5"}, "got 'deep:1.5'"),
        ({"cache": "first-block:nan"}, "a number of threshold from 0 to 1"),
    ],
)
def test_a_value_that_means_nothing_is_one_clear_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        ClipParams(image="x", **fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "cache", "said"),
    [("closed-form", "deep:3", "cache: closed-form does not read it"), ("svd", "first-block:0.1", "cache: svd works with deep, pab, taylor, got"),
     ("svd", "mag", "nearest: deep:3"), ("wan2.2-ti2v-5b", "faster", "cache: wan2.2-ti2v-5b works with pab, taylor, first-block, mag, got faster:5"),
     ("wan2.2-ti2v-5b", "deep:3", "nearest: pab:2"), ("framepack", "pab:2", "cache: framepack does not read it")],
)  # fmt: skip
def test_a_family_refuses_a_cache_that_it_has_not(model: str, cache: str, said: str) -> None:
    params = models.resolve(ClipParams(model=model, image="sample:coffee", cache=cache))
    with pytest.raises(UnsupportedParams, match=said):
        models.find(model)[0].check(params)
    models.find(model)[0].check(params.replace(cache="deep:1"))  # which changes nothing


def test_magcache_reuses_while_what_it_misses_is_below_the_threshold() -> None:
    def reused(threshold: float, ratios: list[float], **more: Any) -> str:
        found = steps_of(ClipParams(image="x", cache=f"mag:{threshold}"), len(ratios), ratios=ratios, **more)
        return "".join(".r"[step.reused] for step in found)

    assert reused(0.5, [1.0] * 10) == "..rrr.rrr."  # a fifth at the beginning, and every fourth
    assert reused(0.5, [1.0] * 10, switch=4) == "..rr.rrr.r"  # the second network has kept nothing
    assert reused(0.05, [1, 1, 0.98, 0.98, 0.98, 1, 1, 1.1, 1, 1]) == "..r.rr..rr"  # 0.02, then 0.0396 more
    assert reused(0, [1, 1, 1, 1, 0.999]) == ".rrr."


def test_what_a_cache_saves_by_what_is_in_the_clip_is_said_to_be_at_most(tiny: Tiny) -> None:
    sentence = Forecaster().plan(tiny["ltx-video"][2].replace(cache="first-block")).sentence()
    assert re.search(r"[\d.e-]+ to [\d.e-]+ TFLOP", sentence)
    assert "what the cache saves depends on the clip" in sentence
