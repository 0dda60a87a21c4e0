"""What speed costs: the settings of the levers against the same clips without them, in a sentence, a plot and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from i2v_lab import statistics
from i2v_lab.metrics.price import FIELDS
from i2v_lab.report.pieces import Piece, scrolled, section
from i2v_lab.report.player.fonts import drawable
from i2v_lab.report.player.grid import value_texts
from i2v_lab.report.plot_pareto import put_numbers
from i2v_lab.report.style import STYLES, NotebookFigure, error_bars, new_figure, tidy
from i2v_lab.report.words import Said, Words, phrase, said
from i2v_lab.statistics.prices import nearness
from i2v_lab.sweep.prices import priced_axes, with_prices

if TYPE_CHECKING:
    import pandas as pd

    from i2v_lab.sweep import Sweep, SweepResult

# As many decimals as a difference that may be seen has; more would be of the arithmetic.
_DECIMALS = {"time": 2, "memory": 2, "psnr": 1, "ssim": 3, "vmaf": 1, "first_frame_psnr": 1, "motion_kept": 2, "flicker_added": 2}
_SENTENCES = 3  # settings that are said in words
_NUMBERED = 9  # settings that the plot numbers


def speed_piece(result: SweepResult, sweep: Sweep, table: pd.DataFrame | None = None) -> Piece:
    """What speed costs, as a section; nothing where no lever was swept and no reference is named."""
    along = priced_axes(result.axes, sweep.reference)
    table = result.table() if table is None else table
    if not along or not len(table):
        return Piece("")
    priced = with_prices(table, result.axes, sweep.reference, result.folder)
    found = statistics.prices(priced, along)
    if not len(found):
        return Piece("")
    found = found.assign(label=[_label(row, along) for row in found[along].to_dict("records")])
    reference = next((_label(table.loc[row], along) for row in priced["reference"] if row is not None), "")
    sentences = [_sentence(row, nearness(found)) for row in _told(found)] or [phrase("speed.none")]
    lines = "".join(f"<p>{line.html()}</p>" for line in sentences)
    note = f"<p>{phrase('speed.said', reference=reference).html()}</p>"
    shown = scrolled(_table(found, along), phrase("speed.title"))
    text = "\n".join(line.en for line in sentences)
    return section("speed.title", note, lines, speed_plot(found).html(), shown, text=text)


def _label(row: Mapping[Any, Any] | pd.Series[Any], along: Sequence[str]) -> str:
    return ", ".join(f"{axis} {value_texts(axis, [row[axis]])[0] or '-'}" for axis in along)


def _told(found: pd.DataFrame) -> list[Any]:
    """The settings to say in words: those that no other beats, the nearest to the reference first, if they save time for sure."""
    front = found[found["front"]].sort_values(nearness(found), ascending=False)
    sure = front[front["time_high"].fillna(math.inf) < 1]
    return (sure if len(sure) else front).head(_SENTENCES).to_dict("records")


def _sentence(row: Mapping[Any, Any], near: str) -> Said:
    def write(say: Words) -> str:
        kept = say("speed.motion", motion=_span(row, "motion_kept")) if math.isfinite(row["motion_kept"]) else ""
        return say("speed.sentence", setting=row["label"], time=_span(row, "time"), name=say(f"speed.{near}"), near=_span(row, near), motion=kept,
                   clips=say.count(int(row["clips"]), "clips"))  # fmt: skip

    return said(write)


def _span(row: Mapping[Any, Any], name: str) -> str:
    """A mean with its interval, such as 0.52 (0.50 – 0.54); without one where there are too few seeds, or it is too narrow to be seen."""
    mean, low, high = (f"{row[key]:.{_DECIMALS[name]}f}" for key in (name, f"{name}_low", f"{name}_high"))
    return f"{mean} ({low} – {high})" if math.isfinite(row[f"{name}_low"]) and low != high else mean


def speed_plot(found: pd.DataFrame) -> NotebookFigure:
    """Time against VMAF, both compared with the reference; the settings that no other beats are joined and numbered."""
    named, near = found[found["front"]].sort_values("time").head(_NUMBERED), nearness(found)
    figure = new_figure(3.6 + 0.17 * len(named), width=6)
    panel = figure.subplots()
    look: dict[str, Any] = {"capsize": 3}
    kinds: list[tuple[pd.DataFrame, dict[str, Any]]] = [
        (
            found[~found["front"]],
            {"color": "#8c959f", "fmt": "o", "mfc": "white", "markersize": 5, "elinewidth": 0.5, "capthick": 0.5},
        ),
        (found[found["front"]].sort_values("time"), {"color": STYLES[1][0], "marker": "s", "markersize": 7, "linewidth": 1.4}),
    ]
    for rows, own in kinds:
        bars = [error_bars(rows, name, f"{name}_low", f"{name}_high") for name in ("time", near)]
        panel.errorbar(rows["time"], rows[near], xerr=bars[0], yerr=bars[1], **look, **own)
    panel.plot(1, 100, marker="*", color=STYLES[0][0], markersize=12, linestyle="", label="the reference")
    panel.set_xlim(0, 1.1 * max(1.0, float(found["time"].max())))
    panel.set_xlabel("time of a clip, of that of its reference")
    panel.set_ylabel(f"{FIELDS[near][0]} against the reference ↑")
    panel.legend(loc="lower right", frameon=False, fontsize=8)
    panel.margins(y=0.15)
    tidy(panel)
    figure.explain(phrase("speed.plot"), [drawable(str(label)) for label in named["label"]])
    points = [list(zip(rows["time"], rows[near], strict=True)) for rows in (named, found)]
    put_numbers(figure, panel, points[0], [*points[1], (1.0, 100.0)])
    return figure


_COLUMNS = ("time", "memory", *FIELDS)


def _table(found: pd.DataFrame, along: Sequence[str]) -> str:
    """A row a setting, each figure with its interval; those on the front are marked."""
    heads = ["<th></th>", *(f"<th>{escape(axis)}</th>" for axis in along)]
    heads += [f"<th>{text.html()}</th>" for text in (*(phrase(f"speed.{name}") for name in _COLUMNS), phrase("speed.clips"))]
    rows = []
    for row in found.sort_values("time").to_dict("records"):
        setting = [escape(value_texts(axis, [row[axis]])[0] or "-") for axis in along]
        cells = ["★" if row["front"] else "", *setting, *(_cell(row, name) for name in _COLUMNS), str(int(row["clips"]))]
        weight = ' style="font-weight:600"' if row["front"] else ""
        rows.append(f"<tr{weight}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(row: Mapping[Any, Any], name: str) -> str:
    if not math.isfinite(row[name]):
        return "–"
    digits = _DECIMALS[name]
    half = f"{(row[f'{name}_high'] - row[f'{name}_low']) / 2:.{digits}f}"
    shown = f"{row[name]:.{digits}f}"
    return shown if half == "nan" or not float(half) else f"{shown} ± {half}"
