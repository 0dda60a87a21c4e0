"""verify: every check in its order within a time, and what follows from what was measured."""

from __future__ import annotations

import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress
from i2v_lab.cost import Forecaster, measured, native
from i2v_lab.cost.measured import measured_store
from i2v_lab.devices.gpus import default_device
from i2v_lab.devices.hardware import machine, versions
from i2v_lab.errors import I2VLabError
from i2v_lab.models.device import choose_device
from i2v_lab.models.stock.families import FAMILIES as STOCK
from i2v_lab.store import Store
from i2v_lab.verify import checks, levers, memory, turns
from i2v_lab.verify.bench import FIRST, OVER, Bench, Subject, first_clip
from i2v_lab.verify.result import NotHere, Report, Result

ROOT = Path(__file__).parents[2]
PRESETS = ("quick", "standard", "high", "extreme")
PRESET_STEPS = 2  # memory does not grow with steps
Check = tuple[str, Callable[[], Result]]


def verify(
    model: str = "",
    *,
    device: str = "auto",
    minutes: float = 10,
    directory: Path | None = None,
    full: bool | None = None,
    progress: Progress | None = None,
    began: Callable[[str], None] = lambda name: None,
    ended: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Check this workbench on a device: the most telling first, until the time is over. What it did not reach is listed as not run.

    Real weights are used where they are here; otherwise networks of random weights are made, on a GPU of the real size, on a CPU small ones.

    Args:
        model: as in ClipParams: this one alone; "": several.
        device: auto, cpu, cuda, cuda:N, xpu or mps. minutes: that it may take.
        directory: the output folder in which forecasts find what was measured; None: it is not kept.
        full: whether networks are of the real size; None: on a GPU.
        progress: hears the stages of the clips. began, ended: called before and after each check.

    Raises:
        ModelError: there is no such model.
    """
    start = time.monotonic()
    place = default_device() if device == "auto" else str(choose_device(device))
    with tempfile.TemporaryDirectory(prefix="i2v-lab-verify-") as folder:
        bench = Bench(place, place != "cpu" if full is None else full, Path(folder), start + 60 * minutes, progress or Progress())
        results = []
        try:
            for name, check in plan_of(bench, model):
                began(name)
                results.append(_done(bench, name, check))
                ended(results[-1])
        finally:
            bench.drop()
    if directory is not None:
        _keep(bench, directory, results)
    facts = next((dict(result.figures) for result in results if result.name == "device"), {"device": place})
    predicted = predictions(bench, directory)
    return Report(facts, versions(), unpinned(), minutes, time.monotonic() - start, results, predicted)


def _done(bench: Bench, name: str, check: Callable[[], Result]) -> Result:
    if bench.over:
        return Result(name, "not run", OVER)
    try:
        return check()
    except NotHere as why:
        return Result(name, "not run", str(why))
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide what the others find
        return Result(name, "failed", checks.only_known(error))


def plan_of(bench: Bench, model: str = "") -> Iterator[Check]:
    """(name, check), in the order of the most telling."""
    names = [model] if model else [name for name in FIRST if bench.can(name)]
    subjects = [bench.add(name) for name in names]
    main = subjects[0]
    yield "device", partial(checks.device, bench)
    for subject in subjects:
        yield from _clips(bench, subject)
    if not model:
        yield "clip closed-form", partial(checks.clip, bench, bench.add("closed-form"), "clip closed-form")
    yield f"same seed {main.name}", partial(checks.repeat, bench, main)
    yield "against the CPU", partial(checks.against_cpu, bench)
    yield from _memory(bench, main)
    yield from _levers(bench, subjects)
    yield "two at once", partial(turns.turns, bench, main)
    if not model:
        for name in STOCK:
            if name not in FIRST and bench.can(name):
                yield from _clips(bench, bench.add(name))


def _clips(bench: Bench, subject: Subject) -> Iterator[Check]:
    """One clip of a family; of I2VGen-XL of the real size, its four presets."""
    if bench.full and subject.name == "i2vgen-xl":
        for preset in PRESETS:
            name, fields = f"clip {subject.name} {preset}", {**subject.family.presets[preset], "num_inference_steps": PRESET_STEPS}
            yield name, partial(checks.clip, bench, subject, name, **fields)
    else:
        yield f"clip {subject.name}", partial(checks.clip, bench, subject, f"clip {subject.name}")


def _memory(bench: Bench, main: Subject) -> Iterator[Check]:
    _, *others = main.family.tiers(bench.device)
    plain = first_clip(bench, main, track=True)
    for tier in others:
        yield f"tier {tier} {main.name}", partial(memory.tiers, bench, main, tier, plain)
    if 4 in others or bench.device == "cpu":
        yield f"tier 4 {main.name} with streams", partial(memory.tiers, bench, main, 4, plain, streams=True)
    yield f"memory {main.name}", partial(memory.ladder, bench, main)
    yield f"out of memory {main.name}", partial(memory.out_of_memory, bench, main)
    yield f"clip after clip {main.name}", partial(memory.left_behind, bench, main)


def _levers(bench: Bench, subjects: list[Subject]) -> Iterator[Check]:
    for subject in subjects:
        plain = first_clip(bench, subject, num_inference_steps=levers.STEPS)
        for field, value in levers.choices(subject.family):
            yield f"{field}={value} {subject.name}", partial(levers.lever, bench, subject, field, value, plain)


def _keep(bench: Bench, directory: Path, results: list[Result]) -> None:
    """Keep the runs that forecasts may learn from: those of networks of the real size."""
    records = [clip.record for subject, clip in bench.made if bench.full or subject.weights == "none"]
    margins = [result.figures["margin_gib"] for result in results if "margin_gib" in result.figures and result.status == "passed"]
    name = str(machine(bench.device)["device_name"])
    measured.keep(directory, records, {name: max(margins)} if margins and bench.full else {})


def predictions(bench: Bench, directory: Path | None) -> list[dict[str, Any]]:
    """The presets of the families that were tried, predicted for this device by what was measured."""
    store = Store(directory) if directory is not None and measured_store(directory) else None
    forecaster, found = Forecaster(device=bench.device, store=store), []
    for subject in bench.subjects:
        if not (bench.full or subject.weights == "none") or not any(other is subject for other, _ in bench.made):
            continue
        for preset, fields in subject.family.presets.items():
            try:
                params = native(ClipParams(image="sample:coffee", model=subject.asked, **fields))
                plan = forecaster.plan(params, advise=False)
            except I2VLabError:
                continue
            found.append({
                "model": subject.name, "preset": preset, "resolution": plan.params.resolution, "num_frames": plan.params.num_frames,
                "steps": plan.params.num_inference_steps, "tier": plan.tier, "peak_gib": plan.peak_gib, "free_gib": plan.free_gib,
                "seconds": plan.seconds, "seconds_range": list(plan.time[1:]) if plan.time else None,
                "correction": plan.correction, "corrected_by_runs": plan.corrected, "timed_by_runs": plan.runs,
            })  # fmt: skip
    return found


def unpinned() -> dict[str, str]:
    """{package: "installed, pinned"} of torch and what else decides a clip, where the version is not the pinned one."""
    place = next(
        (path for path in (ROOT / "constraints.txt", Path(__file__).parents[1] / "constraints.txt") if path.is_file()), None
    )
    if place is None:
        return {}
    pins = dict(line.split("==") for line in place.read_text("utf-8").splitlines() if "==" in line and not line.startswith("#"))
    found: dict[str, str] = {}
    for package in ("torch", "diffusers", "transformers", "accelerate"):
        here = importlib.metadata.version(package)
        if package in pins and here.partition("+")[0] != pins[package]:
            found[package] = f"{here} (pinned: {pins[package]})"
    return found
