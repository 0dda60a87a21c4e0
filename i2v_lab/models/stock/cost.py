"""What a stock family takes, predicted: its pipeline runs once on fake tensors, in a process of its own, and the result is kept on disk.

cost_spec.py finds the configs, cost_process.py has the process, cost_build.py makes the pipeline, cost_fake.py the tensors,
cost_run.py runs a clip, and cost_replay.py saves time there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from i2v_lab.clip.levers import Step, cache_of, kept_as, steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ModelError
from i2v_lab.models import gguf_file
from i2v_lab.models.base import StageCost, VideoModel
from i2v_lab.models.memory.cost_cache import code_of, kept
from i2v_lab.models.openvino import library as openvino
from i2v_lab.models.sampling import calls_of
from i2v_lab.models.stock.cost_process import ask
from i2v_lab.models.stock.cost_spec import Spec, find_spec
from i2v_lab.models.stock.families import Family
from i2v_lab.models.stock.schedulers import make_scheduler, switch_of

STAGES = ("encode", "denoise", "decode")
STEPS = 3  # as many as a scheduler remembers
FRAME_COPIES = 13  # bytes a value of the clip at the end, on a CPU: three times in float32 and once as a byte
PROMPT = " ".join("a" * 30)  # filled up to a fixed length by all but FramePack, which cuts it to its own
TILED = 5  # the tier that decodes in tiles, or with decode_chunk frames at a time
HERE = Path(__file__).parent
CODE = (
    *sorted(HERE.glob("cost*.py")),
    *(HERE / name for name in ("offload.py", "schedulers.py", "watch.py")),
    *(
        HERE.parent / name
        for name in ("checkpoint.py", "levers.py", "quantize.py", "gguf_file.py", "memory/tiers.py", "memory/tracker.py")
    ),
)


def cost(
    family: Family, params: ClipParams, *, checkpoint: str, device: str, dtype: str, tier: int = 0, loaded: VideoModel | None = None,
    file: Path | None = None,
) -> tuple[StageCost, ...]:  # fmt: skip
    """See `VideoModel.cost`. Some seconds for a new shape, milliseconds for one that is on disk.

    Args: file: that has the weights of the first network that denoises; None: the checkpoint has them.
    """
    blocks = gguf_file.quantized(file) if file and file.suffix == gguf_file.SUFFIX else []
    spec = find_spec(family, checkpoint, loaded)

    def found(params: ClipParams, cache: str = "") -> Mapping[str, int]:
        shift = params.flow_shift and family.presets["standard"]["flow_shift"]  # as in _call
        request = {
            "spec": spec, "dtype": dtype, "quantization": kept_as(params), "gguf": blocks, "cache": cache,
            "scheduler": family.scheduler_classes[params.scheduler], "shift": shift,
            "call": _call(family, spec, params, tier), "size": [params.height, params.width],
            "tiling": tier == TILED and not family.decode_chunk,
        }  # fmt: skip
        try:
            return kept([code_of(CODE), request], lambda: ask(request))
        except ModelError as error:
            raise ModelError(f"{family.name}: {error}") from None

    # Tier 5 moves weights as tier 4 does; on a CPU nothing is moved.
    moves = min(tier, 4) if device.startswith("cuda") else 0
    plain = found(params)
    costs = {
        stage: StageCost(stage, plain[f"{stage}.weights.{moves}"], plain[f"{stage}.activations.{moves}"], plain[f"{stage}.flops"])
        for stage in STAGES
    }
    if device == "cpu":
        frames = FRAME_COPIES * params.num_frames * params.height * params.width * 3
        costs["decode"] = replace(costs["decode"], activations=max(costs["decode"].activations, frames))
    steps = steps_of(params, calls_of(params), switch=_switch(family, spec, params))
    activations, flops = _denoising(family, params, Counter(steps), found, moves)
    costs["denoise"] = replace(costs["denoise"], activations=activations, flops=flops)
    more = openvino.resident(
        params, plain["denoise.weights.3"], 0
    )  # with model offload it has the weights of its own network alone
    return tuple(replace(stage, weights=stage.weights + more) for stage in costs.values())


def _denoising(
    family: Family, params: ClipParams, counts: Counter[Step], found: Callable[..., Mapping[str, int]], moves: int
) -> tuple[int, int]:
    """(bytes of activations at the highest point, FLOPs) of all steps, with the levers of a clip."""
    activations = flops = 0
    cache = cache_of(params)
    for step, count in counts.items():
        alone = family.interval and not step.guided
        part = params.replace(guidance_scale=1.0, guidance_interval=None) if alone else params
        if cache is None or not step.reused:
            taken = found(part)
            flops += count * taken["denoise.flops"]
        elif cache.kind == "taylor":  # sums of what was kept, of the size of the latents
            continue
        else:
            taken = found(part, cache.kind)
            again = cache.kind == "faster" and step.attends
            flops += count * taken["denoise.second.flops" if again else "denoise.reused.flops"]
        activations = max(activations, taken[f"denoise.activations.{moves}"])
    if cache and cache.kind == "mag":  # which of its steps reuse is not known here; what it keeps is
        activations = max(activations, found(params, cache.kind)[f"denoise.activations.{moves}"])
    return activations, flops


def _switch(family: Family, spec: Spec, params: ClipParams) -> int | None:
    """The step at which the second of two networks takes over."""
    boundary = spec["options"].get("boundary_ratio")
    if len(family.denoisers) < 2 or boundary is None or cache_of(params) is None:
        return None
    import diffusers

    about = spec["parts"]["scheduler"]
    own = getattr(diffusers, about["class"][1]).from_config(about["config"])
    scheduler = make_scheduler(family.scheduler_classes[params.scheduler], own, params.flow_shift)
    return switch_of(scheduler, params.num_inference_steps, boundary)


def _call(family: Family, spec: Spec, params: ClipParams, tier: int) -> dict[str, Any]:
    """The pipeline's arguments. What changes no cost is the same for all clips, so that its result is found again."""
    standard = family.presets["standard"]
    same: dict[str, Any] = {"num_inference_steps": min(params.num_inference_steps, STEPS)}
    for field in family.takes:
        value = getattr(params, field)
        if field in ("prompt", "negative_prompt"):
            same[field] = PROMPT
        elif value is not None and ("guidance" in field or "cfg" in field):
            same[field] = 2.0 if value > 1 else 1.0
        elif field not in ("height", "width", "num_frames", "num_inference_steps") and value and standard.get(field):
            same[field] = standard[field]
    plain = params.replace(**same)
    dotted = {argument: getattr(plain, field) for field, argument in family.takes.items() if "." in argument}
    return {**family.arguments(plain, tier), **dotted, **spec["arguments"]}
