"""What a tune came to, in sentences in both languages."""

from __future__ import annotations

import math
from functools import partial

from i2v_lab.cost.timing import duration
from i2v_lab.report.numbers import number
from i2v_lab.report.words import Said, Words, said
from i2v_lab.sweep.tune import Outcome, TuneResult
from i2v_lab.sweep.tune.outcome import Finalist, Ranking


def sentences(result: TuneResult) -> list[Said]:
    """The winner, how sure that is, what it cost, whether the cheap fidelity can be trusted."""
    writers = [lambda say: _winner(result, say), lambda say: _sure(result, say), lambda say: _cost(result.outcome, say),
               lambda say: _left_out(result.outcome, say)]  # fmt: skip
    lines = [said(write) for write in writers]
    lines += [said(partial(_ranking, ranking)) for ranking in result.outcome.rankings]
    return [line for line in lines if line.en]


def setting_words(one: Finalist, say: Words) -> str:
    """A setting in words: guidance 9, scheduler ddim."""
    return say("comma").join(f"{say.axis(field)} {value}" for field, value in one.setting.items())


def _winner(result: TuneResult, say: Words) -> str:
    outcome, best = result.outcome, result.outcome.winner
    if result.pair:
        return say("tune.votes", votes=outcome.votes, most=result.tune.budget.votes)
    if outcome.noise:
        return say("tune.noise", settings=len(outcome.settings))
    if best is None:
        return say("tune.none" if outcome.finalists else "tune.early")
    if not result.tune.goals:
        return say("tune.voted", setting=setting_words(best, say), votes=outcome.votes)
    goal = result.tune.goals[0].figure
    mean = number(best.mean)
    if not math.isnan(best.low):
        mean = say("best_interval", mean=mean, low=number(best.low), high=number(best.high))
    values = {"setting": setting_words(best, say), "metric": say.in_line(goal), "mean": mean + say.unit(goal)}
    if outcome.seeds:
        return say("tune.winner", **values, seeds=len(outcome.seeds))
    early = "" if outcome.complete else say("tune.early")
    return early if math.isnan(best.mean) else early + say("tune.ahead", **values)


def _sure(result: TuneResult, say: Words) -> str:
    outcome = result.outcome
    if outcome.winner is None or result.pair:
        return ""
    if not outcome.seeds and result.tune.goals:
        return say("tune.unsure") if outcome.complete else ""
    text = ""
    if len(outcome.finalists) > 1 and not math.isnan(outcome.finalists[1].behind_low):
        second = outcome.finalists[1]
        ends = {"low": number(second.behind_low), "high": number(second.behind_high)}
        text = say("tune.second", setting=setting_words(second, say), behind=number(second.behind), **ends)
    if len(outcome.alike) > 1:
        text += say("tune.alike", count=len(outcome.alike), seeds=len(outcome.seeds) or outcome.votes)
    return text


def _cost(outcome: Outcome, say: Words) -> str:
    text = say("tune.spent", clips=say.count(outcome.clips, "clips"), time=duration(outcome.seconds))
    if not math.isnan(outcome.grid_clips):
        text += say("tune.grid", clips=int(outcome.grid_clips), time=duration(outcome.grid_seconds))
    return text


def _left_out(outcome: Outcome, say: Words) -> str:
    return say("tune.left_out", count=len(outcome.left_out)) if outcome.left_out else ""


def _ranking(ranking: Ranking, say: Words) -> str:
    values = {name: number(getattr(ranking, name)) for name in ("correlation", "low", "high")}
    return say(
        "tune.unlike" if ranking.unlike else "tune.alike_ranks", level=ranking.level + 1, settings=ranking.settings, **values
    )
