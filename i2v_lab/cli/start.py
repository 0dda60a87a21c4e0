"""What `i2v-lab` alone and `i2v-lab --help` say: how to begin, then each command with a whole sentence."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

BEGIN = (
    ("i2v-lab demo", "A clip and a small sweep."),
    ('i2v-lab generate photo.jpg "zoom in"', "A clip of your own picture."),
    ("i2v-lab serve --open", "The studio, in a browser."),
)


class Commands(TyperGroup):
    """The commands, and how to begin with them."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What the program is, and how to begin."""
        super().format_help_text(ctx, formatter)
        with formatter.section("Begin with"):
            formatter.write_dl(BEGIN, col_max=40)


def first_sentence(text: str) -> str:
    """That of a command's help, for the list of commands: by itself click would cut it."""
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"i2v-lab {version('i2v_lab')}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find out what the parameters of an image-to-video model do."""
