"""What stock families take, predicted, against tiny checkpoints that run; and how the prediction is made, kept and refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forecasts import empty_cost_cache
from tiny_families import PIPELINES, make_checkpoint, small

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.models.base import StageCost
from i2v_lab.models.memory.tiers import bytes_of
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.stock.families import FAMILIES
from i2v_lab.models.stock.model import PipelineModel, model_class
from i2v_lab.models.stock.watch import networks


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the cache of costs."""
    with empty_cost_cache(tmp_path_factory.mktemp("cache")) as place:
        yield place


@pytest.fixture(scope="module", autouse=True)
def _small_cogvideox() -> Iterator[None]:
    """CogVideoX 1.0 in a size that its tiny network runs in seconds."""
    whole = FAMILIES["cogvideox-5b-i2v"]
    FAMILIES["cogvideox-5b-i2v"] = dataclasses.replace(whole, native_size=(64, 96), sizes={"480p": (64, 96)})
    yield
    FAMILIES["cogvideox-5b-i2v"] = whole


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
    """Cuts what a tracker sees where a stage begins: {stage: [peak, FLOPs]}."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.now, self.seen = tracker, "", 0
        self.found: dict[str, list[int]] = {}

    def stage(self, name: str, total: int | None = None) -> None:
        if self.now:
            self.found[self.now] = [self.tracker.peak, self.tracker.flops - self.seen]
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
FAST = [("wan2.2-ti2v-5b", 0), ("svd", 0)]
ALL = [(name, number) for name in PIPELINES for number in range(len(SHAPES))]


@pytest.mark.parametrize(
    ("name", "number"), [case if case in FAST else pytest.param(*case, marks=pytest.mark.slow) for case in ALL]
)
def test_each_stage_takes_what_was_predicted(name: str, number: int, folders: Any, picture: Picture) -> None:
    fields = dict(SHAPES[number])
    family, own = FAMILIES[name], small(name)
    if fields.pop("size", 0):
        own |= {"resolution": "128x96" if family.size_multiple <= 32 else "128x64"}
    if fields.pop("frames", 0):
        own |= {"num_frames": own["num_frames"] + family.frame_rule.step}
    if family.only_sizes:
        own.pop("resolution", None)
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
