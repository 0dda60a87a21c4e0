"""What a stock family takes, predicted: its pipeline runs once on fake tensors, in a process of its own, and the result is kept on disk.

cost_spec.py finds the configs, cost_process.py has the process, cost_build.py makes the pipeline, cost_fake.py the tensors,
cost_run.py runs a clip, and cost_replay.py saves time there.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ModelError
from i2v_lab.models.base import StageCost, VideoModel
from i2v_lab.models.memory.cost_cache import kept
from i2v_lab.models.stock.cost_process import ask
from i2v_lab.models.stock.cost_spec import Spec, find_spec
from i2v_lab.models.stock.families import Family

STAGES = ("encode", "denoise", "decode")
STEPS = 3  # as many as a scheduler remembers
TWICE = ("heun",)  # schedulers that call the network twice a step, except the last
FRAME_COPIES = 13  # bytes a value of the clip at the end, on a CPU: three times in float32 and once as a byte
PROMPT = " ".join("a" * 30)  # filled up to a fixed length by all but FramePack, which cuts it to its own
TILED = 5  # the tier that decodes in tiles, or with decode_chunk frames at a time
CODE = (
    "cost.py",
    "cost_build.py",
    "cost_fake.py",
    "cost_process.py",
    "cost_replay.py",
    "cost_run.py",
    "offload.py",
    "schedulers.py",
)


def cost(
    family: Family, params: ClipParams, *, checkpoint: str, device: str, dtype: str, tier: int = 0, loaded: VideoModel | None = None
) -> tuple[StageCost, ...]:
    """See `VideoModel.cost`. Some seconds for a new shape, milliseconds for one that is on disk."""
    spec = find_spec(family, checkpoint, loaded)
    shift = params.flow_shift and family.presets["standard"]["flow_shift"]  # as in _call
    request = {
        "spec": spec, "dtype": dtype, "scheduler": family.scheduler_classes[params.scheduler], "shift": shift,
        "call": _call(family, spec, params, tier), "size": [params.height, params.width], "tiling": tier == TILED and not family.decode_chunk,
    }  # fmt: skip
    try:
        found = kept([_code(), request], lambda: ask(request))
    except ModelError as error:
        raise ModelError(f"{family.name}: {error}") from None
    # Tier 5 moves weights as tier 4 does; on a CPU nothing is moved.
    moves = min(tier, 4) if device.startswith("cuda") else 0
    steps = 2 * params.num_inference_steps - 1 if params.scheduler in TWICE else params.num_inference_steps
    stages = []
    for stage in STAGES:
        weights, activations = found[f"{stage}.weights.{moves}"], found[f"{stage}.activations.{moves}"]
        if stage == "decode" and not device.startswith("cuda"):
            activations = max(activations, FRAME_COPIES * params.num_frames * params.height * params.width * 3)
        stages.append(StageCost(stage, weights, activations, found[f"{stage}.flops"] * (steps if stage == "denoise" else 1)))
    return tuple(stages)


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


@functools.cache
def _code() -> str:
    """A hash of the code that is run, and the versions of the libraries that it runs through."""
    here = Path(__file__).parent
    memory = here.parent / "memory"
    files = (*(here / name for name in CODE), memory / "tiers.py", memory / "tracker.py")
    versions = [importlib.metadata.version(package).encode() for package in ("torch", "diffusers", "transformers")]
    return hashlib.sha256(b"".join([*(path.read_bytes() for path in files), *versions])).hexdigest()
