"""The top of a report: what was asked in words, and one line with picture, prompt, model, device, date and cost."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from html import escape
from io import BytesIO
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from PIL import Image

from i2v_lab.clip.picture import open_picture
from i2v_lab.cost.timing import duration
from i2v_lab.errors import PictureError
from i2v_lab.report.numbers import number
from i2v_lab.report.pieces import Piece
from i2v_lab.report.player.grid import plain_values, text_of, value_order, value_texts
from i2v_lab.report.words import Said, Words, said
from i2v_lab.statistics import peak_memory

if TYPE_CHECKING:
    import pandas as pd

    from i2v_lab.sweep import SweepResult

_NAMED = 4  # values that a title names
_LONG = 24  # characters of a value in a title
_PICTURES = 4  # that are shown
_SIDE = 72  # pixels of a picture, shown at half of that on fine screens
_COUNTED = 12  # numbers up to this one are words


def title(table: pd.DataFrame, axes: Sequence[str]) -> Said:
    """What a sweep asks, in words: "Guidance 1 to 13, three seeds, on a coffee cup"."""
    return said(lambda say: _title(table, axes, say))


def _title(table: pd.DataFrame, axes: Sequence[str], say: Words) -> str:
    parts, followed = [], set()
    columns = {axis: plain_values(table, axis) for axis in axes if axis in table}
    for axis, values in columns.items():
        if axis in ("seed", "image") or len(set(values)) < 2 or axis in followed:
            continue
        own = [axis, *(other for other in columns if other not in (axis, "seed", "image") and _together(values, columns[other]))]
        followed |= set(own)
        parts.append(say("title.with").join(_values(table, name, say) for name in own))
    seeds = len(set(columns.get("seed", ()))) or 1
    if seeds > 1:
        parts.append(say.count(seeds, "seeds") if say.language == "zh" else _counted(seeds, say) + say("title.seeds"))
    pictures = value_order("image", plain_values(table, "image")) if "image" in table else []
    if len(pictures) == 1 and pictures[0]:
        parts.append(say("title.on", picture=_picture(pictures[0], say)))
    elif len(pictures) > 1:
        parts.append(say("title.on_many", count=_counted(len(pictures), say)))
    text = say("title.join").join(parts) or say("title.clip")
    return text[:1].upper() + text[1:]


def _together(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two axes change together."""
    return len(set(values)) == len(set(others)) == len(set(zip(values, others, strict=True)))


def _values(table: pd.DataFrame, axis: str, say: Words) -> str:
    order = [value for value in value_order(axis, plain_values(table, axis)) if value is not None]
    texts = value_texts(axis, order)
    if len(order) > 2 and all(isinstance(value, (int, float)) for value in order):
        shown = say("title.range", low=texts[0], high=texts[-1])
    elif len(texts) <= _NAMED and all(len(text) <= _LONG for text in texts):
        shown = say.listed(texts)
    else:
        return say("title.many", count=_counted(len(texts), say), axis=say.known(f"axes.{axis}", say.axis(axis)))
    return say("title.axis", axis=say.axis(axis), values=shown)


def _counted(number: int, say: Words) -> str:
    return say(f"number.{number}") if number <= _COUNTED else str(number)


def _picture(source: str, say: Words) -> str:
    return say.known(source, PurePath(source.replace("\\", "/")).name or source)


def heading(table: pd.DataFrame, axes: Sequence[str], result: SweepResult | None = None) -> Piece:
    """The title, and a line: picture, prompt, model, device, date and cost; how the run ended where clips are missing."""
    own = title(table, axes)
    facts = said(lambda say: say("facts.join").join(filter(None, _facts(table, say))))
    prompts = _distinct(table, "prompt")
    prompt = f"<q>{escape(prompts[0])}</q> · " if len(prompts) == 1 else ""
    ended = []
    if result and not result.complete:
        done, cells = result.counts.get("done", 0), sum(result.counts.values())
        ended.append(said(lambda say: say("ended", done=done, cells=cells) + (f" · {result.stopped}" if result.stopped else "")))
    if len(names := _distinct(table[table["status"] == "done"], "device_name")) > 1:  # a cluster may have several kinds
        ended.append(said(lambda say: say("devices", count=len(names), names=say.listed(names))))
    body = f'<h1>{own.html()}</h1><div class="i2v-facts">{_pictures(table)}<p>{prompt}{facts.html()}</p></div>'
    return Piece(body + "".join(f'<p class="i2v-ended">{line.html()}</p>' for line in ended), own.en)


def _distinct(table: pd.DataFrame, column: str) -> list[str]:
    """The texts of a column, each once."""
    texts = dict.fromkeys(map(text_of, plain_values(table, column))) if column in table else {}
    return list(filter(None, texts))


def _facts(table: pd.DataFrame, say: Words) -> list[str]:
    """Model, device, date, cost."""
    done = table[table["status"] == "done"]

    def few(column: str) -> str:
        names = _distinct(done, column)
        return say.listed(names) if len(names) <= _NAMED else ""

    prompts = len(set(plain_values(table, "prompt"))) if "prompt" in table else 1
    date = ""
    if "created" in table and len(created := table["created"].dropna()):
        moment = created.max().to_pydatetime()
        date = f"{(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone():%Y-%m-%d}"
    return [say.count(prompts, "prompts") if prompts > 1 else "", few("model_name"), few("device_name"), date, _cost(done, say)]


def _cost(done: pd.DataFrame, say: Words) -> str:
    if not len(done):
        return say.count(0, "clips")
    seconds = done["seconds_total"].astype("float64")
    cost = say("facts.cost", clips=say.count(len(done), "clips"), time=duration(float(seconds.sum())))
    memory, kind = peak_memory(done)
    return cost + (say("facts.memory", kind=say.known(kind, kind), gib=number(float(memory.max()))) if memory.notna().any() else "")


def _pictures(table: pd.DataFrame) -> str:
    found = []
    for source in value_order("image", plain_values(table, "image"))[:_PICTURES] if "image" in table else ():
        with suppress(PictureError, TypeError, ValueError):
            picture = Image.fromarray(open_picture(source).rgb)
            picture.thumbnail((4 * _SIDE, 2 * _SIDE))
            buffer = BytesIO()
            picture.save(buffer, format="JPEG", quality=82)
            data = base64.b64encode(buffer.getvalue()).decode()
            name = escape(_picture(str(source), Words("en")), quote=True)
            found.append(f'<img src="data:image/jpeg;base64,{data}" height="{_SIDE}" alt="{name}">')
    return "".join(found)
