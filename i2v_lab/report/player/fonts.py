"""Text in pictures: a font that has its letters, and lines wrapped to a width."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from PIL import ImageFont

from i2v_lab.errors import printable

# Fonts of common systems with Chinese, Japanese and Korean letters, which DejaVu lacks.
_WIDE_FONTS = re.compile(r"CJK|WenQuanYi|YaHei|PingFang|SimHei|Heiti|Droid Sans Fallback|Source Han|Arial Unicode|Hiragino|Malgun")


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships, or a font of the system where the text has letters that DejaVu lacks."""
    return _face(font_file(text), size)


@cache
def _face(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size, layout_engine=ImageFont.Layout.BASIC)  # raqm is not installed everywhere


def font_file(text: str) -> str:
    """The file of a font for the text: DejaVu Sans unless it lacks letters and a font of the system has more of them."""
    dejavu, *others = _fonts()
    if not _lacking(dejavu, text):
        return dejavu
    return min([dejavu, *others], key=lambda name: len(_lacking(name, text)))


@cache
def _fonts() -> list[str]:
    from matplotlib import font_manager

    listed = font_manager.fontManager.ttflist  # cached by matplotlib: a font may have been removed since
    others = [found.fname for found in listed if _WIDE_FONTS.search(found.name) and Path(found.fname).is_file()]
    return [font_manager.findfont("DejaVu Sans"), *others]


@cache
def _letters(name: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(name).get_charmap())


def _lacking(name: str, text: str) -> set[str]:
    return {letter for letter in text if ord(letter) not in _letters(name) and not letter.isspace()}


def drawable(text: str) -> str:
    """The text as it can be drawn: characters that no font here has, or that cannot be printed, as \\u8d70."""
    lacking = _lacking(font_file(text), text)
    escaped = "".join(ascii(letter)[1:-1] if letter in lacking else letter for letter in text)
    return printable(" ".join(escaped.split()))


def wrap(text: str, width: int, size: int) -> list[str]:
    """The text in lines that are at most `width` pixels wide: broken between words, or within one that is too long."""

    def fits(line: str) -> bool:
        return font(size, line).getlength(line) <= width

    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and not fits(lines[-1] + letter):
                lines.append("")
            lines[-1] += letter
    return lines
