"""The values of an axis: lists, ranges such as `6..16 step 2`, and search-and-replace in a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, get_args

import yaml

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError, meant, short
from i2v_lab.textfile import parse_yaml

MOST_VALUES = 10_000  # of one axis

_NUMBER = r"[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][+-]?\d{1,3})?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})(?:\s+(step|count)\s+({_NUMBER}))?\s*")
_REPLACE = re.compile(r"\s*(\S.*?)\s*->\s*(\S.*?)\s*", re.DOTALL)
PROMPTS = ("prompt", "negative_prompt")  # a comma in these belongs to the sentence


def check_names(place: str, names: Iterable[str], known: Iterable[str] = ClipParams.model_fields, kind: str = "name") -> None:
    """Raises SweepError where a name is not known: where it stands, what it is the name of, and which may be meant."""
    for name in names:
        if name not in known:
            raise SweepError(f"{place}: {name}: unknown {kind}; {meant(name, known)}")


def is_number(field: str) -> bool:
    """Whether a field of ClipParams holds a number, so that a range makes sense."""
    kind = ClipParams.model_fields[field].annotation
    return field == "fps" or kind in (int, float) or bool({int, float} & set(get_args(kind)))


def expand(field: str, given: Any, base: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """The values of one axis, in order, and a label for each.

    Args:
        field: a field of ClipParams.
        given: a list (of values, or of ranges too); a range `FIRST..LAST step STEP` or `FIRST..LAST count COUNT`, or
            `FIRST..LAST` between whole numbers; for prompt and negative_prompt `WORD -> [OTHER, ...]`; a text with commas (not for
            a prompt); or one value.
        base: the fields that all cells share; the word to replace is searched there.

    Returns:
        Values as ClipParams takes them; labels of the same length.

    Raises:
        SweepError: one line that names the field.
    """
    if field in PROMPTS and (arrow := _arrow(field, given)):
        return _replaced(field, *arrow, base)
    if isinstance(given, str):
        given = _split(field, given)
    values: list[Any] = []
    for value in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        if isinstance(value, str) and is_number(field) and ".." in value:
            values += numbers(value, field)
        elif value is None or isinstance(value, (dict, list, tuple)):
            raise SweepError(f"{field}: expected values such as [6, 9, 12] or 6..16 step 2, got {short(value)} among them")
        else:
            values.append(value)
    if not values:
        raise SweepError(f"{field}: expected at least one value, got none")
    if len(values) > MOST_VALUES:
        raise SweepError(f"{field}: expected at most {MOST_VALUES} values, got {len(values)}")
    return values, [str(value) for value in values]


def numbers(text: str, field: str) -> list[int | float]:
    """The numbers of a range: `0..1 step 0.4` is 0, 0.4, 0.8; `1..10 count 4` is 1, 4, 7, 10; `3..1 step -1` is 3, 2, 1.
    Between whole numbers the step may be left out: `1..3` is 1, 2, 3.

    Computed exactly, so that no value is above the last, and none is 0.30000000000000004. Whole numbers are int.

    Raises:
        SweepError: not of that form, a step of 0 or in the wrong direction, a count below 2.
    """
    match = _RANGE.fullmatch(text)
    if not match or not (match[3] or all(match[end].lstrip("+-").isdigit() for end in (1, 2))):
        raise SweepError(f"{field}: expected a range such as 1..6, 6..16 step 2 or 1..10 count 4, got {short(text)}")
    first, last, third = (Fraction(match[group] or 1) for group in (1, 2, 4))
    if match[3] != "count":
        if third == 0 or (last - first) / third < 0:
            way = "below" if last < first else "above"
            raise SweepError(f"{field}: an empty range: a step of {match[4] or 1} from {match[1]} never reaches {match[2]}; "
                             f"expected a step {way} 0")  # fmt: skip
        count, step = (last - first) // third + 1, third
    else:
        if third.denominator != 1 or third < 2:
            raise SweepError(f"{field}: expected a whole count of at least 2, got {match[4]} in {short(text)}")
        if first == last:
            raise SweepError(f"{field}: {match[4]} numbers from {match[1]} to {match[2]} are all the same; write {match[1]}")
        count, step = int(third), (last - first) / (third - 1)
    if count > MOST_VALUES:
        raise SweepError(f"{field}: expected at most {MOST_VALUES} values, got a range of {count}")
    exact = [first + number * step for number in range(int(count))]
    return [int(value) if value.denominator == 1 else float(value) for value in exact]


def _split(field: str, text: str) -> list[Any]:
    """The values in a text: a YAML list in brackets, or parts between commas."""
    stripped = text.strip()
    if stripped.startswith("[") and stripped.endswith("]"):
        with suppress(SweepError):
            if isinstance(found := parse_yaml(f"axis: {stripped}", SweepError, "an axis").get("axis"), list):
                return found
    if field in PROMPTS:
        return [text]
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise SweepError(f"{field}: expected values between the commas, got {short(text)}")
    return parts


def _arrow(field: str, given: Any) -> tuple[str, list[str]] | None:
    """(search, replacements) where an axis is written `WORD -> [OTHER, ...]`; None where it is not."""
    if not isinstance(given, str) or "->" not in given:
        return None
    if not (match := _REPLACE.fullmatch(given)):
        raise SweepError(f"{field}: expected WORD -> [OTHER, ...], got {short(given)}")
    right = match[2]
    if right.startswith("[") != right.endswith("]"):
        raise SweepError(f"{field}: expected WORD -> [OTHER, ...], got {short(given)}: a bracket is missing")
    # A base loader keeps every word as the text that was written (yes, 12).
    try:
        words = yaml.load(right if right.startswith("[") else f"[{right}]", yaml.BaseLoader)  # noqa: S506
    except yaml.YAMLError:
        words = []
    if not words or not all(isinstance(word, str) for word in words):
        raise SweepError(f"{field}: expected words to replace {match[1]!r}, such as [running, jumping], got {short(right)}")
    return match[1], words


def _replaced(field: str, search: str, words: list[str], base: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The prompts of a search-and-replace. The word itself comes first, as in other tools (prompt S/R), unless it is listed."""
    sentence = str(base.get(field, ""))
    if search not in sentence:
        raise SweepError(f"{field}: expected {search!r}, the word to replace, in the {field} of base, got {short(sentence)}")
    words = words if search in words else [search, *words]
    return [sentence.replace(search, word) for word in words], words
