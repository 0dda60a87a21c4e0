"""`export`: a model's networks for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from i2v_lab.cli.options import AsJson, with_settings
from i2v_lab.cli.terminal import listening, tell, tell_json
from i2v_lab.errors import ParamsError
from i2v_lab.log import start_log
from i2v_lab.settings import Settings


@with_settings()
def export(
    settings: Settings,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a family, a checkpoint's folder or a hub id")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to write; it must be new or empty")],
    to: Annotated[str, typer.Option("--to", help="onnx or openvino")] = "onnx",
    resolution: Annotated[str | None, typer.Option(help="of the clips, as in generate [default: the model's]")] = None,
    num_frames: Annotated[int | None, typer.Option(help="of the clips [default: the model's]")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the network that denoises and the VAE's decoder of a model as ONNX or OpenVINO, checked against torch."""
    start_log(settings.log.directory)
    from i2v_lab.models.openvino.export import FORMATS, export_model

    if to not in FORMATS:
        raise ParamsError(f"--to: expected {' or '.join(FORMATS)}, got {to!r}")
    with listening() as progress:
        manifest = export_model(model, to, folder, resolution, num_frames, progress)
    if as_json:
        tell_json(manifest)
        return
    for about in manifest["networks"].values():
        tell(f"{folder / about['file']}: {about['network']}, {about['error']:.1e} away from torch")
    tell(
        f"{folder / 'manifest.json'}: {manifest['model']}, {manifest['num_frames']} frames of {manifest['height']}x{manifest['width']}"
    )
