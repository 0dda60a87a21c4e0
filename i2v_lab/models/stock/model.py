"""PipelineModel: any family of the table as a VideoModel, by the pipeline of diffusers as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from i2v_lab.clip.levers import BACKENDS, cache_of, kept_as, steps_of
from i2v_lab.clip.params import Advice, ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.sound import with_sound
from i2v_lab.clip.video import Frames
from i2v_lab.errors import BadFrames, Message, UnsupportedParams
from i2v_lab.models import gguf_file
from i2v_lab.models.base import StageCost, VideoModel, check_common, made_within_memory
from i2v_lab.models.checkpoint import Layout, open_checkpoint, quiet_libraries
from i2v_lab.models.device import choose_device, choose_dtype
from i2v_lab.models.levers import Clock, caching
from i2v_lab.models.memory.ladder import fitting
from i2v_lab.models.memory.tiers import TIERS
from i2v_lab.models.prepare import prepared
from i2v_lab.models.sampling import calls_of, forked, numpy_quiet
from i2v_lab.models.stock import lora
from i2v_lab.models.stock.calibrate import calibrated
from i2v_lab.models.stock.families import Family
from i2v_lab.models.stock.load import load_pipeline
from i2v_lab.models.stock.offload import put_on, undo
from i2v_lab.models.stock.schedulers import make_scheduler, switch_of
from i2v_lab.models.stock.watch import Watch, networks, set_parts


class PipelineModel(VideoModel):
    """A family of the table, loaded. Each family has a subclass, made by `model_class`; it satisfies `VideoModel`.

    Attributes:
        family: the entry of the table. pipe: diffusers' pipeline. fingerprint, device, dtype, tier, remarks: see VideoModel.
    """

    family: ClassVar[Family]
    layout: ClassVar[Layout]

    def __init__(self, pipe: Any, *, fingerprint: str, device: torch.device, dtype: torch.dtype) -> None:
        self.pipe, self.fingerprint, self.torch_device = pipe, fingerprint, device
        self.device, self.dtype = str(device), str(dtype).removeprefix("torch.")
        self.tier: int = -1
        self.quantization = "none"
        self.own_scheduler = pipe.scheduler
        self.remarks: tuple[str, ...] = ()
        self.loras: str | None = None  # those that are in it, by content
        for network in networks(pipe).values():
            network.eval()  # a pipeline made by hand is in training mode: dropout would draw from the global generator

    @classmethod
    def load(
        cls, folder_or_hub_id: str | Path, *, device: str | None = None, dtype: str = "auto", progress: Progress | None = None,
        tier: int = 0, quantization: str = "none",
    ) -> PipelineModel:  # fmt: skip
        """Load a checkpoint, a component at a time.

        Args:
            folder_or_hub_id: a local folder in diffusers layout, or a hub id. What is in the hub's cache is used without network.
            device: "cpu", "cuda", "cuda:1", "xpu", "mps"; None: the first GPU, else the CPU.
            dtype: "float32", "float16", "bfloat16"; "auto": the family's own on a GPU, otherwise float32.
            progress: receives the stage "load" and a step for each component with weights.
            tier: the tier of the memory ladder to begin on; those that offload need no room for all weights on the GPU.
            quantization: int8 or fp8: how the networks that denoise keep their weights (models/quantize.py).

        Raises:
            ModelError: not found, unreachable, incomplete, damaged, of another family, or no such device.
            OutOfMemory: the weights do not fit.
        """
        progress = progress or Progress()
        where = choose_device(device)
        number = choose_dtype(dtype, where, cls.cuda_dtype)
        checkpoint = open_checkpoint(folder_or_hub_id, cls.layout)
        progress.stage("load", len(checkpoint.variants))

        def load() -> PipelineModel:
            place = torch.device("cpu") if TIERS[tier].number >= 3 else where
            pipe = load_pipeline(checkpoint, cls.family, number, place, progress, quantization)
            model = cls(pipe, fingerprint=checkpoint.fingerprint(), device=where, dtype=number)
            model.quantization = quantization
            model.use_tier(tier)
            return model

        where_to = f"{folder_or_hub_id} does not fit into the memory of {where} as {str(number).removeprefix('torch.')}"
        return fitting(load, lambda said: f"{where_to}: {said}; close other programs, or use a device with more memory")

    @classmethod
    def check(cls, params: ClipParams) -> None:
        check_common(cls, params)
        lora.check(cls.family, params.lora)
        elsewhere = params.backend in BACKENDS
        if cls.layout.file and cls.layout.file.suffix == gguf_file.SUFFIX and (elsewhere or kept_as(params) != "none"):
            field, value = ("backend", params.backend) if elsewhere else ("quantization", params.quantization)
            raise UnsupportedParams(f"{field}: {cls.layout.file.name} is quantized already, got {value}; leave it out")

    @classmethod
    def advice(cls, params: ClipParams) -> list[Advice]:
        found = []
        if "prompt" in cls.reads and not params.prompt:
            what = Message("empty", "prompt.empty")
            found.append(Advice("prompt", what, "the motion is left to chance", "say what should happen in the clip"))
        native, pixels = cls.native_size[0] * cls.native_size[1], params.height * params.width
        if not native / 4 <= pixels <= native * 1.3:
            size = "x".join(map(str, cls.native_size))
            found.append(
                Advice("resolution", f"{params.height}x{params.width} is far from {size}", "it was trained on that", "try auto")
            )
        if (
            params.guidance_scale <= 1
            and params.negative_prompt
            and params.negative_prompt != cls.presets["standard"].get("negative_prompt", "")
        ):
            found.append(Advice("negative_prompt", "there is no guidance", "it is not read then", "use a guidance_scale above 1"))
        return found

    @classmethod
    def tiers(cls, device: str) -> tuple[int, ...]:
        """The tiers of the memory ladder on a device. On a CPU those that offload mean nothing."""
        return tuple(number for number in cls.family.tiers if device.startswith("cuda") or not TIERS[number].cuda_only)

    @classmethod
    def pixel_changes(cls, tier: int, params: ClipParams) -> Mapping[str, str]:
        """See VideoModel.pixel_changes. Diffusers' tiles have no lower limit in common, so tier 5 always counts."""
        if tier != 5:
            return {}
        chunk = cls.family.decode_chunk
        return {"decoded": f"{chunk[1]} frame at a time" if chunk else "in tiles"}

    @classmethod
    def cost(
        cls, params: ClipParams, *, checkpoint: str, device: str, dtype: str, tier: int = 0, loaded: VideoModel | None = None
    ) -> tuple[StageCost, ...]:  # fmt: skip
        from i2v_lab.models.stock.cost import cost

        cls.check(params)
        return cost(cls.family, params, checkpoint=checkpoint, device=device, dtype=dtype, tier=tier, loaded=loaded,
                    file=cls.layout.file)  # fmt: skip

    def use_tier(self, number: int) -> None:
        """Run on a tier from now on. Where the weights do not fit, another tier can still be used."""
        if number not in (possible := self.tiers(self.device)):
            raise ValueError(f"expected a tier of {', '.join(map(str, possible))} on {self.device}, got {number}")
        if number != self.tier:
            self.tier = -1
            put_on(self.pipe, number, self.torch_device, offloads=self.torch_device.type != "cpu")
            self.tier = number

    def use_loras(self, params: ClipParams) -> None:
        """Have the LoRAs of these params in the networks, and no others. Those of the clip before stay, where they are the same.

        Raises:
            ModelError: a file is missing, damaged or of another family; peft is missing.
        """
        known = lora.by_content(params)
        if known is None or known.lora == self.loras:
            return
        tier, self.tier, self.loras = self.tier, -1, None  # hooks know the networks as they were without
        undo(self.pipe)
        lora.put_into(self.pipe, self.family, lora.parse(params.lora))
        self.loras = known.lora
        self.use_tier(tier)

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """Make the clip: stages encode, denoise, decode. See `VideoModel.generate`.

        One generator on the CPU, seeded with `params.seed`, is given to the pipeline; torch's global one is seeded alike for what some
        pipelines draw from it, and is put back.
        """
        self.check(params)

        def work() -> Frames:
            self.use_loras(params)
            with quiet_libraries(), prepared(self, params, progress):
                return self.make(image, params, progress)

        return made_within_memory(self, params, work)

    @property
    def components(self) -> Mapping[str, torch.nn.Module]:
        """{component: network}."""
        return networks(self.pipe)

    def make(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """Frames, by the networks as they are now."""
        cache = cache_of(params)
        ratios = calibrated(self, params, progress) if cache and cache.kind == "mag" else ()
        steps = steps_of(params, calls_of(params), switch=self._switch(params), ratios=ratios)
        self.remarks = (f"mag: {sum(step.reused for step in steps)} of {len(steps)} steps reused",) if ratios else ()
        made = self.run(image, params, progress, Clock(steps), lambda networks, clock: caching(networks, cache, clock))
        frames = made.frames[0]  # (F, H, W, 3), 0 to 1
        if not np.isfinite(frames).all():
            raise BadFrames("decode: expected finite numbers, got others in the frames; use dtype bfloat16 or float32")
        shown: Frames = np.asarray((frames * 255).round(), np.uint8)
        if (heard := getattr(made, "audio", None)) is None:
            return shown
        rate = int(self.pipe.vocoder.config.output_sampling_rate)
        return with_sound(shown, heard[0].float().cpu().numpy(), rate, Fraction(params.condition_fps))

    def run(
        self, image: Picture, params: ClipParams, progress: Progress, clock: Clock,
        hooked: Callable[[list[torch.nn.Module], Clock], AbstractContextManager[Any]], output: str = "np",
    ) -> Any:  # fmt: skip
        """What the pipeline gives.

        Args:
            clock: counts the steps. hooked: is entered with the networks that denoise, for the run.
            output: "np": frames; "latent": latents, which are not decoded.
        """
        self.pipe.scheduler = self._scheduler(params)
        picture = Image.fromarray(image.crop(params.height, params.width))
        self._set_parts(params)
        try:
            with (
                quiet_libraries(),
                Watch(self.pipe, self.family, params, progress, clock) as watch,
                hooked([getattr(self.pipe, name) for name in self.family.denoisers], clock),
                forked(self.torch_device),
                torch.no_grad(),
                numpy_quiet(),
            ):
                torch.manual_seed(params.seed)
                return self.pipe(
                    image=picture, **self.family.arguments(params, self.tier), output_type=output,
                    generator=torch.Generator().manual_seed(params.seed), **watch.callback,
                )  # fmt: skip
        finally:
            self.pipe.scheduler = self.own_scheduler

    def _scheduler(self, params: ClipParams) -> Any:
        return make_scheduler(self.family.scheduler_classes[params.scheduler], self.own_scheduler, params.flow_shift)

    def _switch(self, params: ClipParams) -> int | None:
        boundary = self.pipe.config.get("boundary_ratio") if len(self.family.denoisers) > 1 else None
        return switch_of(self._scheduler(params), params.num_inference_steps, boundary)

    def _set_parts(self, params: ClipParams) -> None:
        """Give components the values that the pipeline takes from them, and hold the size against the one that it would make."""
        set_parts(self.pipe, {argument: getattr(params, field) for field, argument in self.family.takes.items()})
        if (area := getattr(self.pipe, "target_size", None)) is not None:  # it makes its own size of the picture's
            made = self.pipe.video_processor.calculate_default_height_width(params.height, params.width, area)
            if made != (params.height, params.width):
                near = "x".join(map(str, made))
                raise UnsupportedParams(
                    f"resolution: this checkpoint makes {near} of such a picture, got {params.resolution}; nearest: {near}"
                )


_classes: dict[tuple[str, Path | None], tuple[Family, type[PipelineModel]]] = {}


def model_class(family: Family, file: Path | None = None) -> type[PipelineModel]:
    """The class of a family's models; the same each time.

    Args:
        file: a safetensors or GGUF file that has the weights of its network, in place of those of the checkpoint.
    """
    known = family.name, file
    if known not in _classes or _classes[known][0] is not family:
        fields = {
            "family": family, "layout": Layout(
                (family.pipeline, *family.indexed), cuda_dtype=family.cuda_dtype, file=file, filed=family.denoisers[0]
            ),
            "licence": f"{family.licence} ({family.hub})" if family.hub else family.licence,
            "schedulers": tuple(family.scheduler_classes), "reads": family.reads,
            **{name: getattr(family, name) for name in SHARED},
        }  # fmt: skip
        _classes[known] = family, type(family.pipeline, (PipelineModel,), fields)
    return _classes[known][1]


SHARED = (
    "name", "about", "condition", "size_gb", "native_size", "native_fps", "size_multiple", "sizes", "only_sizes", "frame_rule",
    "cuda_dtype", "threads", "shares", "presets", "caches", "levers",
)  # fmt: skip
