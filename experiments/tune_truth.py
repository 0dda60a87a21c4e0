"""How well a tune finds the best of 150 settings, where the truth is known: one command makes the table of docs/tune.md.

    python experiments/tune_truth.py [--pool FOLDER]

Each clip is made once by the closed-form model, 64x64, in this process, and measured at once; the pool is kept in FOLDER, and a call that
was ended goes on. The figure is read from the finished latents, exactly: the share of the clip that is the motion of the prompt, less
RESIDUAL times what sampling left over (noise, too much guidance). The truth is each setting's mean over 40 seeds; then 20 repeats of each
method take other seeds out of the pool. Costs are the model's own FLOPs of a clip (closed_form/cost.py), not seconds: the same on any
machine, quiet or not.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.models.closed_form.mixture import Mixture
from i2v_lab.models.closed_form.model import SIGMA, ClosedForm
from i2v_lab.models.closed_form.motions import MOTIONS, understand
from i2v_lab.portable import replace
from i2v_lab.sweep.tune import methods, outside
from i2v_lab.sweep.tune.goal import Goal
from i2v_lab.sweep.tune.outcome import finalists
from i2v_lab.sweep.tune.race import Race
from i2v_lab.sweep.tune.space import Axis

SPACE = {
    "guidance_scale": (1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0, 15.0, 20.0, 30.0),
    "num_inference_steps": (2, 4, 8, 16, 24),
    "scheduler": ("ddim", "euler-a", "dpm++-2m"),
}
BASE: dict[str, Any] = {"image": "sample:coffee", "prompt": "camera panning left slowly", "resolution": "64x64", "num_frames": 8}
CHEAP: dict[str, Any] = {"num_frames": 4, "condition_fps": 8}  # half the frames of the same second
SETTINGS = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
TRUTH, POOL = range(1000, 1040), range(40)  # seeds
FINALISTS = 3  # the default
GRID_SEEDS = 10  # of the grid whose cost is 1
RESIDUAL = 4.0
FIGURE = "prompt_agreement"  # what the race calls it
SHARE = 0.15  # of the grid's cost, for each search
REPEATS, NEAR = 20, 0.05  # a choice is right within this part of the range of the truth


COST: dict[tuple[int, int], float] = {}  # FLOPs of (setting, level)


def params_of(number: int, level: int, seed: int = 0) -> ClipParams:
    """A clip of a setting; level 0 is cheap, 1 is full quality."""
    return ClipParams(**{**BASE, **(CHEAP if level == 0 else {}), **SETTINGS[number], "seed": seed})


def flops(number: int, level: int) -> float:
    """What a clip costs, by the model's own formula."""
    parts = ClosedForm.cost(params_of(number, level), checkpoint="", device="cpu", dtype="float32")
    return float(sum(part.flops for part in parts))


class Maker(ClosedForm):
    """The model, which keeps the motions of a shape from clip to clip, and measures a clip in place of drawing it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, tuple[torch.Tensor, Mixture]] = {}
        asked = understand(BASE["prompt"])
        self.named = torch.tensor([float(asked.names(motion)) for motion in MOTIONS], dtype=torch.float64)

    def encode(self, image: Picture, params: ClipParams, progress: Progress) -> torch.Tensor:
        """The motions, made once for each length."""
        if params.num_frames not in self.kept:
            clips = super().encode(image, params, progress)
            self.kept[params.num_frames] = (clips, Mixture(clips.flatten(1).double(), SIGMA))
        return self.kept[params.num_frames][0]

    def decode(self, latents: torch.Tensor, clips: torch.Tensor, image: Picture, params: ClipParams, progress: Progress) -> Any:
        """The figure of the clip."""
        uniform = torch.zeros(len(MOTIONS), dtype=torch.float64)
        joint = self.kept[params.num_frames][1].log_joint(latents.flatten().double(), 1.0, 0.0, uniform)
        weights = torch.softmax(joint, -1)
        rest = latents - torch.einsum("k,kfchw->fchw", weights.to(clips.dtype), clips)
        return float(weights @ self.named) - RESIDUAL * float((rest**2).mean() ** 0.5)


def make(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(full, cheap): (settings, seeds) of the pool; the seeds of the truth come first. What is there is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    model, picture, found = Maker(), open_picture(BASE["image"]), []
    for level, seeds in ((1, [*TRUTH, *POOL]), (0, [*POOL])):
        rows = []
        for number in range(len(SETTINGS)):
            path = folder / f"{level}-{number}.npy"
            if not path.is_file():
                clips = (model.generate(picture, params_of(number, level, seed), Progress()) for seed in seeds)
                part = path.with_suffix(".part.npy")
                np.save(part, np.array(list(clips), np.float64))
                replace(part, path)
                print(f"\rlevel {level}: {number + 1} of {len(SETTINGS)} settings", end="", file=sys.stderr, flush=True)
            rows.append(np.load(path))
        found.append(np.stack(rows))
    return found[0], found[1]


class Cells:
    """The pool as a race sees it: the seeds of a repeat are drawn from it without repetition."""

    def __init__(self, full: np.ndarray, cheap: np.ndarray, repeat: int) -> None:
        luck = random.Random(repeat)  # noqa: S311  no secret
        self.table = {1: full[:, len(TRUTH) :], 0: cheap}
        self.order = {level: luck.sample(range(table.shape[1]), table.shape[1]) for level, table in self.table.items()}
        self.taken: dict[tuple[int, int], int] = {}  # the place in the order of a seed of a level

    def value(self, number: int, level: int, seed: int) -> float:
        """The figure of a clip of a setting."""
        own = [key for key in self.taken if key[0] == level]
        place = self.taken.setdefault((level, seed), len(own))
        return float(self.table[level][number, self.order[level][place % len(self.order[level])]])


def drive(method: str, cells: Cells, budget: float, repeat: int, levels: int = 2) -> tuple[int, float]:
    """(the setting that is chosen, what it cost), by the package's own search; `budget`: FLOPs."""
    number_of = {tuple(setting.items()): number for number, setting in enumerate(SETTINGS)}
    spent = 0.0

    def price(setting: int, level: int) -> float:
        return COST[number_of[tuple(race.settings[setting].items())], level + 2 - levels] / budget

    race = Race(
        SETTINGS if method == "halving" else [],
        [Goal(FIGURE, True)],
        levels=levels,
        seed=repeat,
        seeds=1,
        finalists=FINALISTS,
        price=price,
    )
    if method == "halving":
        search = methods.halving(race)
    elif method == "random":
        search = methods.drawn(race, lambda luck: luck.choice(SETTINGS))
    else:
        axes = [Axis(field, values, tuple(map(str, values))) for field, values in SPACE.items()]
        search = outside.search(race, "tpe", axes, "closed-form", None, lambda setting: True)

    def follow(rounds: methods.Search) -> list[int]:
        nonlocal spent
        try:
            made = next(rounds)
            while True:
                level = made.level + 2 - levels
                owners = {setting: number_of[tuple(race.settings[setting].items())] for setting in made.settings}
                found = {(setting, seed): {FIGURE: cells.value(owners[setting], level, seed), "seconds": 1.0}
                         for setting in made.settings for seed in made.seeds}  # fmt: skip
                spent += sum(COST[owners[setting], level] for setting in made.settings) * len(made.seeds)
                race.add(made, found)
                race.spent = spent / budget
                made = next(rounds)
        except StopIteration as end:
            return list(end.value)

    chosen = follow(search)
    chosen = follow(methods.final(race, chosen))
    best, _ = finalists(race, chosen)
    return (number_of[tuple(best[0].setting.items())] if best else -1), spent


def report(full: np.ndarray, cheap: np.ndarray, repeats: range) -> str:
    """The table of docs/tune.md."""
    COST.update({(number, level): flops(number, level) for number in range(len(SETTINGS)) for level in (0, 1)})
    truth = full[:, : len(TRUTH)].mean(1)
    near = truth >= truth.max() - NEAR * (truth.max() - truth.min())
    grid = sum(COST[number, 1] for number in range(len(SETTINGS))) * GRID_SEEDS
    rows: dict[str, list[tuple[int, float]]] = {
        "halving": [],
        "grid, one seed each": [],
        "grid, three seeds each": [],
        "random": [],
        "tpe (Optuna)": [],
    }
    for repeat in repeats:
        for name, method in (("halving", "halving"), ("random", "random"), ("tpe (Optuna)", "tpe")):
            levels = 2 if method == "halving" else 1
            rows[name].append(drive(method, Cells(full, cheap, repeat), SHARE * grid, repeat, levels))
        for name, seeds in (("grid, one seed each", 1), ("grid, three seeds each", 3)):
            cells = Cells(full, cheap, repeat)
            means = [np.mean([cells.value(number, 1, seed) for seed in range(seeds)]) for number in range(len(SETTINGS))]
            rows[name].append((int(np.argmax(means)), grid * seeds / GRID_SEEDS))
    span = truth.max() - truth.min()
    lines = ["| method | cost, of the full grid | within 5 % of the best | median loss, of the range |", "|---|---|---|---|"]
    for name, found in rows.items():
        right = sum(bool(choice >= 0 and near[choice]) for choice, _ in found)
        loss = np.median([(truth.max() - truth[choice]) / span if choice >= 0 else 1 for choice, _ in found])
        lines.append(f"| {name} | {np.mean([cost for _, cost in found]) / grid:.3f} | {right} of {len(found)} | {loss:.3f} |")
    return "\n".join(lines) + f"\n\n{int(near.sum())} of {len(SETTINGS)} settings are within 5 % of the range of the best."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, default=Path("results/tune_truth"), help="where the clips' figures are kept")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each method")
    parser.add_argument("--first", type=int, default=0, help="the first repeat: others draw other seeds out of the pool")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    full, cheap = make(given.pool)
    print("\n" + report(full, cheap, range(given.first, given.first + given.repeats)))


if __name__ == "__main__":
    main()
