"""The one seam for models: what every video model is and does.

A family is a class; its attributes say what it is before anything is loaded (`name`, `licence`, `presets`, `check`,
`advice`). A loaded model is an instance: it adds `fingerprint`, `device` and `dtype`, and the one method that works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, get_args, runtime_checkable

from i2v_lab.clip.levers import CACHES, NEUTRAL, cache_of, kept_as
from i2v_lab.clip.params import OPTIONAL, SQUARES, Advice, ClipParams, Scheduler
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.video import Frames
from i2v_lab.errors import UnsupportedParams
from i2v_lab.models.frame_rule import FrameRule
from i2v_lab.models.memory.ladder import fitting
from i2v_lab.models.openvino import library as openvino
from i2v_lab.models.stock.families import FAMILIES as STOCK


@dataclass(frozen=True)
class StageCost:
    """What one stage of one clip takes: a prediction.

    Attributes:
        stage: encode, denoise or decode.
        weights: bytes of weights that are on the device at the highest point of the stage.
        activations: bytes of everything else that the stage holds there at once.
        flops: floating-point operations of the whole stage, all steps and frames; a multiply and an add are two.
    """

    stage: str
    weights: int
    activations: int
    flops: int

    @property
    def total(self) -> int:
        """Bytes at the highest point of the stage."""
        return self.weights + self.activations


@runtime_checkable
class VideoModel(Protocol):
    """What `run_clip` needs of a model. It never resizes or rounds silently: `check` says what it cannot do.

    Class attributes, known before anything is loaded; what has a value here is so in the families that have a sampling loop of their own
    (closed-form, I2VGen-XL, fake), unless they say otherwise:
        name: the model family (closed-form, i2vgen-xl).
        about: one sentence on what it is.
        licence: of the weights, or of the code where there are none. condition: what it asks for, in one sentence.
        size_gb: of the checkpoint's download, about; 0 where there is none.
        native_size: (height, width) in pixels that it is made for.
        native_fps: frames a second that it is made for.
        size_multiple: height and width must be multiples of this, in pixels.
        sizes: what its users mean by "480p" and the like, {name: (height, width)}, wider than high.
        only_sizes: the sizes that it makes, (height, width), where they are few; (): any in multiples.
        frame_rule: which numbers of frames it makes.
        reads: which fields of OPTIONAL it reads; the others must stay at their defaults.
        caches: the kinds of cache that it works with, of clip/levers.py.
        levers: the values of other levers that it works with beside those that change nothing, such as {"quantization": ("int8",)}.
        schedulers: those that it works with.
        cuda_dtype: the number format that "auto" means on CUDA.
        threads: whether the number of threads of the CPU changes pixels.
        shares: what several devices share of a step of denoising: "tokens", "guidance" (its two passes), or "": nothing.
        presets: quick, few-steps, fast, fast-cpu, standard, high, extreme: fields of ClipParams. "standard" is the family's default; "fast" has
            its steps, and levers, "fast-cpu" those of a CPU too; "few-steps" has a LoRA that was distilled to few.

    Attributes of a loaded model:
        fingerprint: a text that changes with everything in the model that decides pixels.
        device: where it computes: "cpu", "cuda:0".
        dtype: "float32", "float16" or "bfloat16".
        tier: the tier of the memory ladder that it runs on (models/memory/tiers.py); 0: nothing is done to save memory.
        remarks: what the record notes of the last clip; a model may have none.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    licence: ClassVar[str]
    condition: ClassVar[str] = "free for any use, commercial too"
    size_gb: ClassVar[float] = 0.0
    native_size: ClassVar[tuple[int, int]]
    native_fps: ClassVar[int] = 8
    size_multiple: ClassVar[int]
    sizes: ClassVar[Mapping[str, tuple[int, int]]] = {f"{side}p": (side, side) for side in SQUARES}
    only_sizes: ClassVar[tuple[tuple[int, int], ...]] = ()
    frame_rule: ClassVar[FrameRule] = FrameRule()
    reads: ClassVar[frozenset[str]] = frozenset(("prompt", "negative_prompt", "condition_fps", "guidance_interval"))
    caches: ClassVar[tuple[str, ...]] = ()
    levers: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    schedulers: ClassVar[tuple[str, ...]] = get_args(Scheduler)
    cuda_dtype: ClassVar[str] = "float16"
    threads: ClassVar[bool] = False
    shares: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    fingerprint: str
    device: str
    dtype: str
    tier: int

    @classmethod
    def check(cls, params: ClipParams) -> None:
        """Raise UnsupportedParams, naming the nearest params that work, if this family cannot make the clip."""

    @classmethod
    def advice(cls, params: ClipParams) -> list[Advice]:
        """What this family is known to do badly with these params."""

    @classmethod
    def tiers(cls, device: str) -> tuple[int, ...]:
        """The tiers of the memory ladder that this family has on a device, in the order they are tried."""

    @classmethod
    def pixel_changes(cls, tier: int, params: ClipParams) -> Mapping[str, str]:
        """What a clip's key has to know of a tier, {what: how}: nothing where the pixels stay as they are on tier 0."""
        return {}

    @classmethod
    def cost(
        cls, params: ClipParams, *, checkpoint: str, device: str, dtype: str, tier: int = 0, loaded: VideoModel | None = None
    ) -> tuple[StageCost, ...]:
        """What each stage (encode, denoise, decode) of a clip will take, without loading any weights or running it.

        Args:
            checkpoint: folder or hub id whose configs count if it is on this machine; "": the published ones.
            device: where it would run: "cpu", "cuda", "cuda:1". It need not be there.
            dtype: "float32", "float16" or "bfloat16".
            tier: one of `tiers(device)`.
            loaded: a model of this family: its own configs count, whatever `checkpoint` says.

        Raises:
            UnsupportedParams: as `check`. ModelError: the configs of the checkpoint cannot be used.
        """

    def use_tier(self, number: int) -> None:
        """Run on this tier from now on; one of `tiers(device)`. Nothing is computed again or loaded again."""

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """Make the clip: stages encode, denoise, decode. The model crops the picture itself (`image.crop`).

        Returns:
            uint8 RGB, (num_frames, height, width, 3).

        Raises:
            Stop: from a listener. OutOfMemory, BadFrames: see errors.py.
        """


class Weightless(VideoModel):
    """What families without weights share: they compute on the CPU, in float32, on tier 0 alone."""

    device = "cpu"
    dtype = "float32"
    tier = 0

    @classmethod
    def tiers(cls, device: str) -> tuple[int, ...]:
        """See VideoModel.tiers."""
        return (0,)

    def use_tier(self, number: int) -> None:
        """See VideoModel.use_tier."""
        if number != 0:
            raise ValueError(f"tier: {type(self).__name__} has tier 0 alone, got {number}")


def made_within_memory(model: VideoModel, params: ClipParams, make: Callable[[], Frames]) -> Frames:
    """The frames that `make` gives; both errors are those of `VideoModel.generate`.

    Raises:
        UnsupportedParams: the model was loaded in another number format, or its weights are kept otherwise. OutOfMemory: memory was short.
    """
    if params.dtype not in ("auto", model.dtype):
        raise UnsupportedParams(f"dtype: this model was loaded as {model.dtype}, got {params.dtype}; nearest: {model.dtype}")
    if (asked := kept_as(params)) != (kept := getattr(model, "quantization", "none")):
        raise UnsupportedParams(f"quantization: this model was loaded with {kept}, got {asked}; load it again with {asked}")
    clip = f"{params.num_frames} frames of {params.height}x{params.width} in {model.dtype}"
    return fitting(
        make,
        lambda said: f"{clip} do not fit into the memory of {model.device} ({said}); make fewer frames or a smaller resolution",
    )


def check_common(kind: type[VideoModel], params: ClipParams) -> None:
    """Raise UnsupportedParams, with the nearest that works: size, frames, scheduler, or a field that the family does not read."""
    multiple, name, (height, width) = kind.size_multiple, kind.name, (params.height, params.width)
    if kind.only_sizes and (height, width) not in kind.only_sizes:
        near = "x".join(map(str, kind.only_sizes[0]))
        what = f"makes {near} alone"
        if len(kind.only_sizes) > 1:
            near = "x".join(map(str, nearest_size(kind, height, width)))
            what = f"makes one size for each shape, {len(kind.only_sizes)} in all (auto takes the picture's)"
        raise UnsupportedParams(f"resolution: {name} {what}, got {height}x{width}; nearest: {near}")
    if height % multiple or width % multiple:
        near = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in (height, width))
        raise UnsupportedParams(
            f"resolution: {name} makes sizes in multiples of {multiple} pixels, got {height}x{width}; nearest: {near}"
        )
    if (frames := kind.frame_rule.nearest(params.num_frames)) != params.num_frames:
        raise UnsupportedParams(f"num_frames: {name} makes {kind.frame_rule}, got {params.num_frames}; nearest: {frames}")
    if params.scheduler not in kind.schedulers:
        raise UnsupportedParams(
            f"scheduler: {name} works with {', '.join(kind.schedulers)}, got {params.scheduler}; nearest: {kind.schedulers[0]}"
        )
    for field in OPTIONAL:
        if field not in kind.reads and (value := getattr(params, field)) not in (
            ClipParams.model_fields[field].default,
            NEUTRAL.get(field),
        ):
            raise UnsupportedParams(f"{field}: {name} does not read it, got {value!r}; leave it out{_readers(field)}")
    if (asked := cache_of(params)) and asked.kind not in kind.caches:
        near = f"{kind.caches[0]}:{CACHES[kind.caches[0]].default:g}"
        raise UnsupportedParams(f"cache: {name} works with {', '.join(kind.caches)}, got {params.cache}; nearest: {near}")
    if asked and asked.kind == "faster" and params.guidance_scale <= 1:
        raise UnsupportedParams(
            f"cache: faster saves passes under the negative prompt, and at guidance_scale {params.guidance_scale:g} there are none; nearest: pab:2"
        )
    if params.compile == "regional" and asked and asked.kind not in ("deep", "taylor"):
        raise UnsupportedParams(
            f"compile: regional does not work with cache {params.cache}, which changes the blocks; leave one of them out"
        )
    for field, values in kind.levers.items():
        if (value := getattr(params, field)) not in (None, NEUTRAL[field], *values):
            raise UnsupportedParams(f"{field}: {name} works with {', '.join(values)}, got {value}; nearest: {values[0]}")
    openvino.check(params)


def nearest_size(kind: type[VideoModel], height: int, width: int) -> tuple[int, int]:
    """Of a family's `only_sizes` the one nearest to a size."""
    return min(kind.only_sizes, key=lambda size: abs(math.log(size[0] / height)) + abs(math.log(size[1] / width)))


def _readers(field: str) -> str:
    """The families that read a field, in words; "" where there are none."""
    reads = {
        "closed-form": VideoModel.reads,
        "i2vgen-xl": VideoModel.reads | {"cache", "backend", "quantization", "compile"},
        **{family.name: family.reads for family in STOCK.values()},
    }
    those, others = [name for name in reads if field in reads[name]], [name for name in reads if field not in reads[name]]
    if not those:
        return ""
    return (
        f", or choose any model but {', '.join(others)}"
        if len(those) > len(others)
        else f", or choose a model that does: {', '.join(those)}"
    )
