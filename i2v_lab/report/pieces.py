"""Pieces of a report as HTML in both languages, which a notebook shows and report.html holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from i2v_lab.language import LANGUAGE_CSS, LANGUAGES, system_language
from i2v_lab.report.words import Said, phrase
from i2v_lab.settings import load_settings

# What an attribute hides stays hidden in a viewer that removes styles; where there are styles, the switch shows it. JupyterLab removes an
# attribute without a value too.
_SHOW_CSS = "[data-lang=zh] .i2v-zh[hidden]{display:inline}[data-lang=en] .i2v-en[hidden]{display:inline}"


@dataclass(frozen=True)
class Piece:
    """A part of a report; a notebook shows it.

    Attributes:
        body: HTML in both languages. text: what it is where HTML is not shown.
    """

    body: str
    text: str = ""

    def _repr_html_(self) -> str:
        return framed(self.body)

    def __repr__(self) -> str:
        return self.text


@cache
def report_css() -> str:
    """The style of all pieces; a page has it once, a notebook in each piece."""
    return LANGUAGE_CSS + _SHOW_CSS + files("i2v_lab.report").joinpath("report.css").read_text(encoding="utf-8")


def framed(body: str) -> str:
    """The piece with its style; of each text the other language is hidden, also where a viewer removes the style."""
    chosen = load_settings().language
    shown = system_language() if chosen == "auto" else chosen
    (other,) = (language for language in LANGUAGES if language != shown)
    body = body.replace(f'<span class="i2v-{other}"', f'<span hidden="hidden" class="i2v-{other}"')
    return f'<style>{report_css()}</style><div class="i2v-report" data-lang="{shown}">{body}</div>'


def section(key: str, *parts: str, text: str = "") -> Piece:
    """A section with its heading, the text `key` of strings.json. `text`: what it is where HTML is not shown, if not the heading."""
    title = phrase(key)
    return Piece(f"<h2>{title.html()}</h2>" + "".join(parts), text or title.en)


def folded(summary: Said, body: str, *, opened: bool = False) -> str:
    """A part that opens on a click."""
    return f"<details{' open' * opened}><summary>{summary.html()}</summary>{body}</details>"


def scrolled(body: str, name: Said) -> str:
    """A part that may be wider than the page; the keyboard reaches it."""
    return f'<div class="i2v-wide" tabindex="0" role="region" aria-label="{name.en}">{body}</div>'
