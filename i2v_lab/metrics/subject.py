"""Subject consistency by the image encoder of a loaded model. The only metric that needs torch."""

from __future__ import annotations

import math
from typing import Any

from i2v_lab.clip.video import Frames


def subject_consistency(frames: Frames, model: Any) -> float:
    """Mean over frames of their CLIP similarity to the first and to the one before, as VBench does with DINO: 0 to 1.

    Args:
        frames: uint8 RGB, (F, H, W, 3).
        model: with `clip_pixels(pixels, width)` and `look(pixels)`, as I2VGenXL has.

    Returns:
        NaN with one frame.
    """
    import torch

    with torch.inference_mode():
        seen = torch.cat([model.look(model.clip_pixels(frame, frame.shape[1])).flatten(1).float().cpu() for frame in frames])
    seen = torch.nn.functional.normalize(seen, dim=1)  # (F, D)
    to_first, to_last = (seen[1:] @ seen[0]).clamp(0), (seen[1:] * seen[:-1]).sum(1).clamp(0)
    return float((to_first + to_last).mean() / 2) if len(seen) > 1 else math.nan
