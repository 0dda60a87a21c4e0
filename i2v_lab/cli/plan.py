"""The command `i2v-lab plan`: what clips will take, on this machine or on another card, before any is made."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from i2v_lab.cli.options import AsJson, Preset, Words, clip_params, warn_of_device, with_settings, with_words
from i2v_lab.cli.terminal import remark, runs_in_words, show_table, tell, tell_json, tell_lines, working
from i2v_lab.errors import ParamsError

if TYPE_CHECKING:
    from i2v_lab.clip.params import ClipParams
    from i2v_lab.clip.record import RunRecord
    from i2v_lab.cost import Budget, Forecast
    from i2v_lab.settings import Settings
    from i2v_lab.store import Store

TABLE_GB = (8, 12, 16, 24, 80)  # the cards of the table of models
ANY_PICTURE = "sample:coffee"
SHOWN_RUNS = 20  # of --accuracy


@with_settings("output_dir", "device", "parallel")
def plan(
    settings: Settings,
    *,
    first: Annotated[
        str | None, typer.Argument(metavar="[PICTURE|FILE]", help="the input picture, as --image; or a sweep file (.yaml)")
    ] = None,
    words: Words = None,
    preset: Preset = None,
    vram: Annotated[list[str] | None, typer.Option(help="for a card with so many GB (10^9 bytes), here or not; 8,12,24")] = None,
    card: Annotated[list[str] | None, typer.Option(help="for a known card, such as 'RTX 4090'; may be repeated")] = None,
    tier: Annotated[int | None, typer.Option(help="on this tier of the memory ladder alone, 0 to 6")] = None,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="predicted and measured memory of earlier runs")] = False,
    as_json: AsJson = False,
    **fields: Any,
) -> None:
    """Predict the memory and time of a clip, of a sweep's cells, or of all models.

    Nothing is loaded and nothing is run. A new shape takes some seconds, of a large model half a minute; the second time milliseconds.
    With neither a clip's options nor a sweep file it shows all models and presets. Without a picture, a resolution that follows
    the picture is the model's native size.
    """
    from i2v_lab.store import Store

    store = Store(settings.output.directory) if settings.output.directory.is_dir() else None  # a plan makes no folders
    file = Path(first) if first and Path(first).suffix.lower() in (".yaml", ".yml") else None
    given = with_words(fields, None if file else first, words)
    if accuracy:
        _show_accuracy(store, as_json)
        return
    budgets = _budgets(vram or [], card or [])
    if file is not None:
        if given or preset:
            raise ParamsError(f"expected a sweep file or a clip's options, got both: {file} and {', '.join(given) or '--preset'}")
        clips = _of_sweep(file, settings)
    elif given or preset:
        clips = [("", _clip(given, preset, settings))]
    else:
        _show_models(budgets or _budgets([str(size) for size in TABLE_GB], []), settings, store, tier, as_json)
        return
    if not budgets:
        warn_of_device(
            settings.device,
            (params.model for _, params in clips),
            "; --vram 12 or --card 'RTX 4090' plans for one that is not here",
        )
    _answer(clips, budgets, settings, store, tier, as_json)


def _budgets(vram: list[str], cards: list[str]) -> list[Budget]:
    from i2v_lab.cost import Budget

    found = []
    for text in (part for item in vram for part in item.split(",")):
        try:
            found.append(Budget.vram(float(text.strip().lower().removesuffix("gb"))))
        except ValueError:
            raise ParamsError(f"--vram: expected GB such as 12 or 8,12,24, got {text!r}") from None
    return found + [budget for name in cards for budget in Budget.cards(name)]


def _clip(given: dict[str, Any], preset: str | None, settings: Settings) -> ClipParams:
    from i2v_lab.cost import native

    params = clip_params({"image": ANY_PICTURE, **given}, preset, settings)
    if "image" in given:
        return params
    found = native(params)
    if found.resolution != params.resolution:
        remark(f"no picture is given, so this is for the native size, {found.resolution}")
    return found


def _show_models(budgets: list[Budget], settings: Settings, store: Store | None, tier: int | None, as_json: bool) -> None:
    """Every model and preset, a line each as soon as it is known."""
    from i2v_lab.cli import plan_models
    from i2v_lab.cost import Budget, Forecaster
    from i2v_lab.errors import I2VLabError

    unlimited, time = Forecaster(device="cuda", budget=Budget(2**62, "no limit")), plan_models.known_times(store, settings.device)
    forecasters = [Forecaster(device="cuda", budget=budget) for budget in budgets]
    model = ""
    if not as_json:
        tell_lines(plan_models.heads(budgets).split("\n"), "bold")
    for name, preset, params in plan_models.clips():
        if name != model and not as_json:
            plan_models.title(name)
        model = name
        try:
            with working(f"predicting {name} {preset}: the first time takes up to half a minute"):
                whole = unlimited.plan(params, tier=tier, advise=False)
                plans = [forecaster.plan(params, tier=tier, advise=False) for forecaster in forecasters]
        except I2VLabError as error:  # its configs are not known, or it has no such tier
            if as_json:
                tell_json({"model": name, "preset": preset, "error": str(error)})
            else:
                tell(f"  {preset:<9} {error}")
            continue
        if as_json:
            tell_json(
                {"preset": preset, "published": plan_models.PUBLISHED.get(name, ""), **_plain(whole, plans), "time": time(params)}
            )
        else:
            tell_lines(plan_models.row(preset, whole, plans, time(params)).split("\n"))
    if not as_json:
        plan_models.explain(budgets)


def _of_sweep(file: Path, settings: Settings) -> list[tuple[str, ClipParams]]:
    """One clip for each shape among the cells, with the numbers of the cells that have it."""
    from i2v_lab.clip.levers import LEVERS
    from i2v_lab.sweep import load_sweep

    shapes: dict[Any, tuple[list[int], ClipParams]] = {}
    for cell in load_sweep(file).with_defaults(settings.model).cells():
        params = cell.params
        shape = (params.model, params.dtype, params.resolution, params.num_frames, params.num_inference_steps,
                 params.guidance_scale > 1, params.scheduler, params.image, params.true_cfg_scale, params.lora,
                 *(getattr(params, name) for name in LEVERS))  # fmt: skip
        shapes.setdefault(shape, ([], params))[0].append(cell.number)
    return [(_numbers(cells), params) for cells, params in shapes.values()]


def _numbers(cells: list[int]) -> str:
    few = ", ".join(map(str, cells[:4]))
    return f"cell {few}" if len(cells) == 1 else f"cells {few}" + (f" and {len(cells) - 4} more" if len(cells) > 4 else "")


def _answer(
    clips: list[tuple[str, ClipParams]], budgets: list[Budget], settings: Settings, store: Store | None, tier: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """The forecasts for each clip and budget, as a table or as JSON, a line a clip."""
    with working("loading torch"):
        from i2v_lab.cost import Budget, Forecaster

    # A card that is not here is a CUDA device; the clip runs on a CPU only where its family has no other.
    device = "cuda" if budgets and not settings.device.startswith("cuda") else settings.device
    known: dict[str, Any] = {"device": device, "parallel": settings.parallel}
    unlimited = Forecaster(**known, budget=Budget(2**62, "no limit"))
    forecasters = [Forecaster(**known, budget=budget) for budget in budgets] or [Forecaster(**known, store=store)]
    one = len(clips) == 1
    rows: list[tuple[str, Forecast, list[Forecast]]] = []
    for label, params in clips:
        with working(f"predicting {params.model} {label or params.resolution}: the first time takes some seconds"):
            plans = [forecaster.plan(params, tier=tier, advise=one or as_json) for forecaster in forecasters]
            rows.append((label, unlimited.plan(params, tier=tier) if budgets else plans[0], plans))
        if as_json:
            tell_json({"cells": label, **_plain(*rows[-1][1:])})
    if as_json:
        return
    _table(rows, [] if one else budgets)
    for _, _, plans in rows if one else ():
        if len(plans) > 1:
            _cards(plans)
        else:
            tell(plans[0].sentence())
    _explain(rows, bool(budgets))


def _cards(plans: list[Forecast]) -> None:
    """One clip on several cards, a line each."""
    tell("")
    show_table(("card", "fits", "peak GiB", "of GiB", ""), (
        (plan.budget.name.removesuffix(" of VRAM"), _fits(plan), f"{plan.peak_gib:.1f}", f"{plan.free_gib:.1f}",
         str(plan.time or "") if plan.fits else plan.advice()) for plan in plans
    ))  # fmt: skip


def _fits(plan: Forecast) -> str:
    return "no" if plan.tier is None else f"tier {plan.tier}" if plan.tier else "fits"


def _plain(whole: Forecast, plans: list[Forecast]) -> dict[str, Any]:
    stages = [
        {"stage": stage.stage, "weights_bytes": stage.weights, "activations_bytes": stage.activations, "flops": stage.flops}
        for stage in whole.stages
    ]
    fits = [
        {"budget": item.budget.name, "free_gib": item.free_gib, "tier": item.tier, "fits": item.fits, "peak_gib": item.peak_gib,
         "nearest": [near.plain() for near in item.nearest], "sentence": item.sentence()} for item in plans
    ]  # fmt: skip
    return {"params": whole.params.plain(), "model": whole.model, "device": whole.device, "dtype": whole.dtype, "stages": stages,
             "parallel": whole.parallel, "tier": whole.last_tier, "process_bytes": whole.base, "peak_gib": whole.peak_gib, "flops": whole.flops,
             "least_flops": whole.least_flops, "of_standard": plans[0].of_standard if plans else whole.of_standard,
             "seconds": whole.seconds, "seconds_range": whole.time and whole.time[1:], "runs": whole.runs, "correction": whole.correction,
             "corrected_by_runs": whole.corrected, "budgets": fits}  # fmt: skip


def _table(rows: list[tuple[str, Forecast, list[Forecast]]], budgets: list[Budget]) -> None:
    from i2v_lab.devices.hardware import GIB

    columns = ["clip", "encode", "denoise", "decode", "peak GiB", "TFLOP"]
    columns += [budget.name.removesuffix(" of VRAM") for budget in budgets]
    columns += [] if budgets or len(rows) == 1 else ["fits", "time"]
    table = []
    for label, whole, plans in rows:
        params, peak = whole.params, whole.peak_gib
        name = " ".join(part for part in (label, f"{params.resolution}·{params.num_frames}") if part)
        cells = [name, *(f"{stage.total / GIB:.2f}" for stage in whole.stages), f"{peak:.2f}"]
        cells.append(f"{whole.flops / 1e12:.3g}" if whole.flops < 1e15 else f"{whole.flops / 1e12:,.0f}")
        cells += [] if len(rows) == 1 else map(_fits, plans)
        cells += [] if budgets or len(rows) == 1 else [str(whole.time or "not known")]
        table.append(cells)
    show_table(columns, table)


def _explain(rows: list[tuple[str, Forecast, list[Forecast]]], elsewhere: bool) -> None:
    from i2v_lab.cost.answer import tier_name

    whole = rows[0][1]
    weights = ", ".join(f"{stage.stage} {stage.weights / 2**30:.2f}" for stage in whole.stages)
    remark(f"{whole.model} on {whole.device} in {whole.dtype}, tier {whole.last_tier}; GiB = 2^30 bytes, GB = 10^9 bytes. "
           f"Each stage with its weights ({weights} GiB)"
           + (f"; the peak with {whole.base / 2**30:.2f} GiB of Python and its libraries" if whole.base else ""))  # fmt: skip
    if whole.parallel > 1:
        remark(f"memory and TFLOP are those of each of {whole.parallel} devices: all weights, and its share of denoising")
    if not elsewhere:
        _measured(rows[0][1])
    else:
        remark("0.75 GiB and 3 % of each card are left free for CUDA itself; none of this was run on a GPU")
    used = sorted({item.tier for _, _, plans in rows for item in plans if item.tier})
    if used:
        remark("; ".join(f"tier {number}: {tier_name(number)}" for number in used))


def _measured(plan: Forecast) -> None:
    """What of a plan was measured on this machine."""
    parts = (
        [f"memory is {plan.correction:.2f} of what the network alone says, by {runs_in_words(plan.corrected)}"]
        if plan.corrected
        else []
    )
    parts += [f"time is drawn from {runs_in_words(plan.runs)}"] if plan.runs else []
    if parts:
        remark(f"measured here: {'; '.join(parts)}")


def _show_accuracy(store: Store | None, as_json: bool) -> None:
    """Predicted beside measured memory of earlier runs, by model and device; without runs that needed a second attempt."""
    from i2v_lab.cost.measured import climbed

    found: dict[tuple[str, str], list[tuple[RunRecord, float]]] = {}
    for record in store.records(status="done") if store else ():
        if (measured := measured_gib(record)) and record.predicted_peak_gib and not climbed(record):
            found.setdefault((record.model_name, record.device_name), []).append((record, measured))
    if as_json:
        for (model, device), pairs in found.items():
            runs = [{"run": record.id, "tier": record.actual_tier, "predicted_gib": record.predicted_peak_gib, "measured_gib": measured}
                    for record, measured in pairs]  # fmt: skip
            tell_json({"model": model, "device_name": device, "runs": runs})
        return
    if not found:
        remark("no run here has both a predicted and a measured peak yet; make one: i2v-lab generate --image sample:coffee")
    for (model, device), pairs in found.items():
        errors = [(record.predicted_peak_gib or 0) / measured - 1 for record, measured in pairs]
        kind = "RAM of the process" if pairs[0][0].device == "cpu" else "VRAM allocated"
        middle, worst = median(map(abs, errors)), max(errors, key=abs)
        tell(f"{model} on {device}, {kind}: {len(pairs)} runs, off by {middle:.1%} (median), {worst:+.1%} (worst)")
        table = []
        for (record, measured), error in list(zip(pairs, errors, strict=True))[-SHOWN_RUNS:]:
            shape = f"{record.params.resolution}·{record.params.num_frames}" if record.params else ""
            tier = "" if record.actual_tier is None else record.actual_tier
            memory = f"{record.predicted_peak_gib:.2f}", f"{measured:.2f}", f"{error:+.1%}"
            table.append([f"{record.created:%m-%d %H:%M}", shape, tier, *memory])
        show_table(("made (UTC)", "clip", "tier", "predicted GiB", "measured GiB", "error"), table)


def measured_gib(record: RunRecord) -> float | None:
    """What a plan's peak is compared with: on a GPU the bytes of tensors, on a CPU the resident memory of the process."""
    return record.peak_ram_gib if record.device == "cpu" else record.peak_vram_allocated_gib
