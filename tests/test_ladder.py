"""The memory ladder: equal frames on its tiers, and every way of running out of memory."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import make_checkpoint

from i2v_lab import cost as planner
from i2v_lab import models
from i2v_lab.clip.key import clip_key
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Progress, StopSwitch
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import OutOfMemory, Stop
from i2v_lab.models.fake import FakeModel
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.memory import tiers
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store

pytestmark = pytest.mark.usefixtures("empty_folder")

CPU = Settings(device="cpu")
CUDA_SAYS = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB.")
CPU_SAYS = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
                        "allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)")  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("ladder") / "i2vgen-xl")


@pytest.fixture(scope="session")
def loaded(folder: Path) -> I2VGenXL:
    return I2VGenXL.load(folder, device="cpu")


@pytest.fixture
def model(loaded: I2VGenXL) -> I2VGenXL:
    loaded.use_tier(0)
    return loaded


@pytest.fixture
def params(folder: Path) -> ClipParams:
    return ClipParams(image="sample:coffee", model=str(folder), prompt="a boat", resolution="64x64", num_frames=3,
                      num_inference_steps=2, seed=5)  # fmt: skip


@pytest.fixture
def picture() -> Picture:
    return open_picture("sample:coffee")


def ran(params: ClipParams, model: Any, store: Store, **options: Any) -> RunRecord:
    record = run_clip(params, model, store, settings=CPU, **options)
    assert store.get(record.id) == record
    return record


# --- the tiers


def test_the_tiers_of_a_device() -> None:
    assert [tier.number for tier in tiers.TIERS] == list(range(7))
    assert tiers.tiers_on("cpu") == (0, 1, 2, 5)
    assert tiers.tiers_on("cuda:1") == tuple(range(7))
    assert I2VGenXL.tiers("cpu") == (0, 1, 2, 5)


@pytest.mark.slow
def test_tiers_that_keep_the_pixels_give_equal_frames_up_and_down(model: I2VGenXL, picture: Picture, params: ClipParams) -> None:
    # Twice as many rows as it takes for feed-forward layers to be cut into parts.
    params = params.replace(resolution="64x64", num_frames=64, num_inference_steps=1)
    first = model.generate(picture, params, Progress())
    for number in (2, 5, 1, 0):  # frames of up to 256 pixels are one tile
        model.use_tier(number)
        model.use_tier(number)
        assert model.tier == number
        assert np.array_equal(first, model.generate(picture, params, Progress()))


def test_forward_chunking_cuts_the_rows_and_gives_the_same(model: I2VGenXL) -> None:
    layer = next(module for module in model.unet.modules() if type(module).__name__ == "BasicTransformerBlock").ff
    width = layer.net[0].proj.in_features
    seen: list[int] = []
    hook = layer.net[0].register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    try:
        for rows in (5, tiers.CHUNK_ROWS, 2 * tiers.CHUNK_ROWS - 1, 2 * tiers.CHUNK_ROWS, 3 * tiers.CHUNK_ROWS + 1):
            states = torch.randn(1, rows, width)
            model.use_tier(0)
            whole = layer(states)
            model.use_tier(2)
            seen.clear()
            assert torch.equal(layer(states), whole)
            if rows >= 2 * tiers.CHUNK_ROWS:
                assert sum(seen) == rows
                assert min(seen) >= tiers.CHUNK_ROWS
                assert len(seen) == rows // tiers.CHUNK_ROWS
    finally:
        hook.remove()


def test_the_tiers_take_less_memory_one_after_the_other(params: ClipParams, folder: Path) -> None:
    def peaks(tier: int) -> dict[str, int]:
        large = params.replace(resolution="256x256", num_frames=16)
        found = I2VGenXL.cost(large, checkpoint=str(folder), device="cpu", dtype="float32", tier=tier)
        return {stage.stage: stage.total for stage in found}

    nothing, one_by_one, chunked = peaks(0), peaks(1), peaks(2)
    assert one_by_one["decode"] < nothing["decode"]
    assert chunked["denoise"] < 0.6 * one_by_one["denoise"]


def left_behind(model: I2VGenXL) -> list[str]:
    return [
        f"{name}.{path}"
        for name in tiers.NETWORKS
        for path, module in getattr(model, name).named_modules()
        if {"_hf_hook", "_diffusers_hook", "forward"} & set(module.__dict__)
    ] + list(model.offloaders)


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_the_hooks_that_offload_run_with_a_cpu_in_the_place_of_the_gpu_and_go(
    model: I2VGenXL, picture: Picture, params: ClipParams, number: int
) -> None:
    first = model.generate(picture, params, Progress())
    tiers.put_on(model, number, torch.device("cpu"))
    tiers.offload(model, number, torch.device("cpu"))
    try:
        assert left_behind(model)
        assert np.array_equal(first, model.generate(picture, params, Progress()))
        if number == 6:  # between two layers no weights are on the device
            assert all(parameter.is_meta for parameter in model.unet.parameters())
    finally:
        tiers.put_on(model, 0, torch.device("cpu"))
    assert left_behind(model) == []
    assert not any(parameter.is_meta for parameter in model.unet.parameters())
    assert np.array_equal(first, model.generate(picture, params, Progress()))


def test_weights_on_the_device_by_formula(model: I2VGenXL) -> None:
    everything = sum(p.numel() * p.element_size() for name in tiers.NETWORKS for p in getattr(model, name).parameters())
    for stage in tiers.STAGES:
        on_cuda = [tiers.resident(model, stage, number, "cuda:0") for number in range(7)]
        assert on_cuda[0] == on_cuda[2] >= everything
        assert on_cuda == sorted(on_cuda, reverse=True)
        assert tiers.resident(model, stage, 5, "cpu") == on_cuda[0]
    largest = max(p.numel() * p.element_size() for p in model.unet.parameters())
    assert tiers.resident(model, "denoise", 3, "cuda") > tiers.resident(model, "denoise", 4, "cuda")
    assert tiers.resident(model, "denoise", 6, "cuda") >= largest


def test_a_tier_that_a_device_lacks_is_refused(model: I2VGenXL, params: ClipParams, store: Store) -> None:
    with pytest.raises(ValueError, match="expected a tier of 0, 1, 2, 5 on cpu, got 3"):
        model.use_tier(3)
    record = run_clip(params, model, store, settings=CPU, tier=3)
    assert store.get(record.id) is None  # nothing was begun
    assert record.reason == "tier: expected one of 0, 1, 2, 5 for i2vgen-xl on cpu, got 3 (model offload)"


# --- the clip of a tier that changes pixels is another clip


@pytest.mark.slow
def test_tiled_clips_are_known_as_such(model: I2VGenXL, picture: Picture, params: ClipParams, store: Store) -> None:
    params = params.replace(resolution="64x320", num_inference_steps=1)
    tiled = ran(params, model, store, tier=5)
    assert (tiled.status, tiled.requested_tier, tiled.actual_tier) == ("done", 5, 5)
    assert any("decoded in tiles (tier 5): pixels differ" in note for note in tiled.notes)
    plain = ran(params, model, store)
    assert plain.id != tiled.id  # a clip that was not asked for with tiles has none
    assert (plain.actual_tier, plain.notes) == (0, ())
    assert plain.key == clip_key(params, picture.sha256, model) != tiled.key
    tiled_key = clip_key(params, picture.sha256, model, tiers.pixel_changes(5, params.height, params.width))
    assert tiled.key == tiled_key
    assert plain.frames_sha256 != tiled.frames_sha256
    assert ran(params, model, store, tier=5).id == tiled.id
    assert ran(params, model, store, tier=2).id == plain.id
    small = params.replace(resolution="64x64")  # one tile: the same clip
    assert ran(small, model, store, tier=5).key == clip_key(small, picture.sha256, model)


# --- out of memory


class Full:
    """Raises, as torch does, in the network of a stage while the model is on one of some tiers."""

    def __init__(self, model: I2VGenXL, stage: str, error: BaseException, until: int) -> None:
        self.model, self.error, self.until = model, error, until
        self.tried: list[int] = []
        self.held: list[weakref.ref[torch.Tensor]] = []
        self.alive: list[int] = []
        network = {"encode": model.text_encoder, "denoise": model.unet, "decode": model.vae.decoder}[stage]
        self.hook = network.register_forward_pre_hook(self._fill)

    def _fill(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if self.model.tier < self.until:
            self.alive.append(sum(ref() is not None for ref in self.held))
            self.tried.append(self.model.tier)
            made = torch.zeros(1000)  # as a network's own: the failed call's frames refer to it
            self.held += [weakref.ref(made), *(weakref.ref(tensor) for tensor in given)]
            raise type(self.error)(*self.error.args)


@pytest.mark.parametrize("error", [CPU_SAYS, pytest.param(CUDA_SAYS, marks=pytest.mark.slow)], ids=["cpu", "cuda"])
@pytest.mark.parametrize("stage", ["encode", *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("denoise", "decode"))])
def test_the_ladder_is_climbed_in_order_from_every_stage_and_nothing_is_kept(
    model: I2VGenXL, params: ClipParams, store: Store, stage: str, error: BaseException
) -> None:
    untroubled = ran(params, model, store)
    assert (untroubled.requested_tier, untroubled.actual_tier, untroubled.notes) == (0, 0, ())
    for until in (1, 2, 5, 6):
        full = Full(model, stage, error, until)
        record = ran(params, model, store, force=True)
        full.hook.remove()
        tiers = [number for number in (0, 1, 2, 5) if number < until]
        assert full.tried == tiers
        assert full.alive == [0] * len(tiers)  # when the next try came so far, nothing of those before was left
        gc.collect()
        assert not any(ref() is not None for ref in full.held)
        assert record.requested_tier == 0
        assert record.predicted_peak_gib is not None
        if until == 6:
            assert (record.status, record.actual_tier, record.clip) == ("out_of_memory", 5, "")
            assert "tiers 0, 1, 2, 5 were tried" in record.reason
            assert "make fewer frames or a smaller resolution" in record.reason
            continue
        tier = {1: 1, 2: 2, 5: 5}[until]
        assert (record.status, record.actual_tier) == ("done", tier)
        word = "tier" if len(tiers) == 1 else "tiers"
        assert record.notes == (f"ran out of memory on {word} {', '.join(map(str, tiers))}, made on tier {tier}",)
        assert record.frames_sha256 == untroubled.frames_sha256
        assert record.key == untroubled.key
    after = ran(params.replace(seed=6), model, store)  # the next clip begins at the bottom again
    assert (after.status, after.actual_tier, model.tier) == ("done", 0, 0)


def test_listeners_hear_the_stages_again(model: I2VGenXL, params: ClipParams, store: Store) -> None:
    class Ears(Progress):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def stage(self, name: str, total: int | None = None) -> None:
            self.heard.append(name)

    full, ears = Full(model, "denoise", CPU_SAYS, 1), Ears()
    record = ran(params, model, store, progress=ears)
    full.hook.remove()
    assert ears.heard == ["load", "encode", "denoise", "encode", "denoise", "decode", "write", "measure"]
    assert record.status == "done"


@pytest.mark.parametrize("error", [Stop("enough"), KeyboardInterrupt()])
def test_a_climb_can_be_stopped(model: I2VGenXL, params: ClipParams, store: Store, error: BaseException) -> None:
    class AtTheSecondTry(StopSwitch):
        tries = 0

        def stage(self, name: str, total: int | None = None) -> None:
            self.tries += name == "denoise"
            if self.tries == 2:
                raise error

    full = Full(model, "denoise", CPU_SAYS, 6)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            ran(params, model, store, progress=AtTheSecondTry())
    else:
        ran(params, model, store, progress=AtTheSecondTry())
    full.hook.remove()
    (record,) = store.records()
    assert (record.status, record.requested_tier, record.actual_tier) == ("stopped", 0, 1)
    assert ran(params, model, store).actual_tier == 0


class Weighty(FakeModel):
    """The fake model on a device where its weights do not fit."""

    device = "cuda:0"

    @classmethod
    def tiers(cls, device: str) -> tuple[int, ...]:
        return tiers.tiers_on("cuda")

    def use_tier(self, number: int) -> None:
        self.tier = number


def test_weights_that_do_not_fit_are_loaded_for_a_tier_that_offloads(
    params: ClipParams, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def load(handle: models.Handle, progress: Progress, tier: int) -> Weighty:
        asked.append(tier)
        if tier < 4:
            raise OutOfMemory("it does not fit into the memory of cuda:0")
        return Weighty()

    monkeypatch.setitem(models.FAMILIES, "weighty", "test_ladder:Weighty")
    monkeypatch.setattr(models.Handle, "load", load)
    record = ran(params.replace(model="weighty"), None, store, tier=0)  # there is no such device to plan for
    assert record.reason == ""
    assert asked == [0, 3, 4]  # tiers 1 and 2 load as tier 0 does
    assert (record.status, record.requested_tier, record.actual_tier) == ("done", 0, 4)
    assert "ran out of memory on tiers 0, 3, made on tier 4" in record.notes


def test_a_model_is_loaded_for_a_tier(folder: Path) -> None:
    model = I2VGenXL.load(folder, device="cpu", tier=2)
    assert model.tier == 2
    assert left_behind(model)


# --- the plan before the run


def test_what_fits_on_no_tier_is_reported_before_anything_is_loaded(
    params: ClipParams, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(models.Handle, "load", lambda *given: calls.append("load"))
    monkeypatch.setattr(models.Handle, "loaded", None)
    monkeypatch.setattr(planner.Budget, "free", lambda device, margin=None: planner.Budget(2**20, "free RAM"))
    record = ran(params, None, store)
    assert record.status == "out_of_memory"
    assert "does not fit" in record.reason
    assert "with tier 5 given it is tried all the same" in record.reason
    assert (record.requested_tier, record.actual_tier) == (None, None)
    assert record.predicted_peak_gib is not None
    assert calls == []


def test_a_forced_tier_does_not_ask_whether_it_fits(
    model: I2VGenXL, params: ClipParams, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner.Budget, "free", lambda device, margin=None: planner.Budget(2**20, "free RAM"))
    record = ran(params, model, store, tier=1)
    assert (record.status, record.requested_tier, record.actual_tier) == ("done", 1, 1)


def test_the_plan_chooses_the_first_tier_that_fits(
    model: I2VGenXL, params: ClipParams, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params.replace(resolution="128x128", num_frames=16, num_inference_steps=1)
    monkeypatch.setattr("i2v_lab.cost.forecast._Case._base", lambda case: planner.forecast.PROCESS_BYTES)
    whole, less = (planner.plan(params, model, tier=number).peak_gib for number in (1, 2))
    assert less < whole
    monkeypatch.setattr(
        planner.Budget, "free", lambda device, margin=None: planner.Budget(int((whole + less) / 2 * 2**30), "free RAM")
    )
    record = ran(params, model, store)
    assert (record.status, record.requested_tier, record.actual_tier) == ("done", 2, 2)


def test_a_prediction_that_fails_does_not_cost_the_clip(
    model: I2VGenXL, params: ClipParams, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any, **options: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(I2VGenXL, "cost", broken)
    record = ran(params, model, store)
    assert (record.status, record.actual_tier) == ("done", 0)
    assert record.notes == ("its memory could not be predicted (KeyError), so it began on tier 0",)
    assert any(entry.exc_info for entry in caplog.records)
