"""The line that predicts what a clip will take, and the lines that say how far a job is."""

from __future__ import annotations

import json
import logging
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.cost.timing import duration
from i2v_lab.errors import I2VLabError, Message
from i2v_lab.jobs import JobStatus
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job
from i2v_lab.widgets.studio.html import escape
from i2v_lab.widgets.studio.strings import Strings

log = logging.getLogger(__name__)


def forecast_line(params: ClipParams, store: Store, settings: Settings, strings: Strings) -> tuple[str, float | None]:
    """(HTML, seconds expected); ("", None) where nothing can be predicted. It may take seconds: not for the kernel's main thread."""
    try:
        from i2v_lab.cost import plan  # not before it is needed: it imports torch

        found: Any = plan(params, device=settings.device, store=store, parallel=settings.parallel)
    except ImportError:
        return "", None
    except I2VLabError as error:
        return f'<span class="i2vs-error">{escape(strings.say(error.message))}</span>', None
    except Exception:
        log.exception("no plan")
        return "", None
    mark = "fits" if found.fits else "not"
    return f'<span class="{mark}" title="{escape(found.sentence())}">{escape(strings.forecast(found))}</span>', found.seconds


def job_progress(status: JobStatus, strings: Strings) -> str:
    """HTML: how far a running job is: its stages, a bar, the time left."""
    job = status.job
    known: dict[str, Any] = json.loads(job.status or "{}")
    shown = _sweep(job, known, strings) if job.kind != "clip" and known else _stages(status, known.get("stages", {}), strings)
    text = Message(known.get("note", ""), known.get("code", ""), **known.get("values", {}))
    note = f'<span class="i2vs-note">{escape(strings.say(text))}</span>' if text not in ("", "over") else ""
    time = strings("left").format(time=duration(status.seconds_left)) if status.seconds_left else ""
    left = f'<span class="i2vs-left-time">{escape(time)}</span>' if time else ""
    return f'<div class="i2vs-progress">{shown}<div class="i2vs-below">{note}{left}</div></div>'


STAGES = ("load", "encode", "denoise", "decode", "write", "measure")
RARE = ("calibrate", "convert")  # stages that few clips have


def _stages(status: JobStatus, ended: dict[str, float], strings: Strings) -> str:
    job = status.job
    chips = []
    for name in (*STAGES[:1], *(name for name in RARE if name in (job.stage, *ended)), *STAGES[1:]):
        state, count = "", ""
        if name == job.stage:
            state, count = "now", f" {job.step}/{job.steps}" if job.steps else ""
        elif name in ended:
            state, count = "done", f" {duration(ended[name])}"
        chips.append(f'<span class="{state}">{escape(strings.named("stage", name))}<small>{count}</small></span>')
    bar = '<progress max="1"></progress>' if job.stage in (*RARE, *STAGES) else '<progress max="1" value="0"></progress>'
    if job.steps:
        bar = f'<progress max="{job.steps}" value="{job.step}"></progress>'
    return f'<div class="i2vs-stages">{"".join(chips)}</div>{bar}'


def _sweep(job: Job, known: dict[str, Any], strings: Strings) -> str:
    text = strings("cells_done").format(**known)
    if known["failed"]:
        text += strings("cells_failed").format(**known)
    workers = [f"{one['host']} {one['device_name']}: {_at(one, strings)}" for one in known.get("workers", ()) if one["cell"]]
    if known["cell"] and not known["over"] and not workers:
        text += f" · {_at(known, strings)}"
    if job.stage == "report":
        bar = '<progress max="1"></progress>'
        return f'<div class="i2vs-told">{escape(text)} · {escape(strings("making_report"))}</div>{bar}'
    ended, cells = known["done"] + known["failed"], max(known["cells"], 1)
    lines = "".join(f"<div>{escape(line)}</div>" for line in workers)
    return f'<div class="i2vs-told">{escape(text)}{lines}</div><progress max="{cells}" value="{ended}"></progress>'


def _at(known: dict[str, Any], strings: Strings) -> str:
    """Which cell is made, by the sweep or by a worker of it, and how far it is."""
    steps = f" {known['step']}/{known['steps']}" if known["steps"] else ""
    return known["label"] + (f" · {strings.named('stage', known['stage'])}{steps}" if known["stage"] else "")
