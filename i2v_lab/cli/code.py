"""`code`: a clip as a plain script of diffusers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from i2v_lab.cli.options import with_settings
from i2v_lab.cli.terminal import remark
from i2v_lab.settings import Settings


@with_settings("output_dir")
def code(
    settings: Settings,
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="a file that i2v_lab made")],
    image: Annotated[str | None, typer.Option(help="the picture, where it cannot be found by its hash")] = None,
    model: Annotated[str | None, typer.Option(help="the checkpoint's folder or hub id, where it is not found")] = None,
) -> None:
    """Print a script that makes a clip again with diffusers alone, without i2v_lab."""
    from i2v_lab.run import restore
    from i2v_lab.run.script import script_for
    from i2v_lab.store import Store

    script = script_for(*restore(clip, Store(settings.output.directory), image, model), name=clip.name)
    for note in script.notes:
        remark(f"note: {note}", "yellow")
    sys.stdout.write(script.text)
