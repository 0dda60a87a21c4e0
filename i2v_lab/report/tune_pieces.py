"""The sections of the report of a tune."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING

from i2v_lab import statistics
from i2v_lab.metrics.registry import METRICS
from i2v_lab.report.numbers import number
from i2v_lab.report.parts import pareto_piece
from i2v_lab.report.pieces import Piece, folded, scrolled, section
from i2v_lab.report.player.page import clip_grid
from i2v_lab.report.top import heading
from i2v_lab.report.tune_sentences import sentences, setting_words
from i2v_lab.report.words import Said, phrase, said
from i2v_lab.sweep.tune.run import FILE

if TYPE_CHECKING:
    import pandas as pd

    from i2v_lab.sweep.tune import TuneResult

_SHOWN_SEEDS = 4  # of each finalist, in the player
_CLIPS_BYTES = 15_000_000


def _axes(result: TuneResult) -> list[str]:
    return [axis.field for axis in result.tune.axes]


def tune_heading(result: TuneResult) -> Piece:
    """Title and facts, as of a sweep."""
    return heading(result.table(), [*_axes(result), "seed"])


def tune_found(result: TuneResult) -> Piece:
    """The winner, how sure that is, and what it cost, in sentences; then the finalists as a table."""
    lines = sentences(result)
    body = "".join(f"<p>{line.html()}</p>" for line in lines)
    return section("tune.title", body, _finalists(result), text="\n".join(line.en for line in lines))


def _finalists(result: TuneResult) -> str:
    outcome = result.outcome
    if not outcome.finalists or outcome.noise or math.isnan(outcome.finalists[0].mean):
        return ""
    goal = result.tune.goals[0].figure if result.tune.goals else ""
    head = [phrase("tune.column.setting"), said(lambda say: say.title(goal)) if goal else phrase("tune.strength"), "95 %",
            phrase("tune.column.behind"), ""]  # fmt: skip
    rows = []
    for one in outcome.finalists:
        state = "tune.is_winner" if one is outcome.winner else "tune.is_worse" if one.told else "tune.is_alike"
        span = "" if math.isnan(one.low) else f"{number(one.low)} – {number(one.high)}"
        rows.append([said(partial(setting_words, one)), number(one.mean), span, number(one.behind), one.broken or phrase(state)])
    return _table(head, rows, phrase("tune.finalists"))


def _table(head: Sequence[object], rows: Sequence[Sequence[object]], name: Said) -> str:
    cells = "".join(f"<th>{_shown(one)}</th>" for one in head)
    lines = "".join("<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return scrolled(f'<table class="dataframe"><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>', name)


def _shown(cell: object) -> str:
    return cell.html() if isinstance(cell, Said) else escape(str(cell))


def final_clips(result: TuneResult) -> pd.DataFrame:
    """The clips of the finalists at full quality, the best setting first, with at most four seeds: of the final, where there was one."""
    table = result.table()
    last = table["final"] if table["final"].any() else table["level"] == table["level"].max()
    order = {one.number + 1: place for place, one in enumerate(result.outcome.finalists)}
    own = table[last & table["setting"].isin(list(order)) & (table["status"] == "done")]
    seeds = sorted(own["seed"].unique())[:_SHOWN_SEEDS]
    own = own[own["seed"].isin(seeds)].drop_duplicates("id")
    return own.assign(place=own["setting"].map(order)).sort_values(["place", "seed"]).drop(columns="place").reset_index(drop=True)


def tune_clips(result: TuneResult) -> Piece:
    """The winner and the runners-up, playing in step; nothing where nobody won."""
    if not result.outcome.finalists or not result.sweeps:
        return Piece("")
    clips = final_clips(result)
    if clips.empty:
        return Piece("")
    shown = clip_grid(clips, [*_axes(result), "seed"], limit_bytes=_CLIPS_BYTES)
    return section("tune.clips", shown._repr_html_())


def tune_pareto(result: TuneResult) -> Piece:
    """Quality against cost of all settings at full quality; nothing where the goal is no metric."""
    quality = next((goal.figure for goal in result.tune.goals if goal.figure in METRICS), "")
    if not quality or statistics.more_is_better(quality) is None or not result.sweeps:
        return Piece("")
    table = result.table()
    table = table[(table["level"] == result.tune.levels() - 1) | table["final"]].drop_duplicates("id").reset_index(drop=True)
    axes = [axis for axis in _axes(result) if len(table) and len(table[axis].astype(str).unique()) > 1]
    return pareto_piece(table, [*axes, "seed"], quality) if axes else Piece("")


def tune_rounds(result: TuneResult) -> Piece:
    """What each round made, and who left."""
    names = ("round", "fidelity", "settings", "seeds", "worse", "room", "p")
    rows = []
    for place, told in enumerate(result.outcome.rounds, 1):
        made = told.round
        level = phrase("tune.full") if made.level == result.tune.levels() - 1 or made.final else made.level + 1
        chance = "" if math.isnan(told.p) else number(told.p)
        rows.append([place, level, len(made.settings), len(made.seeds), len(told.worse), len(told.dropped), chance])
    body = _table([phrase(f"tune.column.{name}") for name in names], rows, phrase("tune.rounds"))
    return section("tune.rounds", f"<p>{phrase('tune.rounds_said').html()}</p>", body)


def tune_file(result: TuneResult) -> Piece:
    """The tune file."""
    text = result.tune.to_yaml()
    return section(
        "tune.file",
        folded(Said(*[FILE] * 2), scrolled(f"<pre>{escape(text)}</pre>", phrase("tune.file")), opened=text.count("\n") < 30),
    )
