"""Numbers and names as the sentences of a report write them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from i2v_lab.metrics import METRICS

_DIGITS = 4  # of a number, at most


def title(metric: str) -> str:
    """What a metric is called, from its name or its column."""
    known = METRICS.get(metric.removeprefix("metric_"))
    found = known.title if known else metric.removeprefix("metric_")
    return found[:1].upper() + found[1:] + (" (proxy)" if known and known.proxy else "")


def in_line(metric: str) -> str:
    """Its title within a sentence."""
    found = title(metric)
    return found[:1].lower() + found[1:]


def number(value: float, *, sign: bool = False) -> str:
    """A number that has no interval, in three digits."""
    plus = "+" if sign else ""
    return f"{value:{plus}.3g}" if abs(value) < 1000 else f"{value:{plus}.0f}"


def to_digits(value: float, half: float, *, sign: bool = False) -> str:
    """A number with the digits that its interval of half this width allows: two of the width."""
    if math.isnan(half) or half <= 0:
        return number(value, sign=sign)
    places = max(0, 1 - math.floor(math.log10(half)))
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:{'+' if sign else ''}.{max(0, min(places, _DIGITS - whole))}f}"


def span_text(change: float, low: float, high: float) -> str:
    """A change with its interval: +0.58 (+0.31 to +0.85)."""
    if math.isnan(low):
        return number(change, sign=True)
    half = (high - low) / 2
    ends = ["0" if end == 0 else to_digits(end, half, sign=True) for end in (low, high)]
    return f"{to_digits(change, half, sign=True)} ({ends[0]} to {ends[1]})"


def p_text(p: float) -> str:
    """p of a permutation test, which is never 0."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}" if words else ""
