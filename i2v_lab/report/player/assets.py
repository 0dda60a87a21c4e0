"""The scripts and styles of the player. A script is in several files, which are joined here: there is no build step."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from i2v_lab.language import LANGUAGES, Texts

texts = Texts(__package__)
BASE = ("player_base.js", "player_looks.js")
PLAYER = (
    "player_clip.js",
    "player_clock.js",
    "player_axes.js",
    "player_order.js",
    "player_pair.js",
    "player_layout.js",
    "player_pairing.js",
    "player_opinions.js",
    "player_code.js",
    "player.js",
)


@cache
def joined(*names: str, package: str = "i2v_lab.report.player") -> str:
    """The files of a package's folder, one after the other."""
    folder = files(package)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def base_script() -> str:
    """What the player and the table of runs share, with the texts of both in each language."""
    return f"const TEXTS = {json.dumps(texts.page(), ensure_ascii=False)};\n{joined(*BASE)}"


def player_script() -> str:
    """A module that exports `mount`; see player.js."""
    return f"{base_script()}\n{joined(*PLAYER)}"


def said(key: str, **values: object) -> list[str]:
    """A text in all languages, as player.js takes a note."""
    return [texts(key, language, **values) for language in LANGUAGES]
