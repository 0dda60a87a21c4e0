"""make demo: a clip of a photograph, made in seconds without weights or GPU; then where things are and what to try."""

from __future__ import annotations

import sys

from i2v_lab import ClipParams, Store, load_settings, run_clip
from i2v_lab.terminal import cost, listening, out

PARAMS = ClipParams(image="sample:motorcycle", prompt="camera panning left slowly", resolution="384x512")


def main() -> int:
    """Make the demo's clip. Returns the exit code."""
    settings = load_settings()
    store = Store(settings.output.directory)
    out.print(f"A clip of a photograph ({PARAMS.image}), prompt: {PARAMS.prompt!r}, with the model that ships with the package ...")
    with listening() as progress:
        record = run_clip(PARAMS, store=store, progress=progress, settings=settings)
    if record.status != "done":
        out.print(f"{record.status}: {record.reason}")
        return 1
    out.print(f"  clip    {store.directory / record.clip}\n  cost    {cost(record)}\n  table   {store.file} (i2v-lab runs)\n")
    out.print("Next (after: source .venv/bin/activate):")
    out.print("  i2v-lab generate --image sample:coffee --prompt 'zoom in slowly'        another photograph, or your own file")
    out.print("  i2v-lab generate --image sample:coffee --prompt 'zoom in' --guidance-scale 2   what guidance does")
    out.print("  i2v-lab runs                                                          what all clips cost")
    out.print("  make lab                                                              the same in JupyterLab")
    return 0


if __name__ == "__main__":
    sys.exit(main())
