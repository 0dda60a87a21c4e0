"""Clips as the studio shows them: cards with posters, the bytes that a page plays, the facts of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.cost.timing import duration
from i2v_lab.errors import ClipError, I2VLabError
from i2v_lab.report.player import media
from i2v_lab.run import script_of
from i2v_lab.store import Store
from i2v_lab.widgets.studio.html import escape, shown_path
from i2v_lab.widgets.studio.strings import Strings

LATEST = 60  # cards of the strip
POSTERS_AT_ONCE = 6  # between two updates of a strip that fills
PLAYED_BYTES_MAX = 24_000_000  # through the kernel's connection; a larger clip is played as a small copy
MIMES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}


def poster(clip: Path) -> bytes:
    """JPEG of the first frame; b"" where the file cannot be read."""
    try:
        return _poster(clip, clip.stat().st_mtime_ns)
    except (OSError, ClipError):
        return b""


@lru_cache(maxsize=1000)
def _poster(clip: Path, changed: int) -> bytes:
    return media.poster(clip)


def played(clip: Path) -> tuple[bytes, str, bool]:
    """(bytes that a page can play, their mime, whether it is a small copy).

    Raises:
        ClipError: the file cannot be read.
    """
    try:
        if clip.stat().st_size <= PLAYED_BYTES_MAX:
            return clip.read_bytes(), MIMES[clip.suffix.lower()], False
    except (OSError, KeyError) as error:
        raise ClipError(f"{clip}: expected a clip (mp4, webm or gif) that can be read: {error}") from None
    return media.proxy(video.probe(clip)), "video/mp4", True


def clip_of(record: RunRecord, store: Store) -> Path | None:
    """The file of a run's clip, if it is still there."""
    path = store.directory / record.clip
    return path if record.clip and path.is_file() else None


def card(record: RunRecord, store: Store, strings: Strings, image: bytes) -> dict[str, Any]:
    """A run as an item of the strip."""
    params = record.params
    prompt = params.prompt if params else ""
    return {
        "id": record.id,
        "status": record.status if record.status != "done" or clip_of(record, store) else "gone",
        "caption": prompt or strings("no_prompt"),
        "detail": strings("detail").format(guidance=f"{params.guidance_scale:g}", seed=params.seed) if params else "",
        "title": "\n".join(filter(None, [prompt, summary(params, strings) if params else "", record.reason])),
        "note": record.reason,
        "poster": image,
    }


def cards(records: list[RunRecord], store: Store, strings: Strings) -> Iterator[list[dict[str, Any]]]:
    """The cards of some runs, several times while posters are made, so that a strip fills from its beginning."""
    found = [card(record, store, strings, b"") for record in records]
    made = 0
    for place, record in enumerate(records):
        if clip := clip_of(record, store):
            found[place]["poster"] = poster(clip)
            made += 1
            if made % POSTERS_AT_ONCE == 0:
                yield found[: place + 1]
    yield found


def summary(params: ClipParams, strings: Strings) -> str:
    """The main parameters in a line: `256p · 16 frames · 25 steps · guidance 9 · seed 0`."""
    return strings("summary").format(
        resolution=params.resolution, frames=params.num_frames, steps=params.num_inference_steps,
        guidance=f"{params.guidance_scale:g}", seed=params.seed,
    )  # fmt: skip


def facts(record: RunRecord, store: Store, strings: Strings, *, made_before: bool = False, copy: bool = False) -> str:
    """HTML: where the clip is, what it cost, and all its settings."""
    rows = []
    if clip := clip_of(record, store):
        size = f" · {(record.file_bytes or 0) / 1e6:.2f} MB" if record.file_bytes else ""
        path = escape(shown_path(clip.resolve())).replace("/", "/<wbr>")
        rows.append((strings("saved"), f"<code>{path}</code>{size}"))
    stages = " · ".join(
        f"{escape(strings.named('stage', name))} {duration(took)}" for name, took in record.seconds.items() if name != "total"
    )
    if total := record.seconds.get("total"):
        rows.append((strings("time"), f"<b>{duration(total)}</b>" + (f" <small>{stages}</small>" if stages else "")))
    memory = [(strings("vram"), record.peak_vram_reserved_gib), (strings("ram"), record.peak_ram_gib)]
    used = ", ".join(f"{name} {gib:.2f} GiB" for name, gib in memory if gib)
    if used and record.predicted_peak_gib:
        used += f" ({strings('predicted')} {record.predicted_peak_gib:.2f})"
    if used and record.actual_tier:
        used += strings("on_tier").format(tier=record.actual_tier)
    if used:
        where = f" <small>{escape(record.device)}, {escape(record.device_name)}</small>" if record.device else ""
        rows.append((strings("memory"), f"{used}{where}"))
    metrics = " · ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in record.metrics.items() if value is not None)
    fold = f"<details><summary>{escape(strings('metrics'))}</summary><small>{escape(metrics)}</small></details>" if metrics else ""
    notes = [*record.notes, *([strings("made_before")] if made_before else []), *([strings("small_copy")] if copy else [])]
    if notes:
        rows.append((strings("notes"), escape("; ".join(notes))))
    about = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<dl class="i2vs-facts">{about}</dl>' + (settings(record.params, strings) if record.params else "") + fold


def settings(params: ClipParams, strings: Strings) -> str:
    """HTML: every parameter; those that are not at their defaults are marked."""
    defaults = {name: about.get("default") for name, about in ClipParams.model_json_schema()["properties"].items()}
    defaults["fps"] = int(defaults["fps"])
    rows = []
    for name, value in params.plain().items():
        changed = ' class="changed"' if value != defaults[name] else ""
        shown = f"{value:g}" if isinstance(value, float) else value if value != "" else "–"
        rows.append(
            f'<dt title="{escape(name)}">{escape(strings.label(name))}</dt><dd{changed} data-field="{name}">{escape(shown)}</dd>'
        )
    return f'<dl class="i2vs-settings">{"".join(rows)}</dl>'


def script(clip: Path, store: Store) -> str:
    """The clip as a script of its own; "" where its model has none."""
    try:
        return script_of(clip, store)
    except I2VLabError:
        return ""


@contextmanager
def faults_in(line: Any, strings: Strings) -> Iterator[None]:
    """What goes wrong within is shown in this HTML widget."""
    try:
        yield
    except I2VLabError as error:
        line.value = error_line(error, strings)


def error_line(text: str | I2VLabError, strings: Strings) -> str:
    """HTML of one line that says what went wrong and what to do."""
    return f'<span role="alert" class="i2vs-error">{escape(strings.say(text.message if isinstance(text, I2VLabError) else text))}</span>'
