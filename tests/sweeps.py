"""Tiny sweeps of the fake model; and sweeps with clips whose every pixel is known, recorded in a real store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Preview
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.errors import Stop
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepProgress, SweepStatus

TINY: Mapping[str, Any] = {
    "model": "fake", "image": "sample:coffee", "resolution": "64x64", "num_frames": 2, "num_inference_steps": 3,
}  # fmt: skip
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
COLOURS = [
    (200, 40, 40),
    (40, 160, 60),
    (40, 70, 200),
    (220, 180, 30),
    (150, 50, 170),
    (20, 170, 180),
    (120, 90, 60),
    (230, 120, 160),
]


GUIDANCE = [{"guidance_scale": guidance, "seed": seed} for guidance, seed in product((9.0, 4.5, 12.0), (1, 0))]
LONG = [EVIL + " a cup of coffee whose steam rises " * 4, "w" * 300, "走着的猫 and 🐈", "short"]


def tiny(**fields: Any) -> Sweep:
    """A sweep of the fake model."""
    return Sweep(**{"name": "tiny", "base": TINY, **fields})


class StopAt(SweepProgress):
    """Stops in the denoising of one cell, or before it."""

    def __init__(self, cell: int, *, before: bool = False) -> None:
        self.number, self.before, self.now, self.stage_name = cell, before, 0, ""

    def cell(self, status: SweepStatus) -> None:
        self.now = status.cell
        if self.before and self.now == self.number:
            raise Stop("enough")

    def stage(self, name: str, total: int | None = None) -> None:
        self.stage_name = name

    def step(self, preview: Preview | None = None) -> None:
        if self.now == self.number and self.stage_name == "denoise" and not self.before:
            raise Stop("by hand")


def hashes(store: Store, sweep: str) -> dict[str, str]:
    """{params: frames} of the done cells."""
    table = store.runs(sweep=sweep)
    return {
        f"{row.seed} {row.guidance_scale} {row.num_frames}": row.frames_sha256 for row in table.itertuples() if row.status == "done"
    }


def colour(number: int) -> tuple[int, int, int]:
    """What fills the upper half of clip `number`."""
    return COLOURS[number % len(COLOURS)]


def grey(frame: int) -> int:
    """What fills the lower half of a clip's frame."""
    return 20 + 6 * frame


def clip_frames(number: int, count: int, height: int, width: int) -> np.ndarray:
    """uint8 RGB, (count, height, width, 3)."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:, : height // 2] = colour(number)
    frames[:, height // 2 :] = np.array([grey(frame) for frame in range(count)], np.uint8)[:, None, None, None]
    return frames


def make_sweep(folder: Path, cells: Sequence[Mapping[str, Any]], *, format: str = "mp4") -> pd.DataFrame:
    """The table of a sweep.

    A cell is fields of ClipParams; or of RunRecord: status (where it is not done there is no clip), reason, seconds, ...
    Clip number n has `colour(n)`.
    """
    store = Store(folder / "results")
    for number, cell in enumerate(cells):
        own = {name: value for name, value in cell.items() if name in ClipParams.model_fields and name != "seconds"}
        params = ClipParams(**{"image": "x.png", "resolution": "64x96", "num_frames": 4, **own})
        fields: dict[str, Any] = {"id": new_id(), "status": "done", "params": params, "sweep": "s", "clip": ""}
        fields |= {"seconds": {"load": 5.0, "denoise": 1.0 + number, "total": 6.0 + number}, "peak_ram_gib": 1.0 + number / 10}
        fields |= {name: value for name, value in cell.items() if name not in own}
        if fields["status"] == "done" and not fields["clip"]:
            frames = clip_frames(number, params.num_frames, params.height, params.width)
            info = video.write(frames, store.clips, stem=f"clip{number}", fps=Fraction(params.fps), format=format)
            fields["clip"] = info.path.relative_to(store.directory).as_posix()
        store.save(RunRecord.model_validate(fields))
    return store.runs(sweep="s")


def table_of(**axes) -> pd.DataFrame:
    """A table without clips: every combination of the values; seconds are 2, 3, 4, ... and 0.1, 0.2, ... GiB."""
    frame = pd.DataFrame([dict(zip(axes, values, strict=True)) for values in product(*axes.values())])
    count = np.arange(len(frame), dtype=float)
    return frame.assign(status="done", reason="", clip=None, seconds_total=count + 3, seconds_load=1.0,
                        peak_ram_gib=(count + 1) / 10, peak_vram_allocated_gib=np.nan)  # fmt: skip
