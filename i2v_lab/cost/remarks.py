"""What a forecast says of the levers and the LoRAs of a clip, beside its figures."""

from __future__ import annotations

from collections.abc import Sequence

from i2v_lab.clip.levers import BACKENDS, at_most, cache_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import Message


def remarks(params: ClipParams, of_standard: float | None) -> list[Message]:
    """The remarks, each without a full stop.

    Args:
        of_standard: see `Forecast`.
    """
    found = []
    if at_most(params):
        found.append(Message("what the cache saves depends on the clip", "plan.by_data"))
        if (cache := cache_of(params)) and cache.kind == "mag":
            more = "the first clip of these settings measures the cache's ratios, which takes one run more without the cache"
            found.append(Message(more, "plan.calibrates"))
    if params.backend in BACKENDS:
        more = "the networks are converted once a shape, which takes minutes and is not in this time"
        found.append(Message(more, "plan.converts"))
    if not at_most(params) and of_standard is not None and abs(of_standard - 1) > 0.005:
        share = f"{of_standard:.2g}"
        found.append(Message(f"{share} of the FLOPs of standard", "plan.share", share=share))
    return found


def nearest_words(params: ClipParams, nearest: Sequence[ClipParams]) -> Message:
    """What would fit, of `Forecast.nearest`."""
    if not nearest:
        return Message("no smaller one of these fits either; use another device, or close other programs", "plan.none")
    shown = [f"{near.resolution}" if near.num_frames == params.num_frames else f"{near.num_frames} frames" for near in nearest]
    return Message(f"nearest that fits: {', or '.join(shown)}", "plan.nearest", settings=" / ".join(shown))
