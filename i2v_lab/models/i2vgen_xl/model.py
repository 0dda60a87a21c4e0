"""I2VGen-XL as a VideoModel: loaded from a checkpoint, it makes clips by the networks in networks.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from i2v_lab.clip.levers import BACKENDS
from i2v_lab.clip.params import Advice, ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.video import Frames
from i2v_lab.errors import Message
from i2v_lab.models.base import StageCost, VideoModel, check_common, made_within_memory
from i2v_lab.models.checkpoint import Layout, open_checkpoint
from i2v_lab.models.device import choose_device, choose_dtype
from i2v_lab.models.i2vgen_xl.cost import cost
from i2v_lab.models.i2vgen_xl.networks import CELL, CLIP_TOKENS, Networks, prompts
from i2v_lab.models.i2vgen_xl.parts import estimate_tokens, load_components
from i2v_lab.models.memory.ladder import fitting
from i2v_lab.models.memory.tiers import TIERS, pixel_changes, release, tiers_on
from i2v_lab.models.prepare import prepared
from i2v_lab.models.sampling import make_scheduler, set_steps

LAYOUT = Layout(
    pipelines=("I2VGenXLPipeline",),
    weights=("image_encoder", "text_encoder", "unet", "vae"),
    files=("feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json"),
)


FAST = {"resolution": "512p", "num_frames": 16, "num_inference_steps": 50, "guidance_interval": "0-0.45", "cache": "deep:3"}


class I2VGenXL(Networks, VideoModel):
    """I2VGen-XL, loaded. Make one with `load`; it satisfies `VideoModel`.

    Attributes:
        tokenizer, text_encoder, feature_extractor, image_encoder, unet, vae: the components.
        scheduler_config: the noise schedule that the checkpoint was trained with, as diffusers keeps it.
    """

    layout: ClassVar[Layout] = LAYOUT
    name: ClassVar[str] = "i2vgen-xl"
    about: ClassVar[str] = "A picture and a prompt to a clip, by a video diffusion network of 1.4 billion parameters."
    licence: ClassVar[str] = "MIT (ali-vilab/i2vgen-xl)"
    size_gb: ClassVar[float] = 4.6
    native_size: ClassVar[tuple[int, int]] = (704, 1280)
    levers: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "backend": BACKENDS,
        "quantization": ("int8", "fp8"),
        "compile": ("regional",),
    }
    reads: ClassVar[frozenset[str]] = VideoModel.reads | {"cache", *levers}
    caches: ClassVar[tuple[str, ...]] = ("deep", "pab", "taylor")
    shares: ClassVar[str] = "guidance"
    size_multiple: ClassVar[int] = CELL  # whole latents; the UNet itself pads nothing and takes any number of them
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"resolution": "512p", "num_frames": 8, "num_inference_steps": 30},
        "fast": FAST,
        "fast-cpu": {**FAST, "backend": "openvino", "quantization": "int8"},
        "standard": {"resolution": "512p", "num_frames": 16, "num_inference_steps": 50},
        "high": {"resolution": "768p", "num_frames": 24, "num_inference_steps": 80},
        "extreme": {"resolution": "1024p", "num_frames": 32, "num_inference_steps": 100},
    }  # fmt: skip

    @classmethod
    def load(
        cls, folder_or_hub_id: str | Path, *, device: str | None = None, dtype: str = "auto", progress: Progress | None = None,
        tier: int = 0, quantization: str = "none",
    ) -> I2VGenXL:  # fmt: skip
        """Load a checkpoint, a component at a time.

        Args:
            folder_or_hub_id: a local folder in diffusers layout, or a hub id: `ali-vilab/i2vgen-xl`. What is in the
                hub's cache is used without network; otherwise it is fetched (4.6 GB), with a progress bar.
            device: "cpu", "cuda", "cuda:1", "xpu", "mps"; None: the first GPU, else the CPU.
            dtype: "float32", "float16", "bfloat16"; "auto": float16 on a GPU, otherwise float32.
            progress: receives the stage "load" and a step for each of its four components with weights.
            tier: the tier of the memory ladder to begin on; those that offload need no room for all weights on the GPU.
            quantization: int8 or fp8: how the UNet keeps its weights (models/quantize.py).

        Raises:
            ModelError: not found, unreachable, incomplete, damaged, not an I2VGen-XL, or no such device.
            OutOfMemory: the weights do not fit.
        """
        progress = progress or Progress()
        where = choose_device(device)
        number = choose_dtype(dtype, where)
        checkpoint = open_checkpoint(folder_or_hub_id, LAYOUT)
        progress.stage("load", len(LAYOUT.weights))

        def load() -> I2VGenXL:
            place = torch.device("cpu") if TIERS[tier].number >= 3 else where
            parts = load_components(checkpoint, place, number, progress, quantization)
            model = cls(**parts, fingerprint=checkpoint.fingerprint(), device=where)
            model.quantization = quantization
            model.use_tier(tier)
            return model

        where_to = f"{folder_or_hub_id} does not fit into the memory of {where} as {str(number).removeprefix('torch.')}"
        return fitting(load, lambda said: f"{where_to}: {said}; close other programs, or use float16 on a device with 8 GB or more")

    @property
    def components(self) -> Mapping[str, torch.nn.Module]:
        """{component: network}."""
        return {name: getattr(self, name) for name in LAYOUT.weights}

    @classmethod
    def check(cls, params: ClipParams) -> None:
        check_common(cls, params)

    @classmethod
    def advice(cls, params: ClipParams) -> list[Advice]:
        found = []
        steps, (height, width) = params.num_inference_steps, (params.height, params.width)
        if params.scheduler == "ddim" and steps < 50:
            what = Message(f"{steps} is below 50", "steps.few", value=steps)
            found.append(Advice("num_inference_steps", what, "DDIM leaves noise and smears", "use 50 or more"))
        if params.scheduler == "lcm":
            found.append(Advice("scheduler", "lcm", "it is made for distilled networks; on this one clips lose detail", "try ddim"))
        if params.num_frames > 16:
            what = Message(f"{params.num_frames} is above 16", "frames.many", value=params.num_frames)
            found.append(Advice("num_frames", what, "motion fades towards the end", "use 16"))
        if height % 64 or width % 64:
            near = "x".join(str(max(64, round(side / 64) * 64)) for side in (height, width))
            found.append(Advice("resolution", f"{height}x{width} is not made of 64s", "the authors ask for that", f"use {near}"))
        if height > width:
            found.append(Advice("resolution", f"{height}x{width} is taller than wide", "it was trained on wide clips",
                                f"turn it, {width}x{height}, or crop the picture"))  # fmt: skip
        if not params.prompt:
            what = Message("empty", "prompt.empty")
            found.append(Advice("prompt", what, "the motion is left to chance", "say what should happen in the clip"))
        for field in ("prompt", "negative_prompt"):
            if (tokens := estimate_tokens(getattr(params, field))) > CLIP_TOKENS:
                found.append(Advice(field, f"about {tokens} tokens", f"the network reads the first {CLIP_TOKENS} and no more",
                                    "put first what matters, and shorten it"))  # fmt: skip
        return found

    @classmethod
    def pixel_changes(cls, tier: int, params: ClipParams) -> Mapping[str, str]:
        return pixel_changes(tier, params.height, params.width)

    @classmethod
    def tiers(cls, device: str) -> tuple[int, ...]:
        return tiers_on(device)

    @classmethod
    def cost(
        cls, params: ClipParams, *, checkpoint: str, device: str, dtype: str, tier: int = 0, loaded: VideoModel | None = None
    ) -> tuple[StageCost, ...]:  # fmt: skip
        cls.check(params)
        return cost(params, checkpoint=checkpoint, device=device, dtype=dtype, tier=tier, loaded=loaded)

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """Make the clip: stages encode, denoise, decode. See `VideoModel.generate`.

        One generator on the CPU, seeded with `params.seed`, draws float32 numbers in this order, whatever the device
        and dtype: the sample of the picture's latents (1, 4, h, w); the noise (F, 4, h, w); what a stochastic scheduler
        adds, step by step.
        """
        self.check(params)

        def work() -> Frames:
            with prepared(self, params, progress):
                return self.make(image, params, progress)

        return made_within_memory(self, params, work)

    @torch.no_grad()  # and not inference_mode: weights that are moved under it could not be moved again outside
    def make(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """Frames, by the networks as they are now."""
        scheduler = make_scheduler(params.scheduler, self.scheduler_config)
        set_steps(scheduler, params.num_inference_steps)  # an impossible number of steps is an error before any work
        generator = torch.Generator().manual_seed(params.seed)
        pixels = image.crop(params.height, params.width)  # (H, W, 3)
        release(self, *self.offloaders)  # what the clip before left on the device

        progress.stage("encode", 3)
        text = self.encode_prompt(self.tokenize(prompts(params)))
        progress.step()
        conditions = self.encode_picture(pixels, text, params, generator, progress)
        shape = (params.num_frames, self.unet.config.in_channels, params.height // CELL, params.width // CELL)
        noise = torch.randn(shape, generator=generator).to(self.torch_device)  # (F, 4, h, w)
        release(self, "vae")
        latents = self.denoise(noise, conditions, scheduler, params=params, generator=generator, progress=progress)
        release(self, "unet")
        return self.decode(latents, progress)
