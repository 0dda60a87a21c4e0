"""The command `i2v-lab demo`: a clip of a photograph, then a small sweep and its report; no weights, no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from i2v_lab.cli.interrupt import stops
from i2v_lab.cli.options import with_settings
from i2v_lab.cli.sweep import sweep_screen
from i2v_lab.cli.terminal import listening, remark, show_record, tell
from i2v_lab.log import start_log

if TYPE_CHECKING:
    from i2v_lab.settings import Settings

SWEEP = "experiments/guidance.yaml"
NEXT = {
    "another photograph, or your own file": 'i2v-lab generate sample:coffee "zoom in slowly"',
    "a sweep of your own": 'i2v-lab sweep --base image=sample:cat --base prompt="zoom in" --axis num_inference_steps=4,10,50',
    "all clips and what they cost": "i2v-lab runs",
    "the studio, in a browser": "i2v-lab serve --open",
}


@with_settings("output_dir", "device")
def demo(
    settings: Settings, open_report: Annotated[bool, typer.Option("--open", help="open the report in the browser")] = False
) -> None:
    """Make a clip of a photograph, then a small sweep and its report: half a minute, no weights, no GPU."""
    from i2v_lab.clip.params import ClipParams
    from i2v_lab.report.notebook import execute, shipped
    from i2v_lab.report.summary import findings
    from i2v_lab.run import run_clip
    from i2v_lab.store import Store
    from i2v_lab.sweep import SweepStop, load_sweep

    start_log(settings.log.directory)
    store, stop = Store(settings.output.directory), SweepStop()
    params = ClipParams(image="sample:motorcycle", prompt="camera panning left slowly", resolution="384x512")
    remark(f"A clip of a photograph ({params.image}), prompt {params.prompt!r}, with the model that ships with the package ...")
    with listening() as progress:
        record = run_clip(params, store=store, progress=progress, settings=settings)
    show_record(record, store.directory)
    if record.status != "done":
        raise typer.Exit(130 if record.status == "stopped" else 1)
    sweep = load_sweep(shipped(SWEEP))
    remark(f"A sweep: {len(sweep.cells())} clips of a coffee cup, three guidance scales, and its report ...")
    with sweep_screen() as screen, stops(stop.ask):
        (made,) = execute([sweep], store, settings, progress=screen, stop=stop)
    if made.problem or made.html is None or not made.result.complete:
        remark(
            f"error: {made.problem or made.result.stopped or 'the sweep is not complete'}; i2v-lab demo goes on where it stopped",
            "red",
        )
        raise typer.Exit(130 if stop.after else 1)
    remark("Try next:")
    for what, line in NEXT.items():
        remark(f"  {what + ':':40}{line}")
    table = made.result.table()
    found = findings(table, list(made.result.axes), metric=made.sweep.metric)
    tell(f"Found: {(found.heads or found.found)[0].en}")
    tell(f"Report: {made.html.as_uri()}" + ("" if open_report else " (i2v-lab demo --open opens it)"))
    if open_report:
        import webbrowser

        webbrowser.open(made.html.as_uri())
