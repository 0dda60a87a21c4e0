"""The schedulers of a stock pipeline, by their familiar names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from i2v_lab.models.sampling import import_diffusers, numpy_quiet


def make_scheduler(class_name: str, own: Any, shift: float | None) -> Any:
    """A fresh scheduler of a class of diffusers, on the noise schedule of a checkpoint.

    Args:
        own: the checkpoint's own scheduler. Where it is of this class, all its options count.
        shift: flow_shift of the params; None: the family has none, and the checkpoint's own counts.
    """
    kind = getattr(import_diffusers(), class_name)
    known = inspect.signature(kind.__init__).parameters
    config: Mapping[str, Any] = own.config
    options = {name: value for name, value in config.items() if name in known}
    if shift is not None and not isinstance(own, kind) and "use_flow_sigmas" in known:
        options |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    if shift is not None:
        options |= {name: shift for name in ("flow_shift", "shift") if name in known}
    if class_name == "DPMSolverSinglestepScheduler":
        options["lower_order_final"] = True  # otherwise it sets this itself and prints a long warning
    with numpy_quiet():
        return kind(**options)
