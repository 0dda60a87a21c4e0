"""What levers save: whole clips of I2VGen-XL at half width, each lever against diffusers' I2VGenXLPipeline, in one run.

    python tests/bench/bench_levers.py [--levers deep:3,fast] [--steps 20] [--resolution 256p] [--frames 8] [--tiny] [--profile]

Each clip is made in a process of its own, which loads the model, makes a clip of few steps to warm up, and then the clip that counts. What
OpenVINO needs is converted in another process before; its seconds are printed and not counted. The stock pipeline runs first and last;
ratios are to the mean of the two. Seconds are of the whole clip: encode, denoise, decode, and for ours the writing of the file. Weights
are random, so nothing is said of quality, and nothing is asserted: machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from bench_sampler import stock_pipeline
from checkpoints import SIZES, make_checkpoint
from PIL import Image

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.devices.meter import Meter
from i2v_lab.models.i2vgen_xl.cost import CONFIGS
from i2v_lab.models.openvino import runner
from i2v_lab.run import make
from i2v_lab.settings import Settings

HALF: dict[str, Any] = {
    "unet": {"block_out_channels": (160, 320, 640, 640), "cross_attention_dim": 512, "attention_head_dim": 32},
    "vae": {**CONFIGS["vae"], "block_out_channels": (64, 128, 256, 256)},
    "text_encoder": {**CONFIGS["text_encoder"], "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
    "image_encoder": {**CONFIGS["image_encoder"], "hidden_size": 640, "intermediate_size": 2560, "num_attention_heads": 8,
                      "projection_dim": 512},
}  # fmt: skip
STOCK = "stock"
FEW = 6  # steps that every lever of `fast` decides something in: all networks are converted
APART = ("calibrate", "convert", "load")  # stages that are not counted
LEVERS: dict[str, dict[str, Any]] = {
    "none": {},
    "guidance_interval": {"guidance_interval": "0.1-0.6"},
    "deep:2": {"cache": "deep:2"},
    "deep:3": {"cache": "deep:3"},
    "taylor:3": {"cache": "taylor:3"},
    "int8": {"quantization": "int8"},
    "fp8": {"quantization": "fp8"},
    "openvino": {"backend": "openvino"},
    "openvino-int8": {"backend": "openvino", "quantization": "int8"},
    "fast": {},  # a preset, as the next
    "fast-cpu": {},
}


def fields_of(lever: str) -> dict[str, Any]:
    """The fields of ClipParams of a lever; of a preset those that are no size and no number of steps."""
    if not lever.startswith("fast"):
        return LEVERS[lever]
    kept = ("guidance_interval", "cache", "quantization", "backend", "compile", "attention")
    return {name: value for name, value in models.preset("i2vgen-xl", lever).items() if name in kept}


def one(given: argparse.Namespace) -> dict[str, Any]:
    """Make one clip, in this process."""
    warnings.simplefilter("ignore")  # the stock pipeline is deprecated and says so at every turn
    params = ClipParams(image="sample:coffee", model=str(given.checkpoint), prompt="a boat sails by", resolution=given.resolution,
                        num_frames=given.frames, num_inference_steps=given.steps)  # fmt: skip
    params = models.resolve(params, lambda: open_picture("sample:coffee"))
    if given.one == STOCK:
        return _stock(params)
    params = params.replace(**fields_of(given.one))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(device="cpu")
        began = time.perf_counter()
        first = make(params.replace(num_inference_steps=FEW), Path(folder), settings=settings).record
        warm = time.perf_counter() - began
        made = make(params, Path(folder), settings=settings).record if first.status == "done" else first
        if given.profile and made.status == "done":
            _profile(params, Path(folder), settings)
    if made.status != "done":
        return {"lever": given.one, "failed": made.reason}
    seconds = {**made.seconds, "total": made.seconds["total"] - sum(made.seconds.get(name, 0.0) for name in APART)}
    return {"lever": given.one, "seconds": seconds, "peak": made.peak_ram_gib, "warm": warm, "first": first.seconds}


def _stock(params: ClipParams) -> dict[str, Any]:
    model: Any = models.open(params.model, "cpu").load()
    pipeline, picture = stock_pipeline(model, params.scheduler), open_picture("sample:coffee")
    crop = Image.fromarray(picture.crop(params.height, params.width))

    def clip(steps: int) -> Any:
        return pipeline(
            params.prompt, crop, height=params.height, width=params.width, target_fps=params.condition_fps,
            num_frames=params.num_frames, num_inference_steps=steps, guidance_scale=params.guidance_scale,
            negative_prompt=params.negative_prompt, output_type="np",
        )  # fmt: skip

    began = time.perf_counter()
    clip(2)
    warm, calls = time.perf_counter() - began, list[float]()
    model.unet.register_forward_hook(lambda *_: calls.append(time.perf_counter()))
    with Meter("cpu") as meter:
        began = time.perf_counter()
        clip(params.num_inference_steps)
        ended = time.perf_counter()
    step = (calls[-1] - calls[0]) / (len(calls) - 1)
    seconds = {"encode": calls[0] - step - began, "denoise": step * len(calls), "decode": ended - calls[-1], "total": ended - began}
    return {"lever": STOCK, "seconds": seconds, "peak": meter.peak_ram_gib, "warm": warm, "first": {}}


def _profile(params: ClipParams, folder: Path, settings: Settings) -> None:
    """Where the time of a clip of two steps goes, on standard error: torch's operators, and OpenVINO's where it computes."""
    runner.PROFILED = True
    runner.forget()
    with torch.profiler.profile() as found:
        make(params.replace(num_inference_steps=3, seed=1), folder, settings=settings)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40), file=sys.stderr)
    taken: dict[str, float] = defaultdict(float)
    for kind, seconds in runner.profile():
        taken[kind] += seconds
    for kind, spent in sorted(taken.items(), key=lambda one: -one[1])[:12]:
        print(f"  OpenVINO, the last pass of each network: {kind:30} {spent:8.3f} s", file=sys.stderr)


def _child(given: argparse.Namespace, lever: str, checkpoint: Path, steps: int) -> dict[str, Any]:
    words = [
        "--one",
        lever,
        "--checkpoint",
        checkpoint,
        "--steps",
        steps,
        "--resolution",
        given.resolution,
        "--frames",
        given.frames,
    ]
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words), *(["--profile"] if given.profile else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 and lines else {"lever": lever, "failed": f"exit code {done.returncode}"}


def _measured(given: argparse.Namespace, lever: str, checkpoint: Path) -> dict[str, Any]:
    """A clip; what is converted for it is converted in a process of its own before, whose memory does not count."""
    converted = {}
    if lever != STOCK and fields_of(lever).get("backend"):
        converted = _child(given, lever, checkpoint, FEW).get("first", {})
    found = _child(given, lever, checkpoint, given.steps)
    print(f"{lever}: {found.get('failed', 'done')}", file=sys.stderr, flush=True)
    return {**found, "first": {**found.get("first", {}), **converted}}


def _row(found: dict[str, Any], stock: dict[str, float], peak: float) -> str:
    if "failed" in found:
        return f"{found['lever']:18} {found['failed']}"
    seconds = found["seconds"]
    stages = "  ".join(f"{seconds.get(name, 0):8.2f}" for name in ("total", "encode", "denoise", "decode"))
    ratios = f"{seconds['total'] / stock['total']:6.3f} {seconds['denoise'] / stock['denoise']:8.3f}"
    apart = {name: round(found["first"][name], 1) for name in APART if name in found["first"]}
    return f"{found['lever']:18} {stages}  {ratios}  {found['peak']:6.2f} {found['peak'] / peak:6.2f}  {apart or ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levers", default=",".join(LEVERS), help=f"of {', '.join(LEVERS)}; fast takes the preset's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--resolution", default="256p")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="a small network and a small clip, to try the script")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--checkpoint", type=Path, help="a folder that an earlier run made, or is to make, and that stays")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given)))
        return
    if given.tiny:
        given.steps, given.resolution, given.frames = 6, "64x96", 3
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch  # converted again in each run of this script
        folder = given.checkpoint or Path(scratch) / "checkpoint"
        if not (folder / "model_index.json").is_file():
            SIZES["half"] = HALF
            make_checkpoint(folder, "small" if given.tiny else "half", torch.float32)
        began = time.perf_counter()
        found = [_measured(given, lever, folder) for lever in (STOCK, *given.levers.split(","), STOCK)]
        first, last = found[0], found[-1]
        stock = {name: (value + last["seconds"][name]) / 2 for name, value in first["seconds"].items()}
        print(f"levers, {given.frames} frames of {given.resolution}, {given.steps} steps, {torch.get_num_threads()} threads")
        print("                      total    encode   denoise    decode   ratio  denoise    GiB  ratio  seconds apart, once")
        for row in found:
            print(_row(row, stock, first["peak"]), flush=True)
        print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
