"""The script of a clip of I2VGen-XL: its sampling loop, over the networks of diffusers and transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.models.checkpoint import read_json
from i2v_lab.models.memory.tiers import TILE, changes_pixels
from i2v_lab.models.sampling import make_scheduler
from i2v_lab.run.script.facts import call, device_kind, threads, variant_of

NETWORKS = {
    "text_encoder": "CLIPTextModel", "image_encoder": "CLIPVisionModelWithProjection", "vae": "AutoencoderKL", "unet": "I2VGenXLUNet",
}  # fmt: skip
FIELDS = ("prompt", "negative_prompt", "num_frames", "num_inference_steps", "guidance_scale", "condition_fps")


def i2vgen_xl_fields(params: ClipParams, record: Mapping[str, Any], folder: Path, dtype: str, tier: int) -> dict[str, str]:
    """What the template i2vgen_xl.py.txt needs beside what every script needs; arguments as for `stock_fields`."""
    device = device_kind(str(record.get("device")))
    scheduler = make_scheduler(params.scheduler, read_json(folder / "scheduler" / "scheduler_config.json"))
    several = "original_inference_steps" in inspect.signature(scheduler.set_timesteps).parameters
    most = max(params.num_inference_steps, int(scheduler.config.original_inference_steps)) if several else 0
    draws = "generator" in inspect.signature(scheduler.step).parameters
    return {
        **{name: repr(getattr(params, name)) for name in FIELDS},
        "classes": type(scheduler).__name__,
        "scheduler": call(scheduler),
        "step_options": f", original_inference_steps={most}" if several else "",
        "step_generator": ", generator=generator" if draws else "",
        "device": f'"{device}"',
        "dtype": f"torch.{dtype}",
        "networks": "\n".join(_load(name, kind, folder) for name, kind in NETWORKS.items()),
        "tier": _tier(tier) if device == "cuda" else "",
        "tiling": _tiling(folder) if changes_pixels(tier, params.height, params.width) else "",
        "threads": threads(record, False),
    }


def _load(name: str, kind: str, folder: Path) -> str:
    variant = variant_of(folder, name, "fp16")  # the published repository has both
    half = f', "{variant}"' if variant else ""
    return f'{name} = load({kind}, "{name}"{half})'


def _tier(tier: int) -> str:
    made = f" The clip was made on tier {tier}, which does so." if tier >= 3 else ""
    return f"# Short of memory?{made} In place of .to(DEVICE): accelerate.cpu_offload_with_hook(unet, DEVICE), and so for each network.\n"


def _tiling(folder: Path) -> str:
    """Lines that decode in tiles, which changes pixels."""
    blocks = len(read_json(folder / "vae" / "config.json").get("block_out_channels", (0,) * 4))
    return (
        "vae.enable_tiling()  # as the clip was made; it changes pixels a little\n"
        f"vae.tile_sample_min_size, vae.tile_latent_min_size = {TILE}, {TILE // 2 ** (blocks - 1)}\n"
    )
