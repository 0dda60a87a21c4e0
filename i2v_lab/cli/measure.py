"""The command `i2v-lab measure`: the metrics of any clips, and of runs that have none yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from i2v_lab.cli.options import AsJson, with_settings
from i2v_lab.cli.terminal import remark, show_table, tell, tell_json
from i2v_lab.errors import I2VLabError, InputError
from i2v_lab.log import start_log

if TYPE_CHECKING:
    from i2v_lab.metrics import Measured
    from i2v_lab.settings import Settings
    from i2v_lab.store import Store


@with_settings("output_dir")
def measure(
    settings: Settings,
    clips: Annotated[list[Path] | None, typer.Argument(metavar="[CLIP]...", help="MP4, WebM or GIF files, from any source")] = None,
    prompt: Annotated[str | None, typer.Option(help="what the clips should show [default: as each clip says]")] = None,
    image: Annotated[
        str | None, typer.Option(help="the picture that the clips were made from [default: as each clip says]")
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="measure the runs that have no metrics yet")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure clips: flicker, motion, sharpness, agreement with the picture and with the prompt."""
    from i2v_lab.store import Store

    if bool(clips) == missing:
        raise InputError("expected clips, or --missing; got " + ("both" if clips else "neither"))
    there = (settings.output.directory / "runs.db").is_file()
    store = Store(settings.output.directory) if there or missing else None  # measuring a clip makes no folder
    if missing and store is not None:
        start_log(settings.log.directory)
        raise typer.Exit(_fill_in(store, as_json))
    raise typer.Exit(max(_measure(clip, prompt, image, store, as_json) for clip in clips or ()))


def _measure(clip: Path, prompt: str | None, image: str | None, store: Store | None, as_json: bool) -> int:
    """Measure one clip and print the metrics. Returns the exit code."""
    from i2v_lab import metrics

    try:
        measured = metrics.measure(clip, prompt=prompt, image=image, store=store)
    except I2VLabError as error:
        if as_json:
            tell_json({"clip": str(clip), "error": str(error)})
        remark(f"error: {error}", "red")
        return 1
    if as_json:
        about = {"frames": measured.frames, "looked_at": measured.looked_at, "height": measured.height, "width": measured.width}
        found = {"prompt": measured.prompt, "flaw": measured.flaw, "metrics": measured.values, "missing": measured.missing}
        tell_json({"clip": str(clip), **about, **found})
    else:
        _show(clip, measured)
    return 0


def _show(clip: Path, measured: Measured) -> None:
    from i2v_lab.metrics import METRICS

    looked = "" if measured.looked_at == measured.frames else f", {measured.looked_at} of them measured"
    tell(f"{clip}: {measured.frames} frames of {measured.height}x{measured.width}{looked}")
    if measured.prompt:
        tell(f"prompt: {measured.prompt}")
    if measured.flaw:
        remark(f"the clip is {measured.flaw}: what could be better or worse has no value", "yellow")
    show_table(("metric", "value", "unit", ""), (
        (name, "-" if value is None else f"{value:.4g}", METRICS[name].unit, measured.missing.get(name, METRICS[name].arrow))
        for name, value in measured.values.items()
    ))  # fmt: skip


def _fill_in(store: Store, as_json: bool) -> int:
    """Measure the runs that have no metrics. Returns the exit code."""
    from i2v_lab.metrics.fill import fill_in, missing

    failed, found = 0, missing(store)
    for record in found:
        measured = fill_in(record, store, waiting=lambda line: None).metrics
        failed += not measured
        if as_json:
            tell_json({"run": record.id, "clip": str(store.directory / record.clip), "metrics": measured or None})
        elif not measured:
            remark(f"{record.clip} cannot be measured; the log says why", "yellow")
    remark(f"{len(found) - failed} of {len(found)} clips without metrics were measured")
    return int(failed > 0)
