"""Searches by Optuna: ask and tell, with its own SQLite storage. The storage is made again from the clips at each start."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.errors import InputError
from i2v_lab.sweep.tune.methods import Search, reserve
from i2v_lab.sweep.tune.race import Race, Round
from i2v_lab.sweep.tune.space import Axis, Setting

if TYPE_CHECKING:
    import optuna

DATABASE = "optuna.db"
TOGETHER = 5  # trials that are asked for at once, and made as one round
REPEATS = 50  # rounds without a new setting that end the search


def check() -> None:
    """Raises InputError, one line, where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError(
            "method: tpe and nsga2 need Optuna: pip install 'i2v_lab[tune]', or use method: halving or random"
        ) from None


def search(
    race: Race, method: str, axes: Sequence[Axis], model: str, folder: Path | None, keeps: Callable[[Setting], bool]
) -> Search:
    """Trials at full quality until the budget is spent but for the final.

    What Optuna asks is a function of the seed and of what it was told, so a search that is started again asks the same; the clips are
    there then. A setting that does not meet the condition or that the planner knows to break a limit is told as failed.

    Args:
        folder: where the storage goes; None: in memory.
        keeps: whether a setting may be made.
    """
    study = _study(race, method, folder)
    from optuna.trial import TrialState

    seeds, idle = race.fresh(race.seeds), 0
    while idle < REPEATS:
        trials = [study.ask() for _ in range(TOGETHER)]
        asked = [_suggest(trial, axes, model) for trial in trials]
        new: list[Setting] = []
        for setting in asked:
            if setting not in race.settings and setting not in new and keeps(setting):
                new.append(setting)
        numbers: list[int] = []
        for setting in new:
            race.settings.append(setting)
            numbers.append(len(race.settings) - 1)
            kept = reserve(race, range(len(race.settings)))
            if race.spent + race.cost(numbers, race.full) * len(seeds) > 1 - kept + 1e-9:
                race.settings.pop()
                numbers.pop()
                idle = REPEATS  # the budget is spent
                break
        idle += not numbers
        if numbers:
            yield Round(tuple(numbers), seeds, race.full)
        for trial, setting in zip(trials, asked, strict=True):
            own = race.settings.index(setting) if setting in race.settings else -1
            if own < 0 or not race.seeds_of([own], race.full):
                study.tell(trial, state=TrialState.FAIL)
            else:
                means = race.table([own], race.full, seeds).mean((0, 1))
                study.tell(trial, [float(mean) for mean in means])
    return _best(race)


def _best(race: Race) -> list[int]:
    """All settings that were tried, the best first, without those that break a limit or are worse for sure."""
    tried = [number for number in range(len(race.settings)) if race.seeds_of([number], race.full)]
    if not race.told:
        return []
    return race.leave(tried, race.full, len(tried))


def _study(race: Race, method: str, folder: Path | None) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: Any = None
    if folder is not None:
        for name in (DATABASE, f"{DATABASE}-journal"):
            (folder / name).unlink(missing_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / DATABASE).absolute().as_posix()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some options are experimental
        sampler: Any
        if method == "tpe":
            sampler = optuna.samplers.TPESampler(seed=race.seed % 2**32, multivariate=True, group=True, constant_liar=True)
        else:
            sampler = optuna.samplers.NSGAIISampler(seed=race.seed % 2**32, population_size=4 * TOGETHER)
        directions: Any = ["maximize"] * len(race.goals)  # of the race's table more is better
        return optuna.create_study(storage=storage, sampler=sampler, directions=directions, study_name="tune")


def _suggest(trial: optuna.Trial, axes: Sequence[Axis], model: str) -> Setting:
    setting: Setting = {}
    for axis in axes:
        if not axis.there(setting, model):
            continue
        if axis.values:
            place = trial.suggest_categorical(axis.field, list(range(len(axis.values))))
            setting[axis.field] = axis.values[place]
        elif axis.whole:
            setting[axis.field] = trial.suggest_int(axis.field, int(axis.low), int(axis.high), log=axis.log)
        else:
            setting[axis.field] = float(f"{trial.suggest_float(axis.field, axis.low, axis.high, log=axis.log):.4g}")
    return setting
