"""The languages of the screens: English and Chinese. The command line and the names of parameters stay English.

A screen follows the browser's language and has a switch; where there is no browser (the kernel that executes a report), the
setting `language` decides which one is shown first. A page holds the texts of both: the switch needs no kernel.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

# What `both` writes: English is shown unless an element around it says data-lang="zh".
LANGUAGE_CSS = "[data-lang=zh] .i2v-en,.i2v-zh:not([data-lang=zh] *){display:none}"


class Texts:
    """The texts of one room: `texts("ready", "zh", count=3)`. They are in strings.json beside it: {key: [English, Chinese]}."""

    def __init__(self, package: str) -> None:
        self._texts: Mapping[str, list[str]] = _read(package)

    def __call__(self, key: str, language: Language = "en", **values: object) -> str:
        text = self._texts[key][LANGUAGES.index(language)]
        return text.format(**values) if values else text

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def both(self, key: str, **values: object) -> str:
        """HTML in both languages, escaped; LANGUAGE_CSS shows one."""
        return both(*(escape(self(key, language, **values)) for language in LANGUAGES))

    def page(self) -> dict[str, dict[str, str]]:
        """{language: {key: text}}, as a script takes it."""
        return {language: {key: pair[place] for key, pair in self._texts.items()} for place, language in enumerate(LANGUAGES)}


@cache
def _read(package: str) -> dict[str, list[str]]:
    found = json.loads(files(package).joinpath("strings.json").read_text(encoding="utf-8"))
    return dict(found.get("texts", found))


def both(english: str, chinese: str) -> str:
    """Two pieces of HTML that say the same; one where they are equal."""
    if english == chinese:
        return english
    return f'<span class="i2v-en" lang="en">{english}</span><span class="i2v-zh" lang="zh">{chinese}</span>'


def system_language() -> Language:
    """The language of this machine's user, by the variables of POSIX; English where they name another."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if found := os.environ.get(name, ""):
            return "zh" if found.lower().startswith("zh") else "en"
    return "en"
