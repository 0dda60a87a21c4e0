"""What `i2v-lab` alone and `i2v-lab --help` say: how to begin, then each command with a whole sentence."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

BEGIN = {
    "demo": ("i2v-lab demo", "A clip and a small sweep."),
    "generate": ('i2v-lab generate photo.jpg "zoom in"', "A clip of your own picture."),
    "serve": ("i2v-lab serve --open", "The studio, in a browser."),
}
ORDER = (
    "demo",
    "generate",
    "plan",
    "sweep",
    "tune",
    "serve",
    "runs",
    "show",
    "again",
    "code",
    "delete",
    "measure",
    "batch",
    "models",
    "export",
    "doctor",
    "verify",
)


class Commands(TyperGroup):
    """The commands, with help that is not cut."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order in which people meet them."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What the program is, and how to begin."""
        super().format_help_text(ctx, formatter)
        with formatter.section("Begin with"):
            formatter.write_dl([line for name, line in BEGIN.items() if name in self.commands], col_max=40)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each command with the first sentence of its help: click would cut it."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(command.help or "")) for name, command in found if command])


def _first_sentence(text: str) -> str:
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
