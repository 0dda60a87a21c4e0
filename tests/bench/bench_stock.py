"""PipelineModel against the bare pipeline of diffusers: the same clip, in turn, in one run.

    python tests/bench/bench_stock.py [--runs 10] [FAMILY ...]

For each family: the ratio of seconds (the median over alternating pairs) and of memory (bytes of live tensors at the highest point,
followed by the tracker), and whether the frames are equal. Nothing is asserted: machines differ. The weights are random and tiny, and
the clip is long enough that a run takes some seconds on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_families import make_checkpoint, small

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.models.checkpoint import quiet_libraries
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.sampling import numpy_quiet

SIZES = {"wan2.2-ti2v-5b": {"resolution": "192x320", "num_frames": 17}, "ltx-video": {"resolution": "256x384", "num_frames": 49}}


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak(work: Callable[[], Any], weights: list[torch.Tensor]) -> int:
    with torch.no_grad(), Tracker(weights) as tracker:
        work()
    return int(tracker.peak)


def compare(name: str, runs: int, folder: Path) -> None:
    params = models.resolve(ClipParams(model=str(make_checkpoint(name, folder)), image="sample:coffee",
                                       **small(name, num_inference_steps=8, **SIZES.get(name, {}))))  # fmt: skip
    picture, model = open_picture(params.image), models.open(params.model).load()
    pipe: Any = model.pipe  # type: ignore[attr-defined]
    arguments: dict[str, Any] = model.family.arguments(params, 0)  # type: ignore[attr-defined]
    crop = Image.fromarray(picture.crop(params.height, params.width))

    def bare() -> Any:
        with torch.no_grad(), quiet_libraries(), numpy_quiet():
            torch.manual_seed(params.seed)
            made = pipe(image=crop, **arguments, generator=torch.Generator().manual_seed(params.seed), output_type="np").frames[0]
            return np.asarray((made * 255).round(), np.uint8)

    def ours() -> Any:
        return model.generate(picture, params, Progress())

    equal = np.array_equal(bare(), ours())
    ratios = []
    for number in range(runs):
        if number % 2:
            second = timed(ours)
            first = timed(bare)
        else:
            first = timed(bare)
            second = timed(ours)
        ratios.append(second / first)
    weights = [tensor for part in pipe.components.values() if isinstance(part, torch.nn.Module)
               for tensor in (*part.parameters(), *part.buffers())]  # fmt: skip
    memory = peak(ours, weights) / peak(bare, weights)
    print(f"{name}: time {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, {runs} pairs of about {first:.1f} s), "
          f"memory {memory:.3f}, frames {'equal' if equal else 'DIFFER'}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=list(SIZES))
    parser.add_argument("--runs", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.families:
            compare(name, given.runs, Path(scratch) / name)


if __name__ == "__main__":
    main()
