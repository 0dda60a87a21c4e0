"""Is the memory that `plan` predicts the memory that a run takes? Measured on a CPU with torch's own profiler.

    python experiments/make_random_i2vgen_xl.py FOLDER --full
    python experiments/check_prediction.py FOLDER --resolution 256p --num-frames 8 --steps 2

Each allocation and release of torch's CPU allocator is added up while a clip is made; the highest sum of each stage, with
the weights, is printed beside the prediction. The profiler knows nothing of the prediction's fake tensors. Frames that wait
as NumPy arrays (tiers above 0) are not torch's: their bytes are added.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from i2v_lab import ClipParams, Progress, open_picture
from i2v_lab.clip.progress import Listeners
from i2v_lab.cost import Forecaster
from i2v_lab.devices.meter import Meter
from i2v_lab.models.i2vgen_xl.model import I2VGenXL


class Stages(Progress):
    """Notes when each stage began."""

    def __init__(self) -> None:
        self.began: dict[str, int] = {}

    def stage(self, name: str, total: int | None = None) -> None:
        self.began.setdefault(name, time.time_ns())


def measure(model: I2VGenXL, params: ClipParams) -> tuple[dict[str, int], Meter]:
    """Make a clip: ({stage: bytes of torch's CPU allocator at its highest point, weights left out}, what the meter saw)."""
    picture, stages, meter = open_picture(params.image), Stages(), Meter("cpu")
    with meter, profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        model.generate(picture, params, Listeners(stages, meter))
    events = profiled.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peaks, held = dict.fromkeys(stages.began, 0), 0
    for moment, size in changes:
        held += size
        if now := [name for name, began in stages.began.items() if began <= moment]:
            peaks[now[-1]] = max(peaks[now[-1]], held)
    if model.tier:
        peaks["decode"] += 3 * params.height * params.width * params.num_frames
    return peaks, meter


def compare(model: I2VGenXL, params: ClipParams) -> dict[str, float]:
    """{stage: predicted over measured bytes, less 1} of a clip, printed as a row of a Markdown table for each stage."""
    plan = Forecaster().plan(params, model, tier=model.tier)
    peaks, meter = measure(model, params)
    errors = {}
    for stage in plan.stages:
        measured = peaks[stage.stage] + stage.weights
        errors[stage.stage] = stage.total / measured - 1
        cells = (params.resolution, params.num_frames, model.tier, stage.stage, f"{stage.total / 2**20:.1f}", f"{measured / 2**20:.1f}",
                 f"{errors[stage.stage]:+.1%}", f"{stage.activations / peaks[stage.stage] - 1:+.1%}",
                 f"{meter.seconds[stage.stage]:.1f}", f"{stage.flops / 1e12:.4g}")  # fmt: skip
        print("|", " | ".join(map(str, cells)), "|", flush=True)
    print(f"peak resident memory {meter.peak_ram_gib:.2f} GiB, predicted {plan.peak_gib:.2f} GiB", flush=True)
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an I2VGen-XL checkpoint")
    parser.add_argument("--resolution", nargs="+", default=["256p"])
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tier", type=int, default=0)
    given = parser.parse_args()
    model = I2VGenXL.load(given.folder, device="cpu", tier=given.tier)
    print("| clip | frames | tier | stage | predicted MiB | measured MiB | error | error without weights | s | TFLOP |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for resolution in given.resolution:
        compare(model, ClipParams(image="sample:coffee", resolution=resolution, num_frames=given.num_frames,
                                  num_inference_steps=given.steps))  # fmt: skip


if __name__ == "__main__":
    main()
