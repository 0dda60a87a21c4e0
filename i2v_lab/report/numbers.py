"""Numbers as the sentences of a report write them."""

from __future__ import annotations

import math

_DIGITS = 4  # of a number, at most


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


def ends_text(change: float, low: float, high: float) -> list[str]:
    """A change and the ends of its interval, each with its sign; the change alone where it has none."""
    if math.isnan(low):
        return [number(change, sign=True)]
    half = (high - low) / 2
    return [to_digits(change, half, sign=True), *("0" if end == 0 else to_digits(end, half, sign=True) for end in (low, high))]


def p_text(p: float) -> str:
    """p of a permutation test, which is never 0."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
