"""Clips side by side, in step: any runs, any files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from i2v_lab.errors import InputError
from i2v_lab.report.player.facts import BestIs
from i2v_lab.report.player.view import View, clip_view, differing

if TYPE_CHECKING:
    from i2v_lab.store.opinions import Opinions
    from i2v_lab.widgets.clip_player import ClipPlayer

__all__ = ["View", "clip_view", "compare", "differing"]


def compare(
    runs: Any,
    *,
    axes: Sequence[str] | None = None,
    rows: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    best: str = "",
    best_is: BestIs | None = None,
    opinions: Opinions | None = None,
    reference: Mapping[str, Any] | None = None,
    fps: float = 8,
) -> ClipPlayer:
    """Clips side by side, playing in step, labelled with what differs among them.

        compare(runs().tail(6))
        compare(["a.mp4", "b.webm"])
        compare("clips/*.mp4")
        compare({"before": "a.mp4", "after": frames})

    Args:
        runs: a table such as runs() gives, or an output folder; clips' files, folders and patterns (`clips/*.mp4`), in MP4, WebM,
            MOV, MKV, AVI, GIF or animated WebP; frames, uint8 (F, H, W, 3); a list of these; or {name: one of these}. Files
            that carry settings show them; others, their names. What a browser does not play is shown as a copy.
        axes: columns that make the rows and columns; by default the parameters that differ. Where two runs do not differ,
            each is named by its file.
        rows, columns: axes to put there instead; the others go with the rows.
        best: a column of numbers, or a metric without its metric_: the clip with the best value is marked.
        best_is: which value is the best: lowest or highest; by default as the metric says, and for a cost the lowest.
        fps: of frames that are given as arrays.
        reference: {axis: value} of the clips that a button shows the others against, such as {"num_inference_steps": 50}; by default,
            where a lever differs, those without one and with the most steps.
        opinions: i2v_lab.store.opinions.Opinions(store): each clip can be given stars and a note, which are stored there.

    Returns:
        A widget; its `show(runs, ...)` shows other clips in the same place.

    Raises:
        InputError: no table of runs and no files; an axis or `best` is not a column; widgets are not installed.
    """
    view = clip_view(runs, axes=axes, rows=rows, columns=columns, best=best, best_is=best_is, reference=reference, fps=fps)
    try:
        from i2v_lab.widgets.clip_player import ClipPlayer
    except ImportError as error:
        raise InputError(
            f"compare: the notebook's widgets are not installed ({error}): pip install 'i2v_lab[lab]', or use i2v_lab.report.clip_grid"
        ) from None
    return ClipPlayer(view, opinions)
