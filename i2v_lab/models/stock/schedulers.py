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


def switch_of(scheduler: Any, steps: int, boundary: float | None) -> int | None:
    """The step at which the second network of a family with two takes over; None where there is one, or it never does.

    Args:
        scheduler: fresh from `make_scheduler`; it is left without timesteps of use.
        steps: num_inference_steps. boundary: the pipeline's boundary_ratio.
    """
    if boundary is None:
        return None
    with numpy_quiet():
        scheduler.set_timesteps(steps)
    below = scheduler.timesteps < boundary * scheduler.config.num_train_timesteps
    return int(below.int().argmax()) if bool(below.any()) else None
