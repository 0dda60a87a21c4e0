"""The line that says what a clip will take before it is made, by the planner; nothing where it has nothing to say."""

from __future__ import annotations

import logging
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import I2VLabError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep.planning import duration
from i2v_lab.widgets.studio.strings import Words
from i2v_lab.widgets.studio.text import escape

log = logging.getLogger(__name__)


def outlook(params: ClipParams, store: Store, settings: Settings, words: Words) -> tuple[str, float | None]:
    """(HTML, seconds expected). It may take seconds: not for the kernel's main thread."""
    try:
        from i2v_lab.cost import plan  # not before it is needed: it imports torch

        found: Any = plan(params, device=None if settings.device == "auto" else settings.device, store=store)
    except ImportError:
        return "", None
    except I2VLabError as error:
        return f'<span class="i2vs-error">{escape(words.line(str(error)))}</span>', None
    except Exception:
        log.exception("no plan")
        return "", None
    mark = "fits" if found.fits else "not"
    return f'<span class="{mark}" title="{escape(found.sentence())}">{escape(words.outlook(found, duration))}</span>', found.seconds


def progress(job: Any, words: Words) -> str:
    """HTML: where a job is: its stages, a bar, the time left."""
    parts = []
    if job.sweep and job.standing:
        parts.append(_sweep(job.standing, words))
    elif job.state == "running":
        parts.append(_stages(job, words))
    left = (
        f'<span class="i2vs-left-time">{escape(words("left").format(time=duration(job.seconds_left)))}</span>'
        if job.seconds_left
        else ""
    )
    note = f'<span class="i2vs-note">{escape(words.line(job.note))}</span>' if job.note else ""
    return f'<div class="i2vs-progress">{"".join(parts)}<div class="i2vs-below">{note}{left}</div></div>'


STAGES = ("load", "encode", "denoise", "decode", "write")


def _stages(job: Any, words: Words) -> str:
    chips = []
    for name in STAGES:
        state, count = "", ""
        if name == job.stage:
            state, count = "now", f" {job.step}/{job.steps}" if job.steps else ""
        elif name in job.stages:
            state, count = "done", f" {duration(job.stages[name])}"
        chips.append(f'<span class="{state}">{escape(words.stage(name))}<small>{count}</small></span>')
    bar = f'<progress max="{job.steps}" value="{job.step}"></progress>' if job.steps else '<progress max="1"></progress>'
    if not job.stage:
        bar = '<progress max="1" value="0"></progress>'
    return f'<div class="i2vs-stages">{"".join(chips)}</div>{bar}'


def _sweep(standing: Any, words: Words) -> str:
    ended = standing.done + standing.failed
    told = words("cells_done").format(done=standing.done, cells=standing.cells)
    if standing.failed:
        told += words("cells_failed").format(failed=standing.failed)
    if standing.cell and not standing.over:
        stage = f"{words.stage(standing.stage)} {standing.step}/{standing.steps}" if standing.steps else words.stage(standing.stage)
        told += f" · {standing.label}" + (f" · {stage}" if standing.stage else "")
    note = f'<div class="i2vs-note">{escape(words.line(standing.note))}</div>' if standing.note not in ("", "over") else ""
    return f'<div class="i2vs-told">{escape(told)}</div><progress max="{max(standing.cells, 1)}" value="{ended}"></progress>{note}'
