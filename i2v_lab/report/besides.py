"""One line that says what differs between the models of a sweep besides the model: sizes, lengths, rates, steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from i2v_lab import models
from i2v_lab.clip.params import OPTIONAL, ClipParams, resolution_size
from i2v_lab.report.player.grid import plain_values, text_of, value_order, value_texts
from i2v_lab.report.words import Words

if TYPE_CHECKING:
    import pandas as pd

# In this order, before all others.
_FIRST = ("resolution", "num_frames", "fps", "num_inference_steps", "guidance_scale", "scheduler", "actual_dtype", "actual_tier")
_LONG = ("prompt", "negative_prompt", "lora")  # too long for a line
_ASIDE = ("model", "image", "dtype", "seconds")  # what came of dtype and seconds is in other columns
_NOT_READ = "–"


def besides_model(table: pd.DataFrame, axes: Sequence[str], say: Words) -> str:
    """What differs between the models besides the model, in one line; "" where no models are compared.

    Each field has one text a model, in the order of the models. An option that one model alone reads is left out.
    """
    if len(names := _models(table, axes)) < 2:
        return ""
    parts = []
    for field, texts in differences(table, axes, say("or")).items():
        shown = [text if field not in _LONG or text == _NOT_READ else say("own") for text in texts]
        name = say.known(f"besides.{field}", field.replace("_", " "))
        parts.append(say("besides_part", field=name, texts=" / ".join(shown)))
    listed = " / ".join(value_texts("model", names))
    line = say("besides", models=listed, parts=say("comma").join(parts) or say("besides_none"))
    return line + (say("besides_not_read") if _NOT_READ in line else "")


def differences(table: pd.DataFrame, axes: Sequence[str], either: str = " or ") -> dict[str, list[str]]:
    """{field: its text in each model}, of the fields that differ between the models.

    What is an axis itself is left out: it is varied alike for all models. So is an option that a single model reads: it is a part of
    that model. Several values of one model are joined by `either`.
    """
    names = _models(table, axes)
    done = table[table["status"] == "done"] if "status" in table else table
    rows = {name: found if len(found := done[done["model"] == name]) else table[table["model"] == name] for name in names}
    reads = {name: _reads(name, found) for name, found in rows.items()}
    fields = dict.fromkeys([*_FIRST, *ClipParams.model_fields])
    known = [field for field in fields if field in table and field not in (*axes, *_ASIDE)]
    texts = {
        field: [_text(field, rows[name], either, reads=field not in OPTIONAL or field in reads[name]) for name in names]
        for field in known
    }
    return {
        field: own
        for field, own in texts.items()
        if len(set(own)) > 1 and (field == "prompt" or len(own) - own.count(_NOT_READ) > 1)
    }


def _models(table: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    return value_order("model", plain_values(table, "model")) if "model" in axes else []


def _reads(model: str, rows: pd.DataFrame) -> frozenset[str]:
    """The optional fields that a model reads; all where its family is not known."""
    known = [text_of(name) for name in rows["model_name"]] if "model_name" in rows else []
    name = next(filter(None, known), model)
    return models.family(name).reads if models.is_family(name) else frozenset(OPTIONAL)


def _text(field: str, rows: pd.DataFrame, either: str, *, reads: bool) -> str:
    """The values of a field in the cells of one model."""
    values = value_order(field, plain_values(rows, field)) if reads else []
    texts = [_value(field, value) for value in values if value not in (None, "")]
    return either.join(dict.fromkeys(texts)) or _NOT_READ


def _value(field: str, value: Any) -> str:
    if field == "resolution":
        return "x".join(map(str, resolution_size(value)))
    return f"{value:g}" if isinstance(value, float) else str(value)
