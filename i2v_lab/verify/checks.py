"""Checks of what the device is, of one clip a family, and of whether a seed makes the same clip again."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from i2v_lab.clip import ffmpeg
from i2v_lab.clip.record import RunRecord
from i2v_lab.cost import Budget, Forecaster
from i2v_lab.devices.gpus import gpu, runtime
from i2v_lab.devices.hardware import GIB, cpu_capability, machine
from i2v_lab.errors import I2VLabError
from i2v_lab.models.memory.tiers import TIERS
from i2v_lab.verify.bench import Bench, Clip, Subject, apart
from i2v_lab.verify.networks import random_model
from i2v_lab.verify.result import NotHere, Result
from i2v_lab.verify.turns import Child

UNLIMITED = Budget(2**62, "no limit")
DARK, FLAT = 8, 2.0  # grey levels: a clip whose brightest pixel is darker is black; one that varies less is of one colour
FAR = 2.0  # mean grey levels between a CPU and a GPU in float32, from which on something is wrong
CPU_FAMILY = "i2vgen-xl"


def device_facts(device: str) -> dict[str, Any]:
    """What a device is, in figures and words."""
    found, known = machine(device), gpu(device)
    facts: dict[str, Any] = {
        "device": device, "name": found["device_name"], "runtime": runtime(device), "memory_gib": found["vram_gib"] or found["ram_gib"],
        "ram_gib": found["ram_gib"], "threads": torch.get_num_threads(), "cpu_capability": cpu_capability(), "formats": formats(device),
        "encoders": [name for name, works in ffmpeg.encoders().items() if works],
    }  # fmt: skip
    if known and known.device.startswith("cuda"):
        about = torch.cuda.get_device_properties(known.device)
        facts |= {"capability": f"{about.major}.{about.minor}", "driver": _driver(), "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
                  "processors": about.multi_processor_count, "gpus": torch.cuda.device_count()}  # fmt: skip
    return facts


def formats(device: str) -> dict[str, str]:
    """{number format: real, emulated or missing} of a device."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        half = torch.cuda.is_bf16_supported(including_emulation=False)
        eight = bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 9)
        return {"float16": "real", "bfloat16": "real" if half else "emulated", "float8": "real" if eight else "emulated"}
    if kind == "xpu":
        return {"float16": "real", "bfloat16": "real" if torch.xpu.is_bf16_supported(including_emulation=False) else "emulated"}
    if kind == "mps":
        return {"float16": "real", "bfloat16": "real" if torch.backends.mps.is_macos_or_newer(14, 0) else "missing"}
    real = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return {"float16": "emulated", "bfloat16": "real" if real else "emulated"}


def _driver() -> str:
    """The version of NVIDIA's driver; "" where it is not known."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return ""


def device(bench: Bench) -> Result:
    """1. What the device is."""
    facts = device_facts(bench.device)
    words = ", ".join(f"{name} {how}" for name, how in facts["formats"].items())
    driver = f", driver {facts['driver']}" if facts.get("driver") else ""
    line = f"{facts['name']}, {facts['memory_gib']:.1f} GiB, {facts['runtime']}{driver}; {words}; encoders {', '.join(facts['encoders'])}"
    return Result("device", "passed", line, facts)


def clip(bench: Bench, subject: Subject, name: str, **fields: Any) -> Result:
    """2. One clip of a family: finite, not black, its seconds and its FLOPs a second."""
    params = subject.params(**fields)
    plan = Forecaster(device=bench.device).plan(params, advise=False, timed=False) if bench.full else None
    if plan is not None and plan.tier is None:
        raise NotHere(f"it does not fit here: {plan.peak_gib:.1f} GiB predicted, {plan.free_gib:.1f} GiB free")
    tier = plan.tier if plan else subject.family.tiers(bench.device)[0]
    _room_for_weights(subject, plan, tier or 0)
    made = bench.clip(subject, tier=tier, **fields)
    frames = made.whole()
    figures = taken(bench, subject, made)
    bright, spread = int(frames.max()), float(frames.std())
    figures |= {"brightest_levels": bright, "spread_levels": spread, "weights": subject.weights}
    if bright < DARK or spread < FLAT:
        what = "black" if bright < DARK else "of one colour"
        return Result(name, "failed", f"its frames are {what} in {made.record.dtype}: the brightest is {bright} of 255", figures)
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in made.seconds.items())
    speed = f"; {figures['denoise_tflops']:.3g} TFLOP/s" if "denoise_tflops" in figures else ""
    where = f" on tier {tier} ({TIERS[tier].name})" if tier else ""
    size = f"{params.resolution}, {params.num_frames} frames, {made.record.dtype}"
    return Result(name, "passed", f"{size}{where}: finite, not black; seconds: {stages}{speed}", figures)


def _room_for_weights(subject: Subject, plan: Any, tier: int) -> None:
    """NotHere, where the weights of a tier that offloads do not fit into the machine's memory."""
    if plan is None or tier < 3:
        return
    weights = (
        Forecaster(device=plan.device, budget=UNLIMITED).plan(plan.params, tier=0, advise=False, timed=False).stages[0].weights
    )
    if weights > (free := psutil.virtual_memory().available):
        raise NotHere(
            f"its weights take {weights / GIB:.0f} GiB of the machine's memory on tier {tier}, of {free / GIB:.0f} GiB free"
        )


def taken(bench: Bench, subject: Subject, made: Clip) -> dict[str, Any]:
    """The figures of a clip: what it was, what it took, and what was predicted."""
    record = made.record
    assert record.params  # noqa: S101 - it was made
    figures: dict[str, Any] = {
        "resolution": record.params.resolution, "num_frames": record.params.num_frames, "steps": record.params.num_inference_steps,
        "dtype": record.dtype, "tier": record.actual_tier, **{f"{stage}_s": value for stage, value in made.seconds.items()},
    }  # fmt: skip
    for field in ("allocated", "reserved", "driver"):
        if (size := getattr(made, field)) is not None:
            figures[f"{field}_gib"] = size / GIB
    stages = predicted(bench, subject, record)
    figures["predicted_gib"] = max(stage.total for stage in stages) / GIB
    flops = {stage.stage: stage.flops for stage in stages}
    if flops.get("denoise") and (seconds := made.seconds.get("denoise")):
        figures["denoise_tflops"] = flops["denoise"] / seconds / 1e12
    return figures


def predicted(bench: Bench, subject: Subject, record: RunRecord) -> Any:
    """What each stage of a clip takes, as it was predicted, without any correction."""
    assert record.params  # noqa: S101
    model = None if subject.weights == "none" else subject.model()
    forecaster = Forecaster(device=bench.device, budget=UNLIMITED)
    return forecaster.plan(record.params, model, dtype=record.dtype, tier=record.actual_tier, advise=False, timed=False).stages


def repeat(bench: Bench, subject: Subject) -> Result:
    """3. The same seed in another process."""
    tier = subject.family.tiers(bench.device)[0]
    here = bench.clip(subject, tier=tier).whole()
    if bench.device != "cpu":
        bench.drop()  # the other process needs the room
    with Child(bench, subject, tier) as child:
        there = child.result()
    figures = apart(here, there)
    if figures["equal"]:
        return Result(f"same seed {subject.name}", "passed", "two processes make equal frames", figures)
    line = (
        f"two processes make frames that differ in {figures['share']:.1%} of the values, by {figures['max_levels']} levels at most"
    )
    return Result(f"same seed {subject.name}", "failed", line, figures)


def against_cpu(bench: Bench) -> Result:
    """3. A small network in float32 on this device and on the CPU."""
    if bench.device == "cpu":
        raise NotHere("this is the CPU")
    clips = []
    for place in ("cpu", bench.device):
        small = Bench(place, False, bench.folder, bench.until)
        subject = small.add(CPU_FAMILY)
        subject._model = random_model(CPU_FAMILY, place, full=False, dtype="float32")
        clips.append(small.clip(subject, tier=0).whole())
    figures = apart(*clips)
    line = f"a small network in float32 is {figures['mean_levels']:.2g} levels from the CPU's on the mean, {figures['max_levels']} at most"
    return Result("against the CPU", "passed" if figures["mean_levels"] < FAR else "failed", line, figures)


def only_known(error: Exception) -> str:
    """What went wrong in a check, in a line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, I2VLabError) else f"unexpected {type(error).__name__}: {text}"
