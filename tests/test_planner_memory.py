"""Memory and FLOPs predicted, against torch's profiler and the process's own peak; and how they are kept on disk."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint
from forecasts import clip, empty_cost_cache
from torch._subclasses.fake_tensor import FakeTensorMode

from i2v_lab.clip.progress import Progress
from i2v_lab.cost import plan
from i2v_lab.devices.hardware import GIB
from i2v_lab.errors import ModelError, UnsupportedParams
from i2v_lab.models.base import VideoModel
from i2v_lab.models.closed_form.model import ClosedForm
from i2v_lab.models.fake import FakeModel
from i2v_lab.models.i2vgen_xl import cost as i2vgen_cost
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.memory import cost_cache
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.sampling import SCHEDULERS, denoise, make_scheduler

spec = importlib.util.spec_from_file_location("prediction", Path(__file__).parents[1] / "experiments" / "check_prediction.py")
assert spec is not None
assert spec.loader is not None
prediction = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prediction)

SHAPES = [
    "64x64 2",
    "64x96 8",
    "128x64 3",
    "96x64 4",
    "128x128 16",
    "128x192 8",
    "256p 4",
    "256p 8",
    "256x320 5",
    "384x256 6",
    "320x448 4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), "small")


@pytest.fixture(scope="module")
def model(folder: Path) -> I2VGenXL:
    return I2VGenXL.load(folder, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """The folder of the cache of costs."""
    with empty_cost_cache(tmp_path_factory.mktemp("cache")) as place:
        yield place


# Counting


@pytest.mark.parametrize("fake", [False, True])
def test_the_tracker_counts_each_storage_once_while_it_lives(fake: bool) -> None:
    weight = torch.ones(64, 32)
    mode = FakeTensorMode()
    if fake:
        weight = mode.from_tensor(weight)
    with mode if fake else torch.no_grad(), torch.no_grad(), Tracker([weight]) as tracker:
        x = torch.zeros(16, 64)
        assert tracker.held == 16 * 64 * 4
        y = x @ weight.t().t()  # views of a weight are no memory
        assert tracker.held == 16 * (64 + 32) * 4
        x = y.view(-1)[:10]
        assert tracker.held == 16 * 32 * 4
        del x, y
        assert tracker.held == 0
    assert tracker.peak == 16 * (64 + 32) * 4
    assert tracker.flops == 2 * 16 * 64 * 32


def test_the_flops_of_attention_are_those_of_its_two_products() -> None:
    query, key = torch.randn(2, 3, 40, 16), torch.randn(2, 3, 24, 16)
    with torch.no_grad(), Tracker() as tracker:
        torch.nn.functional.scaled_dot_product_attention(query, key, key)
    assert tracker.flops == 2 * 3 * (2 * 40 * 24 * 16) * 2


def test_a_model_in_the_seam_has_tiers_and_a_cost() -> None:
    for family in (FakeModel, ClosedForm):
        assert isinstance(family(), VideoModel)
        assert family.tiers("cpu") == (0,)
        found = family.cost(clip(), checkpoint="", device="cpu", dtype="float32")
        assert [stage.stage for stage in found] == ["encode", "denoise", "decode"]
        with pytest.raises(ValueError, match="tier 0 alone"):
            family().use_tier(1)


# Against what is measured


@pytest.mark.parametrize("number", [*range(2), *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, len(SHAPES)))])
def test_each_stage_of_a_network_takes_what_was_predicted(model: I2VGenXL, number: int) -> None:
    params = clip(SHAPES[number], guidance_scale=9 - 8 * (number % 3 == 2), scheduler=("ddim", "euler-a", "unipc")[number % 3])
    model.use_tier(2 * (number % 4 == 3))
    try:
        for stage, error in prediction.compare(model, params).items():
            assert abs(error) < 0.05, (params.resolution, params.num_frames, model.tier, stage)
    finally:
        model.use_tier(0)


@pytest.mark.slow
def test_the_full_network_takes_what_its_configs_say() -> None:
    encode, denoise, decode = I2VGenXL.cost(clip("256p 8"), checkpoint="", device="cuda", dtype="float16")
    assert encode.weights == denoise.weights == decode.weights
    assert 2.48e9 * 2 < encode.weights < 2.50e9 * 2  # 2.49 billion parameters of two bytes
    assert denoise.activations / GIB == pytest.approx(0.33, rel=0.02)
    assert denoise.flops / 2 == pytest.approx(4.95e12, rel=0.01)  # a step
    free = I2VGenXL.cost(clip("256p 8", guidance_scale=1), checkpoint="", device="cuda", dtype="float16")[1]
    assert free.flops * 2 == pytest.approx(denoise.flops, rel=0.01)
    assert free.activations < 0.6 * denoise.activations


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["64x64 2", "256p 48", "1024p 12"])
def test_a_closed_form_clip_takes_the_memory_that_was_predicted(shape: str, i2v_lab) -> None:
    params = clip(shape, prompt="zoom in")
    resolution, frames = shape.split()
    made = i2v_lab("generate", "--image", params.image, "--prompt", params.prompt, "--resolution", resolution, "--num-frames", frames,
                   "--num-inference-steps", 2, "--json")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert plan(params).peak_gib == pytest.approx(json.loads(made.stdout)["peak_ram_gib"], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["ddim", "heun", "lms", "dpm++-2m"])
def test_what_a_scheduler_imports_is_predicted_and_counts_as_loading(scheduler: str, i2v_lab) -> None:
    params = clip("256p 16", prompt="zoom in", scheduler=scheduler)
    made = i2v_lab("generate", "--image", params.image, "--prompt", params.prompt, "--resolution", "256p", "--num-frames", 16,
                   "--num-inference-steps", 2, "--scheduler", scheduler, "--json", cold=True)  # fmt: skip
    record = json.loads(made.stdout)
    assert plan(params).peak_gib == pytest.approx(record["peak_ram_gib"], rel=0.05)
    assert record["seconds"]["encode"] < record["seconds"]["load"] / 2  # where it was imported, half a second more


TWO_CLIPS = """
import sys, tempfile
from pathlib import Path
from i2v_lab import ClipParams, run_clip
from i2v_lab.store import Store
store = Store(Path(tempfile.mkdtemp()))
for scheduler in sys.argv[1:]:
    params = ClipParams(image="sample:coffee", prompt="zoom in", resolution="512p", num_inference_steps=2, scheduler=scheduler)
    record = run_clip(params, None, store)
    print(scheduler, record.peak_ram_gib, record.ram_rise_gib, record.first_of_shape)
"""


@pytest.mark.slow
def test_the_memory_that_a_clip_adds_is_its_own_whatever_came_before(tmp_path: Path) -> None:
    first, last = {}, {}
    for order in (("ddim", "heun"), ("heun", "ddim")):
        done = subprocess.run([sys.executable, "-c", TWO_CLIPS, *order], capture_output=True, text=True, cwd=tmp_path, check=True)
        for found, line in zip((first, last), done.stdout.splitlines(), strict=True):
            name, *numbers, is_first = line.split()
            found[name] = tuple(map(float, numbers))
            assert is_first == "True"  # another scheduler is another shape
    assert last["ddim"][0] > first["ddim"][0] + 0.03  # the peak has SciPy of the clip before in it
    for name in ("ddim", "heun"):
        assert last[name][1] == pytest.approx(first[name][1], abs=0.025)


def test_flops_count_every_call_of_the_network(model: I2VGenXL) -> None:
    calls = []
    for name in SCHEDULERS:
        calls.clear()
        params = clip("64x64 2", scheduler=name, num_inference_steps=7)

        def predict(latents: torch.Tensor, timestep: torch.Tensor, with_negative: bool) -> torch.Tensor:
            calls.append(timestep)
            return torch.stack([latents, latents])

        scheduler = make_scheduler(name, model.scheduler_config)
        denoise(predict, torch.randn(2, 4, 8, 8), scheduler, params, torch.Generator(), Progress())
        one = model.cost(
            params.replace(scheduler="ddim", num_inference_steps=1), checkpoint="", device="cpu", dtype="float32", loaded=model
        )
        many = model.cost(params, checkpoint="", device="cpu", dtype="float32", loaded=model)
        assert many[1].flops == len(calls) * one[1].flops, name


# Kept on disk


def test_what_was_run_once_is_read_from_disk(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = clip("64x128 3", model=str(folder))
    first = plan(params, device="cpu")
    kept = {path.name for path in cache.iterdir()}
    assert kept
    assert not any(name.endswith(".part") for name in kept)

    def never(*_: object) -> None:
        raise AssertionError("it was run again")

    with monkeypatch.context() as patch:
        patch.setattr(i2vgen_cost, "_fake", never)
        cost_cache.forget()
        assert plan(params, device="cpu").stages == first.stages
        assert plan(params.replace(num_inference_steps=9, seed=4), device="cpu").peak_gib == first.peak_gib
    for path in cache.iterdir():  # damaged: it is run again, and fixed
        path.write_text("{}")
    cost_cache.forget()
    assert plan(params, device="cpu").stages == first.stages
    assert sum(path.read_text() != "{}" for path in cache.iterdir()) >= 7  # five parts, and weights


def test_configs_that_make_no_network_are_an_error_in_words(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.json"):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    config = json.loads((folder / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps({**config, "down_block_types": ["Odd"]}))
    with pytest.raises(ModelError, match="no network can be built"):
        plan(clip(model=str(tmp_path)), device="cpu")
    with pytest.raises(UnsupportedParams, match="nearest"):
        plan(clip("100x100 4", model=str(folder)), device="cpu")
