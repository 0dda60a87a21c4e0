"""Networks of random weights, made in memory on the device where they work: of the real size, or small ones for a CPU.

They make noise for clips. What they are good for is to run, time and measure where no published weights are. The numbers are the same on
every device and in every process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from i2v_lab import models
from i2v_lab.cost.measured import RANDOM
from i2v_lab.errors import ModelError
from i2v_lab.models.base import VideoModel
from i2v_lab.models.checkpoint import quiet_libraries
from i2v_lab.models.device import DTYPES, choose_device, choose_dtype, default_dtype
from i2v_lab.models.i2vgen_xl.cost import CONFIGS, make_network
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.memory.ladder import fitting
from i2v_lab.models.quantize import quantize
from i2v_lab.models.stock import cost_build
from i2v_lab.models.stock.cost_spec import published, whole
from i2v_lab.models.stock.families import FAMILIES as STOCK
from i2v_lab.models.stock.model import model_class
from i2v_lab.models.stock.watch import networks

SMALL: Mapping[str, Any] = json.loads(Path(__file__).with_name("small.json").read_text("utf-8"))
"""Configs of small networks: {family: {component: config}}; of a stock family what models/stock/cost_spec.py calls parts and options."""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BLOCK = (1 << 22) + 3  # different random numbers; weights are filled with them again and again

# As in the published checkpoint of I2VGen-XL.
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": True,
}


def random_model(
    family: str, device: str, *, full: bool, dtype: str = "auto", tier: int = 0, quantization: str = "none"
) -> VideoModel:
    """A model of a family with random weights; nothing is written or read from disk.

    Args:
        family: "i2vgen-xl" or one of the stock families. device: where it works.
        full: of the real size, by the published configs; otherwise small.
        dtype: "auto" is the family's own on a GPU, float32 on a CPU.
        quantization: of what denoises; see models/quantize.py.
        tier: of the memory ladder to make it for; on those that offload the weights are made in the machine's memory.

    Raises:
        ModelError: no configs of this family are known. OutOfMemory: it does not fit.
    """
    where = choose_device(device)
    offloads = tier >= 3 and where.type != "cpu" and tier in models.family(family).tiers(device)
    home = torch.device("cpu") if offloads else where
    make = _i2vgen_xl if family == "i2vgen-xl" else _stock

    def build() -> VideoModel:
        with home, torch.no_grad():
            model: Any = make(family, where, dtype, full)
            denoisers = [getattr(model.pipe, name) for name in model.family.denoisers] if hasattr(model, "pipe") else [model.unet]
            for network in denoisers:
                quantize(network, quantization)
            model.quantization = quantization
        model.use_tier(tier)
        return model

    return fitting(build, lambda said: f"{family} with random weights does not fit into the memory of {device} ({said})")


def _name(family: str, full: bool) -> str:
    return family + (RANDOM if full else RANDOM.replace("full", "small"))


def _i2vgen_xl(family: str, where: torch.device, dtype: str, full: bool) -> VideoModel:
    from transformers import CLIPImageProcessorPil

    configs, number = CONFIGS if full else SMALL[family], choose_dtype(dtype, where)
    parts: dict[str, Any] = {part: random_network(part, config, number) for part, config in configs.items()}
    tokenizer = cost_build.tokenizer()
    tokenizer.model_max_length = 77
    side = {"height": 224, "width": 224}
    extractor = CLIPImageProcessorPil(crop_size=side, size={"shortest_edge": 224}, image_mean=CLIP_MEAN, image_std=CLIP_STD)
    return I2VGenXL(
        **parts, tokenizer=tokenizer, feature_extractor=extractor, scheduler_config=SCHEDULER, fingerprint=_name(family, full),
        device=where,
    )  # fmt: skip


def random_network(part: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """One of the four networks of I2VGen-XL, made in its own dtype on torch's default device."""
    from transformers.initialization import no_init_weights

    with default_dtype(dtype), quiet_libraries(), no_init_weights():
        network = make_network(part, config)
    fill(network)
    return network.eval().requires_grad_(False)


def _stock(family: str, where: torch.device, dtype: str, full: bool) -> VideoModel:
    found, entry = published(family) if full else SMALL.get(family), STOCK[family]
    if found is None:
        raise ModelError(f"{family}: expected one with a small network ({', '.join(SMALL)}) for a CPU")
    number = choose_dtype(dtype, where, entry.cuda_dtype)
    text = next(name for name, known in DTYPES.items() if known == number)
    pipe = cost_build.build(whole(entry, **found), text)
    for network in networks(pipe).values():
        network.__dict__.pop("to", None)  # which is for fake tensors
        fill(network)
    return model_class(entry)(pipe, fingerprint=_name(family, full), device=where, dtype=number)


def fill(network: torch.nn.Module, seed: int = 0) -> None:
    """Give a network weights that keep activations near size 1, and leave nothing at the zero that residual branches start from.

    So each input of the network shows in its output, which is what checks need.
    """
    block = torch.randn(BLOCK, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    blocks: dict[Any, torch.Tensor] = {}
    place = 0
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2 and name.endswith("weight"):  # of norms
                parameter.fill_(1)
                continue
            kind = parameter.device, parameter.dtype
            if kind not in blocks:
                blocks[kind] = block.to(*kind)
            flat, done = parameter.view(-1), 0
            while done < len(flat):
                size = min(len(flat) - done, BLOCK - place)
                flat[done : done + size].copy_(blocks[kind][place : place + size])
                done, place = done + size, (place + size) % BLOCK
            place = (place + 7919) % BLOCK
            flat.mul_(1 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.02)
