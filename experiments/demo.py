"""make demo: a clip of a photograph, then a small sweep; no weights, no GPU. Then where things are and what to try."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.table import Table

from i2v_lab import ClipParams, Store, load_settings, run_clip
from i2v_lab.cli.terminal import cost, listening, out

PARAMS = ClipParams(image="sample:motorcycle", prompt="camera panning left slowly", resolution="384x512")
SWEEP = Path(__file__).parent / "guidance.yaml"
COLUMNS = {
    "guidance_scale": "guidance",
    "seed": "seed",
    "status": "status",
    "seconds_total": "seconds",
    "peak_ram_gib": "peak RAM, GiB",
}
NEXT = {
    "another photograph, or your own file": "i2v-lab generate --image sample:coffee --prompt 'zoom in slowly'",
    "a sweep of your own": "i2v-lab sweep --base image=sample:cat --base prompt='zoom in' --axis num_inference_steps=4,10,50",
    "what all clips cost": "i2v-lab runs",
    "the same in JupyterLab": "make lab",
}


def main() -> int:
    """Make the demo's clip and its sweep. Returns the exit code."""
    settings = load_settings()
    store = Store(settings.output.directory)
    out.print(f"A clip of a photograph ({PARAMS.image}), prompt {PARAMS.prompt!r}, with the model that ships with the package ...")
    with listening() as progress:
        record = run_clip(PARAMS, store=store, progress=progress, settings=settings)
    if record.status != "done":
        out.print(f"{record.status}: {record.reason}", markup=False)
        return 1
    out.print(f"  {store.directory / record.clip}\n  {cost(record)}\n", markup=False)
    out.print("A sweep: four guidance scales, three seeds ...")
    command = [sys.executable, "-m", "i2v_lab", "sweep", str(SWEEP), "--output-dir", str(store.directory)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    table = Table(*COLUMNS.values())
    for row in store.runs(sweep=SWEEP.stem)[list(COLUMNS)].itertuples(index=False):
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row))
    out.print(table)
    out.print(done.stdout, markup=False)
    out.print("Open report.html in a browser: the clips play in step above what they cost. Next, after source .venv/bin/activate:")
    for what, line in NEXT.items():
        out.print(f"  {what + ':':40}{line}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
