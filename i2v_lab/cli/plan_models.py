"""The table of `i2v-lab plan` without a clip: every model and preset, and whether it fits on a card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from i2v_lab.cli.terminal import out, remark, tell, width_of

if TYPE_CHECKING:
    from i2v_lab.clip.params import ClipParams
    from i2v_lab.cost import Budget, Forecast
    from i2v_lab.store import Store

PUBLISHED: Mapping[str, str] = {
    "i2vgen-xl": "12.1, 13.8, 17.6 and 21.3 GB on an RTX 4090 in float16; how it was measured is not known",
    "wan2.2-ti2v-5b": "24 GB with offloading",
    "wan2.2-i2v-a14b": "80 GB",
}
"""What cards and articles say of the presets of a model, in order; of one figure, the standard preset."""


def clips() -> Iterator[tuple[str, str, ClipParams]]:
    """(model, preset, params) of every preset that is listed, in the family's native size where the preset leaves it open."""
    from i2v_lab import models
    from i2v_lab.clip.params import ClipParams
    from i2v_lab.cost import native
    from i2v_lab.models.registry import LISTED

    for name in LISTED:
        for preset, fields in models.family(name).presets.items():
            yield name, preset, native(ClipParams(image="sample:coffee", model=name, **fields))


def known_times(store: Store | None, device: str) -> Any:
    """A function of params: how long the clip takes on this device, in words; "" where no run of its model is known."""
    from i2v_lab.cost import Forecaster

    ran = {record.model_name for record in store.records(status="done")} if store else set()
    here = Forecaster(device=device, store=store)

    def time(params: ClipParams) -> str:
        return str(here.plan(params, advise=False).time or "") if params.model in ran else ""

    return time


def heads(budgets: list[Budget]) -> str:
    """The first line of the table."""
    names = ["fits on"] if len(budgets) == 1 else [budget.name.removesuffix(" of VRAM") for budget in budgets]
    return _line("", "PFLOP", "GiB", names, "time here")


def row(preset: str, whole: Forecast, plans: list[Forecast], time: str) -> str:
    """A line of the table: memory on tier 0, or where there is one card, on the tier on which it fits."""
    clip = f"  {preset:<9} {whole.params.resolution}·{whole.params.num_frames}"
    peak = plans[0].peak_gib if len(plans) == 1 else whole.peak_gib
    long = len(plans) == 1
    cells = ["no" if plan.tier is None else f"tier {plan.tier}" if long else str(plan.tier) for plan in plans]
    if whole.device == "cpu":
        cells = ["CPU"] * len(plans)
    return _line(clip, f"{whole.flops / 1e15:.3g}" if whole.flops > 1e12 else "<0.001", f"{peak:.1f}", cells, time)


def _line(clip: str, flops: str, peak: str, cells: list[str], time: str) -> str:
    widths = [max(7 if len(cells) == 1 else 5, min(len(cell), 14)) for cell in cells]
    line = f"{clip:<25} {flops:>7} {peak:>6}" + "".join(f" {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    below = len(line) + 2 + len(time) > (width_of(out) or 2**16)
    return (line + (f"\n{'':12}{time}" if below else f"  {time}") if time else line).rstrip()


def title(model: str) -> None:
    """The line above a model's presets."""
    tell(model + (f" (published: {PUBLISHED[model]})" if model in PUBLISHED else ""), "bold")


def explain(budgets: list[Budget]) -> None:
    """What the figures mean."""
    from i2v_lab.models.memory.tiers import TIERS

    where = "the tier on which it fits, or the last one" if len(budgets) == 1 else "tier 0"
    remark(f"GiB (2^30 bytes): the highest point on {where}, weights included; PFLOP: 10^15 operations. Sizes are the models' own.")
    remark("Tiers: " + "; ".join(f"{tier.number}: {tier.name}" for tier in TIERS) + "; no: on none")
    remark("0.75 GiB and 3 % of each card are left free for CUDA itself; none of this was run on a GPU")
