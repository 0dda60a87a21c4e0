"""Plans for the API, computed in a process of their own: fake tensors keep Python busy, and all other answers would wait."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOOK_SECONDS = 2.0


def follow_parent() -> None:
    """End this process with its parent, also where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def work_out(plain: Mapping[str, Any], device: str, directory: Path) -> dict[str, Any]:
    """The fields of PlanAnswer for params.

    Args:
        plain: ClipParams as JSON. device: of the settings.
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
        found = plan(params, device=device, store=Store(directory))
    except ModelError as error:  # a model whose cost nobody can predict is no fault of the request
        unknown = dict.fromkeys(("tier", "peak_gib", "free_gib", "flops", "seconds"))
        fits = False if isinstance(error, UnsupportedParams) else None
        return {**unknown, "fits": fits, "sentence": without_paths(str(error)), "nearest": []}
    names = ("resolution", "num_frames")
    return {
        "fits": found.fits, "sentence": without_paths(found.sentence()), "tier": found.tier, "peak_gib": found.peak_gib, "free_gib": found.free_gib,
        "flops": float(found.flops), "seconds": found.seconds,
        "nearest": [{name: getattr(near, name) for name in names} for near in found.nearest],
    }  # fmt: skip
