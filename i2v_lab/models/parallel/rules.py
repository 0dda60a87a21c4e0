"""What can be made on several devices, what that changes in a clip's key, and what each device then holds. No torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from i2v_lab.clip.levers import NEUTRAL, cache_of
from i2v_lab.errors import I2VLabError, UnsupportedParams

if TYPE_CHECKING:
    from i2v_lab.clip.params import ClipParams
    from i2v_lab.models.base import StageCost, VideoModel

TIERS = (0, 3)  # of the memory ladder: the others move or cut what the devices share
CACHES = ("deep", "pab", "taylor")  # they decide by the number of the step, so that all devices decide alike


def check(kind: type[VideoModel], params: ClipParams, count: int, checkpoint: str = "") -> None:
    """Raise UnsupportedParams, in one line, where `count` devices cannot make this clip of a family together.

    Args:
        params: resolved. count: 1 is always possible.
        checkpoint: folder or hub id, whose network's config counts if it is on this machine; "": the published one.
    """
    if count == 1:
        return
    if not kind.shares:
        raise UnsupportedParams(
            f"parallel: {kind.name} makes a clip on one device, got {count}; leave it at 1, or choose {_able()}"
        )
    if (cache := cache_of(params)) and cache.kind not in CACHES:
        raise UnsupportedParams(
            f"cache: with parallel {count} expected {', '.join(CACHES)}, got {params.cache}; leave one of them out"
        )
    for lever in ("quantization", "backend", "compile", "attention"):
        if (value := getattr(params, lever)) not in (None, NEUTRAL.get(lever)):
            raise UnsupportedParams(f"{lever}: with parallel {count} expected {NEUTRAL[lever]}, got {value}; leave one of them out")
    if kind.shares == "guidance":
        if count != 2 or params.guidance_scale <= 1:
            raise UnsupportedParams(f"parallel: {kind.name} shares the two passes of guidance between 2 devices, got {count} devices and "
                                    f"guidance_scale {params.guidance_scale:g}; use 2 and a guidance_scale above 1, or 1 device")  # fmt: skip
        return
    tokens = tokens_of(kind, params)
    if tokens % count:
        raise UnsupportedParams(f"parallel: expected a number that divides the {tokens} tokens of {params.num_frames} frames of "
                                f"{params.height}x{params.width}, got {count}; use {_dividing(tokens)}, or another size or length")  # fmt: skip
    heads = heads_of(kind, checkpoint)
    if heads % count:
        raise UnsupportedParams(f"parallel: expected a number that divides the {heads} attention heads of {kind.name}, got {count}; use "
                                f"{_dividing(heads)}")  # fmt: skip


def _able() -> str:
    from i2v_lab.models.stock.families import FAMILIES

    return ", ".join(["i2vgen-xl", *(name for name, family in FAMILIES.items() if family.shares)])


def _dividing(number: int) -> str:
    return " or ".join(str(count) for count in (1, 2, 4, 8) if number % count == 0)


def tokens_of(kind: type[VideoModel], params: ClipParams) -> int:
    """How many tokens the network has for a clip: one for each cell of `size_multiple` pixels of each frame of latents."""
    step = kind.size_multiple
    return ((params.num_frames - 1) // kind.frame_rule.step + 1) * (params.height // step) * (params.width // step)


def heads_of(kind: type[VideoModel], checkpoint: str = "") -> int:
    """The number of attention heads of the network that denoises; 8 where its config is not known."""
    from i2v_lab.models.stock.cost_spec import find_spec
    from i2v_lab.models.stock.families import FAMILIES

    family = FAMILIES[kind.name]
    try:
        return int(find_spec(family, checkpoint)["parts"][family.denoisers[0]]["config"]["num_attention_heads"])
    except (I2VLabError, KeyError, TypeError, ValueError):
        return 8


def devices_of(device: str, count: int) -> tuple[str, ...]:
    """The devices of a clip, the first one given: cuda:1 and 2 are cuda:1, cuda:2. On a CPU all of them are the CPU."""
    if count == 1 or not device.startswith("cuda"):
        return (device,)
    first = int(device.partition(":")[2] or 0)
    return tuple(f"cuda:{number}" for number in range(first, first + count))


def key_change(count: int) -> Mapping[str, str]:
    """What a clip's key has to know: parts of all tokens, or one pass, go through matrix products of another shape."""
    return {} if count == 1 else {"denoised": f"on {count} devices"}


def name_of(device_name: str, count: int) -> str:
    """The name of a device, in a record; several of them are another device as to time and memory."""
    return device_name if count == 1 else f"{count} x {device_name}"


def share(stages: tuple[StageCost, ...], count: int) -> tuple[StageCost, ...]:
    """What each of the devices takes of a clip: all weights; the activations and the work of denoising are shared."""
    return tuple(
        replace(stage, activations=-(-stage.activations // count), flops=stage.flops // count)
        if stage.stage == "denoise"
        else stage
        for stage in stages
    )
