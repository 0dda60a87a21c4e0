"""How often the findings are wrong, what they can find, and what the intervals cover, by simulation with the product's own functions.

    python experiments/check_statistics.py            the tables of docs/metrics.md, about 8 minutes on one core
    python experiments/check_statistics.py --clips [FOLDER]    the coverage on clips of the closed-form model, which are kept there

Nine metrics that go together (correlation 0.7). "sd" is the standard deviation of a paired difference: two settings, the same seed.
"""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from i2v_lab import Store
from i2v_lab.metrics import METRICS as METRICS_OF_CLIPS
from i2v_lab.statistics import Axis, Design, interval, ranking, settings
from i2v_lab.statistics.effects import effects, tested
from i2v_lab.statistics.intervals import pooled
from i2v_lab.statistics.shuffles import LEVEL
from i2v_lab.sweep import Sweep, run_sweep

METRICS = 9
SHUFFLES = 500  # the product takes 2,000; the claims are as often wrong with any number
KINDS = ("normal", "skewed", "bounded", "rounded", "one without noise", "missing clips")
DOUBTED = ("spread grows tenfold", "noise alike at neighbours (0.7)", "a slope for each seed")
SEEDS_OF_CLIPS = 120


def noise(rng: np.random.Generator, shape: Sequence[int], seeds: int, kind: str = "normal") -> np.ndarray:
    """Figures of settings that do nothing, (*shape, seeds, metrics): one normal deviation has the variance 1."""
    shared = rng.standard_normal((*shape, seeds, 1))
    found = math.sqrt(0.7) * shared + math.sqrt(0.3) * rng.standard_normal((*shape, seeds, METRICS))
    along = np.linspace(0, 1, shape[0]).reshape(-1, *[1] * len(shape[1:]), 1, 1)
    if kind == "skewed":
        found = np.exp(found)
    elif kind == "bounded":
        found = 1 / (1 + np.exp(-2 * found - 2))
    elif kind == "rounded":
        found = np.round(found)
    elif kind == "one without noise":
        found[-1] = 0
    elif kind == "missing clips":
        found[rng.random((*shape, seeds)) < 0.15] = np.nan
    elif kind == "spread grows tenfold":
        found = found * 10**along
    elif kind == "noise alike at neighbours (0.7)":
        levels = np.arange(shape[0])
        mix = np.linalg.cholesky(0.7 ** np.abs(levels[:, None] - levels))
        found = np.einsum("ij,j...->i...", mix, found)
    elif kind == "a slope for each seed":
        found = found * 0.3 + (along - 0.5) * 2 * rng.standard_normal((*[1] * len(shape), seeds, METRICS))
    return found


def design_of(y: np.ndarray, ordered: bool = True) -> Design:
    """An array (levels..., seeds, metrics) as `design` makes it from a table."""
    axes = tuple(Axis(f"axis{place}", tuple(range(size)), ordered) for place, size in enumerate(y.shape[:-2]))
    metrics = tuple(f"m{metric}" for metric in range(y.shape[-1]))
    return Design(axes, metrics, y, tuple((None, seed) for seed in range(y.shape[-2])), False)


def claims(y: np.ndarray, named: Sequence[str] = (), ordered: bool = True) -> list[tuple[int, int]]:
    """(number of the effect, number of the metric) of what is claimed."""
    found = tested(design_of(y, ordered), named, draws=SHUFFLES)
    return [(at, metric) for at, (_, p) in enumerate(found) for metric, own in p.items() if own <= 1 - LEVEL + 1e-9]


def false_claims(kind: str, shape: Sequence[int], seeds: int, repeats: int, ordered: bool = True) -> float:
    """The share of reports that claim anything, where there is nothing."""
    rng = np.random.default_rng(1)
    return sum(bool(claims(noise(rng, shape, seeds, kind), (), ordered)) for _ in range(repeats)) / repeats


def least_found(levels: int, seeds: int, named: bool, repeats: int, share: float = 0.8) -> float:
    """The straight change from end to end, in sd, that is found in this share of sweeps; infinite where none is."""
    rng, least = np.random.default_rng(2), []
    along = np.linspace(0, 1, levels)[:, None]

    def seen(y: np.ndarray, change: float) -> bool:
        y = y.copy()
        y[..., 0] += change * math.sqrt(2) * along
        return any(metric == 0 for _, metric in claims(y, ("m0",) if named else ()))

    for _ in range(repeats):
        y = noise(rng, (levels,), seeds)
        low, high = 0.0, 16.0
        if not seen(y, high):
            least.append(math.inf)
            continue
        while high - low > 0.1:
            middle = (low + high) / 2
            low, high = (low, middle) if seen(y, middle) else (middle, high)
        least.append(high)
    return float(np.quantile(least, share, method="higher"))


def coverage(kind: str, seeds: int, repeats: int, settings: int = 5) -> float:
    """How often the interval of a setting's mean holds the mean of very many seeds."""
    rng = np.random.default_rng(3)
    truth = noise(rng, (1,), 100_000, kind)[0, :, 0].mean() if kind in ("skewed", "bounded") else 0.0
    held = 0
    for _ in range(repeats):
        y = noise(rng, (settings,), seeds, kind)[..., 0]
        spread = pooled(list(y))
        held += sum(low <= truth <= high for low, high in (interval(own, spread) for own in y))
    return held / repeats / settings


def effect_coverage(seeds: int, change: float, repeats: int) -> tuple[float, float]:
    """(share of claimed trends whose interval holds the true change, share of claims whose pairs' intervals all hold it)."""
    rng, held, pairs, count = np.random.default_rng(4), 0, 0, 0
    along = np.linspace(0, change * math.sqrt(2), 5)
    for _ in range(repeats):
        y = noise(rng, (5,), seeds)
        y[..., 0] += along[:, None]
        for effect in effects(design_of(y), ("m0",), draws=SHUFFLES):
            if effect.metric == "m0" and effect.claimed and effect.shape == "trend":
                count += 1
                held += effect.low <= along[-1] <= effect.high
                pairs += all(pair.low <= along[pair.after] - along[pair.before] <= pair.high for pair in effect.pairs)
    return held / max(count, 1), pairs / max(count, 1)


def drawn_votes(truth: dict[str, float], many: int, ties: float, rng: np.random.Generator) -> pd.DataFrame:
    """Votes by Davidson's model between clips of these strengths; `ties` is its parameter."""
    names, rows = list(truth), []
    for _ in range(many):
        left, right = (names[place] for place in rng.choice(len(names), 2, replace=False))
        weights = np.exp([truth[left], truth[right], math.log(ties) + (truth[left] + truth[right]) / 2])
        rows.append((left, right, ("left", "right", "equal")[rng.choice(3, p=weights / weights.sum())]))
    return pd.DataFrame(rows, columns=["left", "right", "better"])


def votes_coverage(many: int, repeats: int) -> float:
    """How often a strength is in its interval: five clips with strengths of standard deviation 1, a quarter of the votes are ties."""
    rng, held, count = np.random.default_rng(6), 0, 0
    for _ in range(repeats):
        truth = dict(zip("abcde", rng.normal(size=5), strict=True))
        found = ranking(drawn_votes(truth, many, 0.8, rng))
        for _, group in found.groupby("group"):
            middle = np.mean([truth[name] for name in group.index])
            held += sum(row.low <= truth[name] - middle <= row.high for name, row in group.iterrows())
            count += len(group)
    return held / count


def beaten(repeats: int) -> float:
    """The share of sweeps of five equal settings with five seeds in which a setting is called beaten."""
    rng, found = np.random.default_rng(7), 0
    for _ in range(repeats):
        rows = [
            {"status": "done", "guidance_scale": scale, "seed": seed, "metric_drift_ssim": rng.normal(0.5, 0.1),
             "seconds_total": rng.normal(3, 0.1), "seconds_load": 0.0, "peak_ram_gib": 1.0, "peak_vram_allocated_gib": math.nan}
            for scale, seed in itertools.product(range(5), range(5))
        ]  # fmt: skip
        found += settings(pd.DataFrame(rows), ["guidance_scale", "seed"], "drift_ssim")["beaten"].any()
    return found / repeats


def table(title: str, columns: Sequence[object], rows: Sequence[object], cell: Callable[[object, object], str]) -> None:
    """Print a table of Markdown."""
    print(f"\n{title}\n\n| | {' | '.join(map(str, columns))} |\n|---|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {row} | {' | '.join(cell(row, column) for column in columns)} |", flush=True)


def main() -> None:
    began = time.perf_counter()
    shapes = {"5 settings, 3 seeds": ((5,), 3, 2000), "5 settings, 5 seeds": ((5,), 5, 1000), "5 x 3, 3 seeds": ((5, 3), 3, 500),
              "4 x 3 x 2, 3 seeds": ((4, 3, 2), 3, 300)}  # fmt: skip
    table(
        "False claims of anything in a report", list(shapes), KINDS, lambda kind, name: f"{false_claims(kind, *shapes[name]):.3f}"
    )
    table("The same where shuffles are not exact", ["numbers", "categories"], DOUBTED,
          lambda kind, name: f"{false_claims(kind, (5,), 3, 1000, name == 'numbers'):.3f}")  # fmt: skip
    table("Least change found in 8 of 10 sweeps, in sd: no metric named / one named", ["2 settings", "3 settings", "5 settings"],
          [f"{seeds} seeds" for seeds in (2, 3, 4, 5, 6, 8, 10)],
          lambda row, column: " / ".join(f"{least_found(int(str(column)[0]), int(str(row).split()[0]), named, 100):.2g}"
                                         for named in (False, True)))  # fmt: skip
    table("Coverage of the interval of a setting's mean", [3, 5, 10], ("normal", "skewed", "bounded"),
          lambda kind, seeds: f"{coverage(kind, seeds, 2000):.3f}")  # fmt: skip
    table("Coverage of claimed changes, of the trend / of all pairs at once", [3, 5, 10], ["4 sd"],
          lambda _, seeds: " / ".join(f"{share:.3f}" for share in effect_coverage(seeds, 4.0, 300)))  # fmt: skip
    table("Coverage of the strengths of five clips, by votes", [5, 20, 100, 400], ["a quarter ties"],
          lambda _, many: f"{votes_coverage(many, 60):.2f}")  # fmt: skip
    print(f"\nSweeps of five equal settings in which one is called beaten: {beaten(300):.3f}")
    print(f"\n{time.perf_counter() - began:.0f} s")


def clips(folder: str = "") -> None:
    """Print how often the interval of a setting alone holds the mean of 120 clips of the closed-form model at guidance 1."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(folder or scratch))
        sweep = Sweep(
            base={"model": "closed-form", "image": "sample:coffee", "prompt": "camera panning left slowly", "resolution": "128x128",
                  "guidance_scale": 1.0},
            seeds=list(range(SEEDS_OF_CLIPS)),
        )  # fmt: skip
        found = run_sweep(sweep, store).table()
    rng = np.random.default_rng(5)
    held: dict[tuple[str, int], float] = {}
    known = {name: found[f"metric_{name}"].dropna().to_numpy(float) for name in METRICS_OF_CLIPS if f"metric_{name}" in found}
    names = [name for name, amounts in known.items() if len(amounts) >= SEEDS_OF_CLIPS / 2 and np.ptp(amounts) > 0]
    for name, seeds in itertools.product(names, (3, 5, 10)):
        ends = [interval(rng.choice(known[name], seeds, replace=False)) for _ in range(4000)]
        held[name, seeds] = float(np.mean([low <= known[name].mean() <= high for low, high in ends]))
    table("Coverage on clips of the closed-form model at guidance 1, of one setting alone", [3, 5, 10], names,
          lambda name, seeds: f"{held[name, seeds]:.2f}")  # fmt: skip


if __name__ == "__main__":
    clips(*sys.argv[2:]) if "--clips" in sys.argv else main()
