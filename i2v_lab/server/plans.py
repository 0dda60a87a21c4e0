"""Plans for the API, computed in a process of their own: fake tensors keep Python busy, and all other answers would wait."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def work_out(plain: Mapping[str, Any], device: str, parallel: int, directory: Path) -> dict[str, Any]:
    """The fields of PlanAnswer for params.

    Args:
        plain: ClipParams as JSON. device, parallel: of the settings.
        directory: the output folder; its runs show how fast this device is.

    Raises:
        I2VLabError: there is no plan.
    """
    from i2v_lab.clip.params import ClipParams
    from i2v_lab.cost import plan
    from i2v_lab.errors import ModelError, UnsupportedParams
    from i2v_lab.server.body import without_paths
    from i2v_lab.store import Store

    params = ClipParams(**plain)
    try:
        found = plan(params, device=device, store=Store(directory), parallel=parallel)
    except ModelError as error:  # a model whose cost nobody can predict is no fault of the request
        unknown = dict.fromkeys(("tier", "peak_gib", "free_gib", "flops", "seconds"))
        fits = False if isinstance(error, UnsupportedParams) else None
        return {**unknown, "fits": fits, "sentence": without_paths(str(error)), "nearest": []}
    return {
        "fits": found.fits, "sentence": without_paths(found.sentence()), "tier": found.tier, "peak_gib": found.peak_gib,
        "free_gib": found.free_gib, "flops": float(found.flops), "seconds": found.seconds,
        "nearest": [near.plain() for near in found.nearest],
    }  # fmt: skip
