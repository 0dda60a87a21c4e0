"""What fits where, time predicted from earlier runs, and where forecasts are shown: sweeps and `i2v-lab plan`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import make_checkpoint
from forecasts import clip, empty_cost_cache

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.cost import Budget, Forecaster, plan
from i2v_lab.cost.timing import fit, span
from i2v_lab.devices.hardware import GIB, machine
from i2v_lab.errors import ModelError, ParamsError
from i2v_lab.models.base import StageCost
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.memory.tiers import TIERS
from i2v_lab.models.stock.families import FAMILIES, Family
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, plan_sweep


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


# What fits


@pytest.mark.slow
def test_the_first_tier_that_fits_is_taken(folder: Path) -> None:
    params = clip("512p 6", model=str(folder))
    numbers = I2VGenXL.tiers("cuda")
    assert numbers == tuple(tier.number for tier in TIERS)
    peaks = {tier: plan(params, device="cuda", budget=Budget(2**40, "all"), tier=tier).peak_gib for tier in numbers}
    assert len(set(peaks.values())) > 3
    for peak in peaks.values():
        found = plan(params, device="cuda", budget=Budget(math.ceil(peak * GIB), "as much"))
        assert found.tier == next(tier for tier in numbers if peaks[tier] <= peak)
        assert found.peak_gib == peaks[found.tier]
        assert found.dtype == "float16"
    none = plan(params, device="cuda", budget=Budget(int(min(peaks.values()) * GIB) - 1, "too little"))
    assert (none.tier, none.fits) == (None, False)
    assert "does not fit" in none.sentence()
    assert "\n" not in none.sentence()


@pytest.mark.parametrize(
    "shape", ["256p 16", *(pytest.param(shape, marks=pytest.mark.slow) for shape in ("256x448 9", "448x320 12"))]
)
@pytest.mark.slow
def test_what_is_named_as_nearest_fits_and_no_larger_one_does(shape: str, folder: Path) -> None:
    params = clip(shape, model=str(folder))
    last = I2VGenXL.tiers("cuda")[-1]
    whole = plan(params, device="cuda", budget=Budget(2**40, "all"), tier=last)
    budget = Budget(int(whole.peak_gib * GIB * 0.6), "some of it")
    found = plan(params, device="cuda", budget=budget)
    smaller, shorter = found.nearest
    assert (smaller.num_frames, shorter.resolution) == (params.num_frames, params.resolution)
    assert plan(smaller, device="cuda", budget=budget).fits
    assert plan(shorter, device="cuda", budget=budget).fits
    assert not plan(shorter.replace(num_frames=shorter.num_frames + 1), device="cuda", budget=budget).fits
    step = 64
    tall = params.height >= params.width
    longest = max(smaller.height, smaller.width) + step
    if longest < max(params.height, params.width):
        other = round(longest * min(params.height, params.width) / max(params.height, params.width) / step) * step
        larger = params.replace(resolution=f"{longest}x{other}" if tall else f"{other}x{longest}")
        assert not plan(larger, device="cuda", budget=budget).fits
    assert plan(params, device="cuda", budget=Budget(1, "nothing")).nearest == ()


def test_a_budget_in_gb_is_exact_and_a_card_is_found_by_a_part_of_its_name() -> None:
    assert Budget.vram(12).bytes == 12_000_000_000 * 97 // 100 - 3 * 2**28
    assert Budget.card("rtx4090") == Budget.card("RTX 4090 24 GB")
    assert Budget.card("4060 ti").name == "RTX 4060 Ti 16 GB"
    assert Budget.card("RTX 4060").name == "RTX 4060 8 GB"
    for wrong in ("A100", "GeForce 256", ""):
        with pytest.raises(ParamsError, match="expected"):
            Budget.card(wrong)
    with pytest.raises(ParamsError, match="1 to 10000"):
        Budget.vram(0)
    with pytest.raises(ParamsError, match="tier: expected one of 0 for closed-form"):
        plan(clip(), tier=3)


@pytest.mark.slow
def test_a_loaded_model_is_in_the_plan_and_in_the_budget_once(model: I2VGenXL, folder: Path) -> None:
    params = clip("128x128 4", model="i2vgen-xl")  # another name: the loaded one's own configs count
    loaded = plan(params, model)
    assert loaded.stages == plan(params.replace(model=str(folder)), device="cpu").stages
    held = loaded.base + loaded.stages[0].weights
    assert loaded.budget.bytes > held  # what this process holds already is part of what it may take
    assert (loaded.device, loaded.dtype, loaded.tier) == ("cpu", "float32", 0)


# Time


def test_rates_are_found_again_from_what_they_made() -> None:
    rng = np.random.default_rng(0)
    columns = np.stack([np.ones(9), rng.uniform(1e12, 1e14, 9)], 1)
    true = np.array([20.0, 1e-12])
    assert fit(columns, columns @ true) == pytest.approx(true, rel=0.02)
    one = fit(columns[:1], np.array([10.0]))  # of one run, one rate
    assert one @ (columns[0] * [1, 2]) == pytest.approx(20)
    assert (fit(columns, rng.uniform(1, 2, 9)) >= 0).all()


def test_six_clips_tell_how_long_twenty_others_take(tmp_path: Path) -> None:
    """On a machine whose stages take a constant and their work, each 10 % more or less."""
    rng, store, name = np.random.default_rng(5), Store(tmp_path), str(machine("cpu")["device_name"])

    def shape() -> ClipParams:
        height, width = (64 * int(side) for side in rng.integers(2, 17, 2))
        frames, steps = rng.choice([4, 8, 12, 16, 24, 32, 48]), rng.choice([4, 10, 20, 30, 50])
        return clip(f"{height}x{width} {frames}", num_inference_steps=int(steps), guidance_scale=float(rng.choice([1, 9])))

    def took(params: ClipParams) -> dict[str, float]:
        work = {stage.stage: float(stage.flops) for stage in plan(params, device="cpu").stages}
        still = {"encode": 0.03, "denoise": 4e-4 * params.num_inference_steps, "decode": 0.02, "write": 0.1}
        work["write"] = params.num_frames * params.height * params.width
        rates = {"encode": 2e-10, "denoise": 6e-10, "decode": 5e-10, "write": 6e-8}
        return {stage: float((still[stage] + rates[stage] * work[stage]) * np.exp(rng.normal(0, 0.1))) for stage in still}

    def keep(params: ClipParams) -> None:
        seconds = took(params)
        store.save(RunRecord(id=new_id(), status="done", params=params, seconds={**seconds, "total": sum(seconds.values())},
                             model_name="closed-form", device="cpu", device_name=name, dtype="float32"))  # fmt: skip

    keep(first := shape())
    twice = plan(first.replace(num_inference_steps=40), device="cpu", store=store).time
    assert twice.high > 2 * twice.expected  # of one run little is known
    for _ in range(5):
        keep(shape())
    errors, inside = [], 0
    for _ in range(20):
        found, true = plan(params := shape(), device="cpu", store=store).time, sum(took(params).values())
        errors.append(abs(found.expected / true - 1))
        inside += found.low <= true <= found.high
    assert np.median(errors) <= 0.15 and inside >= 18
    assert found.high < 2.2 * found.low  # and the range says something
    assert f"; {span(found.low, found.high)}" in plan(params, device="cpu", store=store).sentence()


def test_a_range_in_words() -> None:
    assert (span(1.21, 1.9), span(50, 130), span(100, 130), span(3600, 9000)) == (
        "1.2 to 1.9 s", "50 s to 2 min", "2 min", "60 min to 2 h 30 min")  # fmt: skip


@pytest.mark.slow
def test_time_is_predicted_from_earlier_runs_on_this_device(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path)
    params = clip("128x128 4", model=str(folder))
    unknown = plan(params, device="cpu", store=store)
    assert (unknown.seconds, unknown.runs) == (None, 0)
    assert "TFLOP" in unknown.sentence()
    name = str(machine("cpu")["device_name"])

    def took(params: ClipParams, seconds: float, device_name: str = name, dtype: str = "float32") -> None:
        store.save(RunRecord(id=new_id(), status="done", params=params, seconds={"load": 99.0, "total": 99 + seconds},
                             model_name="i2vgen-xl", device="cpu", device_name=device_name, dtype=dtype))  # fmt: skip

    rate = 2e-9
    for shape in ("128x128 2", "64x64 8", "128x128 8"):
        of_shape = clip(shape, model=str(folder))
        took(of_shape, 1 + rate * plan(of_shape, device="cpu").flops)
    took(params, 1e6, "another machine")
    took(params, 1e6, dtype="bfloat16")
    took(params.replace(model="ali-vilab/i2vgen-xl"), 1e6)  # the same family, and another network
    found = plan(params, device="cpu", store=store)
    assert found.runs == 3
    assert found.seconds == pytest.approx(1 + rate * found.flops, rel=0.35)
    took(params, 7.5)
    assert plan(params.replace(guidance_scale=4, seed=3), device="cpu", store=store).seconds == 7.5  # this very shape
    assert plan(params, device="cuda", budget=Budget.vram(8), store=store).seconds is None  # of a card that is not here


@pytest.mark.slow
def test_on_cuda_what_was_measured_corrects_what_comes(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path)
    params = clip("128x128 4", model=str(folder))
    plain = plan(params, device="cuda:0", budget=Budget(2**40, "all"))
    device_name = str(machine("cuda:0")["device_name"])
    for ratio in (1.2, 1.3, 1.9):
        store.save(RunRecord(id=new_id(), status="done", params=params, model_name="i2vgen-xl", device="cuda:0", dtype="float16",
                             device_name=device_name, predicted_peak_gib=plain.peak_gib * 1.3,
                             peak_vram_allocated_gib=plain.peak_gib * ratio))  # fmt: skip
    for _ in range(4):  # the try that failed had filled the device
        store.save(RunRecord(id=new_id(), status="done", params=params, model_name="i2vgen-xl", device="cuda:0", dtype="float16",
                             device_name=device_name, requested_tier=0, actual_tier=2,
                             peak_vram_allocated_gib=plain.peak_gib * 1.9))  # fmt: skip
    found = plan(clip("64x64 4", model=str(folder)), device="cuda:0", store=store)
    assert found.correction == pytest.approx(1.3)
    assert plan(params, device="cuda:0", store=store, tier=0).peak_gib == pytest.approx(1.3 * plain.peak_gib)
    assert plan(params, device="cpu", store=store).correction == 1


# Where it shows


@pytest.mark.slow
def test_a_sweep_says_before_it_runs_which_cells_cannot_fit(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"model": str(folder), "image": "sample:coffee", "num_frames": 8}
    sweep = Sweep(name="s", base=base, axes={"resolution": ["128x128", "512p"]}, seeds=[0, 1])
    small = plan(clip("128x128 8", model=str(folder)), device="cpu").peak_gib
    budget = Budget(int(GIB * (small + 0.01)), "free RAM")
    monkeypatch.setattr(Budget, "free", lambda device, margin=None: budget)
    planned = plan_sweep(sweep, Store(tmp_path), Settings(device="cpu"))
    assert planned.counts == {"to do": 2, "cannot run": 2}
    assert all(
        "does not fit" in item.reason and "nearest that fits" in item.reason for item in planned.cells if item.state == "cannot run"
    )
    assert planned.cells[0].peak_gib == pytest.approx(small)
    assert "does not fit" in planned._repr_html_()


@pytest.mark.slow
def test_a_sweep_knows_the_clips_that_were_made_in_tiles(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, params = Store(tmp_path), clip("512p 2", model=str(folder))
    tiled, whole = (plan(params, device="cpu", tier=tier).peak_gib for tier in (5, 2))
    sweep = Sweep(name="s", base=params.model_dump(exclude={"seed"}), axes={}, seeds=[0])
    monkeypatch.setattr(Budget, "free", lambda device, margin=None: Budget(int(GIB * (tiled + whole) / 2), "free RAM"))
    made = run_clip(params, None, store, settings=Settings(device="cpu"))
    assert (made.status, made.actual_tier) == ("done", 5), made.reason
    (cell,) = plan_sweep(sweep, store, Settings(device="cpu")).cells
    assert (cell.state, cell.run, cell.key) == ("done", made.id, made.key)


def test_the_command_answers_for_cards_that_are_not_here(inside, folder: Path, tmp_path: Path) -> None:
    done = inside(
        "plan", "--model", folder, "--resolution", "128x128", "--num-frames", 4, "--vram", "1.5,12", "--card", "H100", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [item["budget"] for item in answer["budgets"]] == ["1.5 GB of VRAM", "12 GB of VRAM", "H100 80 GB"]
    assert (answer["device"], answer["dtype"]) == ("cuda", "float16")
    assert [item["tier"] for item in answer["budgets"]] == [0, 0, 0]
    sizes = inside("plan", "--model", folder, "--resolution", "128x128", "--num-frames", 4, "--card", "RTX 3060", "--json")
    assert [item["budget"] for item in json.loads(sizes.stdout)["budgets"]] == ["RTX 3060 8 GB", "RTX 3060 12 GB"]
    shown = inside("plan", "--resolution", "256p")
    assert shown.returncode == 0, shown.stderr
    assert "free RAM" in shown.stdout
    assert not (tmp_path / "results").exists()  # a plan writes nothing here
    (tmp_path / "sweep.yaml").write_text(
        "name: s\nbase: {image: sample:coffee}\naxes: {resolution: [256p, 512p]}\nseeds: [0, 1, 2]\n", "utf-8"
    )
    listed = [json.loads(line) for line in inside("plan", "sweep.yaml", "--json").stdout.splitlines()]
    assert [item["cells"] for item in listed] == ["cells 1, 2, 3", "cells 4, 5, 6"]
    for words in (
        ["--vram", "much"],
        ["--card", "RTX"],
        ["sweep.yaml", "--preset", "quick"],
        ["--resolution", "256p", "--tier", "3"],
    ):
        wrong = inside("plan", *words)
        assert wrong.returncode == 2
        assert "expected" in wrong.stderr


def test_every_model_and_preset_is_listed_whether_or_not_it_fits(inside, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = tuple(StageCost(stage, 9 * GIB, GIB, 10**15) for stage in ("encode", "denoise", "decode"))
    tiered = {0: 9, 3: 8, 4: 2, 5: 1}

    def cost(family: Family, params: ClipParams, *, tier: int, **_: object) -> tuple[StageCost, ...]:
        if family.name == "svd":
            raise ModelError("svd: odd")
        return tuple(dataclasses.replace(stage, weights=tiered[tier] * GIB) for stage in stages)

    monkeypatch.setattr("i2v_lab.models.stock.cost.cost", cost)
    monkeypatch.setattr("i2v_lab.models.registry.LISTED", ("closed-form", *FAMILIES))
    shown = inside("plan", "--vram", "8", env={"COLUMNS": "80"}).stdout
    assert all(len(line) <= 80 for line in shown.splitlines() if "published" not in line)
    for name, family in FAMILIES.items():
        part = shown[shown.index(f"\n{name}") :].splitlines()[2 : 2 + len(family.presets)]
        assert [line.split()[0] for line in part] == list(family.presets)
        assert all("svd: odd" in line if name == "svd" else "tier 4" in line for line in part), part
    assert "704x1280·121" in shown  # the native size, of no picture
    listed = [json.loads(line) for line in inside("plan", "--vram", "8,24", "--json").stdout.splitlines()]
    assert len(listed) == 4 + sum(len(family.presets) for family in FAMILIES.values())
    one = next(item for item in listed if item.get("model") == "wan2.2-ti2v-5b" and item["preset"] == "standard")
    assert ([fit["tier"] for fit in one["budgets"]], one["published"]) == ([4, 0], "24 GB with offloading")


def test_accuracy_shows_what_was_predicted_beside_what_was_measured(inside, tmp_path: Path) -> None:
    assert "no run here" in inside("plan", "--accuracy").stderr
    store = Store(tmp_path / "results")
    for predicted, measured in ((1.0, 1.25), (1.0, 1.0), (None, 1.0)):
        store.save(RunRecord(id=new_id(), status="done", params=clip(), model_name="closed-form", device="cpu", device_name="a CPU",
                             predicted_peak_gib=predicted, peak_ram_gib=measured))  # fmt: skip
    shown = inside("plan", "--accuracy").stdout
    assert "closed-form on a CPU, RAM of the process: 2 runs, off by 10.0% (median), -20.0% (worst)" in shown
    answer = json.loads(inside("plan", "--accuracy", "--json").stdout)
    assert [run["measured_gib"] for run in answer["runs"]] == [1.25, 1.0]


def test_a_closed_form_plan_runs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    forecaster = Forecaster()
    assert forecaster.plan(clip("512p 16")).fits
