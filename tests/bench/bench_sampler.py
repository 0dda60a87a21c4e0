"""Our I2VGen-XL against diffusers' I2VGenXLPipeline: the same clip, in turn, in one run.

    python tests/bench/bench_sampler.py [--runs 5] [--resolution 128x192] [--frames 8] [--steps 4]

Prints seconds and peak memory of each, and the ratio of their medians. Nothing is asserted: machines differ. The weights
are random and of middle size, so that a run takes seconds on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from checkpoints import SIZES, make_checkpoint

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.sampling import make_scheduler

MIDDLE = {
    **SIZES["small"],
    "unet": {
        "block_out_channels": (64, 128, 256, 256),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 16,
    },
    "vae": {**SIZES["small"]["vae"], "block_out_channels": (32, 64, 128, 128)},
}


def stock_pipeline(model: I2VGenXL, scheduler: str) -> Any:
    """diffusers' pipeline over the same components, fixed so that it runs: its text tower has lost an attribute."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    model.text_encoder.text_model = model.text_encoder
    pipeline = diffusers.I2VGenXLPipeline(
        vae=model.vae, text_encoder=model.text_encoder, tokenizer=model.tokenizer, image_encoder=model.image_encoder,
        feature_extractor=model.feature_extractor, unet=model.unet, scheduler=make_scheduler(scheduler, model.scheduler_config),
    )  # fmt: skip
    del model.text_encoder._modules["text_model"]
    object.__setattr__(model.text_encoder, "text_model", model.text_encoder)  # not a submodule: it would hold itself
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def measure(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds and MiB at most above what the process held before: its RAM sampled each 2 ms, or CUDA's own count."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - started, (torch.cuda.max_memory_allocated() - before) / 2**20
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    return seconds, (peak - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--resolution", default="128x192")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # the stock pipeline is deprecated and says so at every turn
    params = ClipParams(image="x", prompt="a boat sails by", resolution=given.resolution, num_frames=given.frames,
                        num_inference_steps=given.steps)  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        SIZES["middle"] = MIDDLE
        model = I2VGenXL.load(make_checkpoint(Path(scratch) / "middle", "middle"))
        path = Path(scratch) / "picture.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)).save(path)
        picture = open_picture(path)
    pipeline = stock_pipeline(model, params.scheduler)
    crop = Image.fromarray(picture.crop(params.height, params.width))
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: model.generate(picture, params, Progress()),
        "stock": lambda: pipeline(
            params.prompt, crop, height=params.height, width=params.width, target_fps=params.condition_fps,
            num_frames=params.num_frames, num_inference_steps=params.num_inference_steps, guidance_scale=params.guidance_scale,
            negative_prompt=params.negative_prompt, output_type="np",
        ),
    }  # fmt: skip
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()  # warm-up
    for _ in range(given.runs):
        for name, work in contenders.items():
            found[name].append(measure(work))
    median = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    size = f"{given.frames} frames of {params.height}x{params.width}, {given.steps} steps, {model.device} {model.dtype}"
    print(f"sampler, {size}, median of {given.runs}")
    for name, (seconds, memory) in median.items():
        print(f"  {name:6} {seconds:8.3f} s {memory:8.1f} MiB")
    ratios = [ours / stock if stock else float("nan") for ours, stock in zip(median["ours"], median["stock"], strict=True)]
    print(f"  ratio  {ratios[0]:8.3f}   {ratios[1]:8.3f}")


if __name__ == "__main__":
    main()
