"""The scripts and styles of the player. A script is in several files, which are joined here: there is no build step."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

PLAYER = (
    "player_base.js",
    "player_clip.js",
    "player_clock.js",
    "player_order.js",
    "player_pair.js",
    "player_opinions.js",
    "player_code.js",
    "player.js",
)


@cache
def joined(*names: str, package: str = "i2v_lab.report.player") -> str:
    """The files of a package's folder, one after the other."""
    folder = files(package)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def player_script() -> str:
    """A module that exports `mount`; see player.js."""
    return joined(*PLAYER)
