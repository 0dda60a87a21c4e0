"""What stock families take, predicted, against tiny checkpoints that run; and how the prediction is made, kept and refused."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forecasts import empty_cost_cache
from tiny_families import PIPELINES, WHOLE, make_checkpoint, small, small_sizes
from torch._subclasses import fake_tensor

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.devices.hardware import GIB
from i2v_lab.errors import ModelError
from i2v_lab.models.base import StageCost
from i2v_lab.models.memory import cost_cache
from i2v_lab.models.memory.tiers import bytes_of
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.sampling import calls_of, numpy_quiet
from i2v_lab.models.stock import cost as stock_cost
from i2v_lab.models.stock import cost_fake, cost_spec
from i2v_lab.models.stock.families import FAMILIES
from i2v_lab.models.stock.model import PipelineModel, model_class
from i2v_lab.models.stock.watch import networks


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the cache of costs."""
    with empty_cost_cache(tmp_path_factory.mktemp("cache")) as place:
        yield place


@pytest.fixture(scope="module", autouse=True)
def _small_sizes() -> Iterator[None]:
    with small_sizes():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """{family: its tiny checkpoint}, made when asked for."""
    root = tmp_path_factory.mktemp("checkpoints")

    class Folders(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = make_checkpoint(name, root / name)
            return self[name]

    return Folders()


@pytest.fixture(scope="module")
def picture() -> Picture:
    return open_picture("sample:coffee")


class Stages(Progress):
    """Cuts what a tracker sees where a stage begins: {stage: [peak, FLOPs]}, of all its times together."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.now, self.seen = tracker, "", 0
        self.found: dict[str, list[int]] = {}

    def stage(self, name: str, total: int | None = None) -> None:
        if self.now:
            peak, flops = self.found.get(self.now, (0, 0))
            self.found[self.now] = [max(peak, self.tracker.peak), flops + self.tracker.flops - self.seen]
        self.now, self.seen, self.tracker.peak = name, self.tracker.flops, self.tracker.held


def measured(model: PipelineModel, picture: Picture, params: ClipParams) -> dict[str, list[int]]:
    tracker = Tracker(tensor for part in networks(model.pipe).values() for tensor in (*part.parameters(), *part.buffers()))
    stages = Stages(tracker)
    with tracker:
        model.generate(picture, params, stages)
    stages.stage("end")
    return stages.found


def predicted(name: str, folder: Path, params: ClipParams, **options: Any) -> dict[str, StageCost]:
    asked = {"checkpoint": str(folder), "device": "cpu", "dtype": "float32", **options}
    return {stage.stage: stage for stage in model_class(FAMILIES[name]).cost(params, **asked)}


SHAPES: list[dict[str, Any]] = [{}, {"guidance_scale": 1.0}, {"num_inference_steps": 5}, {"size": 1}, {"frames": 1}]
FAST = [("wan2.2-ti2v-5b", 0)]
ALL = [(name, number) for name in PIPELINES for number in range(len(SHAPES))]


@pytest.mark.parametrize(
    ("name", "number"), [case if case in FAST else pytest.param(*case, marks=pytest.mark.slow) for case in ALL]
)
def test_each_stage_takes_what_was_predicted(name: str, number: int, folders: Any, picture: Picture) -> None:
    fields = dict(SHAPES[number])
    family, own = FAMILIES[name], small(name)
    if fields.pop("size", 0):
        own |= {"resolution": "80x64" if len(family.only_sizes) > 1 else "128x96" if family.size_multiple <= 32 else "128x64"}
    if fields.pop("frames", 0):
        own |= {"num_frames": own["num_frames"] + family.frame_rule.step}
    if family.name == "cogvideox-5b-i2v":
        own.pop("resolution", None)
    if family.name == "framepack":
        own["prompt"] = stock_cost.PROMPT  # it cuts prompts to their length
    if "scheduler" not in fields and number:
        fields["scheduler"] = list(family.scheduler_classes)[number % len(family.scheduler_classes)]
    params = models.resolve(ClipParams(model=str(folders[name]), image="sample:coffee", **{**own, **fields}))
    model = model_class(family).load(folders[name])
    found = measured(model, picture, params)
    for stage, cost in predicted(name, folders[name], params).items():
        peak, flops = found[stage]
        print(
            f"{name} {number} {stage}: {cost.activations} of {peak} ({cost.activations / peak - 1:+.2%}), {cost.flops} of {flops}"
        )
        assert cost.flops == flops, stage
        assert cost.activations == pytest.approx(peak, rel=0.05), stage
        assert cost.weights == sum(map(bytes_of, networks(model.pipe).values()))


def test_every_call_of_the_network_counts_and_guidance_doubles_them(folders: Any) -> None:
    name = "wan2.2-ti2v-5b"
    params = models.resolve(ClipParams(model=str(folders[name]), image="sample:coffee", **small(name)))
    one = predicted(name, folders[name], params.replace(num_inference_steps=1))["denoise"].flops
    for steps in (1, 4, 7):
        assert predicted(name, folders[name], params.replace(num_inference_steps=steps))["denoise"].flops == steps * one
    heun = predicted(name, folders[name], params.replace(num_inference_steps=7, scheduler="heun"))["denoise"].flops
    assert heun == 13 * one
    assert predicted(name, folders[name], params.replace(num_inference_steps=1, guidance_scale=1))["denoise"].flops * 2 == one


def test_schedulers_call_the_network_as_often_as_is_counted() -> None:
    import diffusers

    for family in FAMILIES.values():
        for name, kind in family.scheduler_classes.items():
            flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} if name in ("unipc", "dpm++-2m", "deis") else {}
            with numpy_quiet():
                scheduler = getattr(diffusers, kind)(**flow)
                scheduler.set_timesteps(7)
            assert len(scheduler.timesteps) == calls_of(ClipParams(image="x", scheduler=name, num_inference_steps=7)), (
                family.name,
                name,
            )


def test_what_was_run_once_is_read_from_disk_and_offloading_leaves_less_on_the_device(
    folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "svd"
    params = models.resolve(ClipParams(model=str(folders[name]), image="sample:coffee", **small(name)))
    first = predicted(name, folders[name], params)
    monkeypatch.setattr(stock_cost, "ask", None)
    cost_cache.forget()
    assert predicted(name, folders[name], params) == first
    on = [predicted(name, folders[name], params, device="cuda", tier=tier)["denoise"].weights for tier in (0, 3, 4)]
    assert on[0] == first["denoise"].weights
    assert on[0] > on[1] > on[2] > 0


def test_configs_that_make_no_pipeline_are_one_line(folders: Any, tmp_path: Path) -> None:
    name = "svd"
    folder = shutil.copytree(folders[name], tmp_path / name)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "down_block_types": ["Odd"]}))
    params = models.resolve(ClipParams(model=str(folder), image="sample:coffee", **small(name)))
    with pytest.raises(ModelError, match="cannot be predicted") as found:
        predicted(name, folder, params)
    assert "\n" not in str(found.value)


def test_the_private_names_of_torch_that_are_patched_are_there() -> None:
    assert isinstance(fake_tensor.CONSTANT_NUMEL_LIMIT, int)
    assert "make_constant" in inspect.signature(fake_tensor.FakeTensorConverter.from_real_tensor).parameters
    assert hasattr(torch, "_check_tensor_all_with")
    with cost_fake.pretend():
        values = torch.tensor([3, 0, 5])
        assert int(values.sum().item()) == 8
        assert values.nonzero().shape == (2, 1)
        assert torch.zeros(4, 5)[torch.tensor([True, False, True, False])].shape == (2, 5)
        assert values.numpy().tolist() == [3, 0, 5]
        wide = torch.empty(1 << 40, dtype=torch.bfloat16)  # no memory is behind it
        assert (wide + 1).shape == wide.shape
        assert cost_fake.real(wide) is wide


@pytest.mark.parametrize("name", sorted(path.stem for path in cost_spec.CONFIGS.glob("*.json")))
def test_published_configs_have_their_source_and_all_networks(name: str) -> None:
    found = cost_spec.published(name)
    assert found["source"]
    assert {"vae", "scheduler", *FAMILIES[name].denoisers} <= set(found["parts"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "frames", "expected"),
    [  # of the whole pipeline run with all its tensors, without replays: weights and activations of a stage in GiB, TFLOP of a step
        ("wan2.2-ti2v-5b", "704x1280", 121, (22.5, 19.4, 1041)),
        ("cogvideox-5b-i2v", "480x720", 49, (19.75, 14.8, 664)),
        ("svd-xt", "576x1024", 25, (4.2, 9.1, 160)),
    ],
)
def test_the_published_sizes(
    name: str, size: str, frames: int, expected: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = WHOLE[name]
    monkeypatch.setitem(FAMILIES, name, family)
    params = models.resolve(
        ClipParams(model=name, image="sample:coffee", resolution=size, num_frames=frames, num_inference_steps=1)
    )
    found = predicted(name, Path(), params, checkpoint="", device="cuda", dtype=family.cuda_dtype)
    weights, decode, step = expected
    assert found["decode"].weights / GIB == pytest.approx(weights, rel=0.01)
    assert found["decode"].activations / GIB == pytest.approx(decode, rel=0.02)
    assert found["denoise"].flops / 1e12 == pytest.approx(step, rel=0.01)
