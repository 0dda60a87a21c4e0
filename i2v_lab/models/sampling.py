"""The denoising loop that every model shares, and the schedulers that it may use.

A model passes in `predict` and does not know guidance, steps, scheduler or seed: only this module uses those.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from i2v_lab.clip.levers import steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import UnsupportedParams

Predict = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]
"""predict(latents, timestep, with_negative): what the network predicts for noisy latents.

latents: (F, C, h, w), already scaled by the scheduler. timestep: scalar. Returns (2, F, C, h, w), under the negative
prompt first, under the prompt second; without the negative (1, F, C, h, w).
"""

# The familiar name of each scheduler, and diffusers' class with the options that make it so. Each was found to invert
# an exact denoiser in this loop (tests/test_sampling.py), which finite output alone would not show. LCM alone gets the
# mean right and the spread too small: it is made for networks that were distilled to jump to the end in one step.
SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "dpm++-2m": ("DPMSolverMultistepScheduler", {}),
    # Otherwise it sets this itself and prints a long warning.
    "dpm++-2s": ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    # With trailing spacing these two take their first step from a noise 20,000 times the picture, and miss.
    "heun": ("HeunDiscreteScheduler", {"timestep_spacing": "leading"}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "kdpm2-a": ("KDPM2AncestralDiscreteScheduler", {"timestep_spacing": "leading"}),
    "lms": ("LMSDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}

_TWICE = ("heun", "kdpm2", "kdpm2-a")  # schedulers that call the network twice a step, except the last

LOST_MAX = 0.09
"""The share of the noise schedule that a scheduler may lose by rounding; `set_steps` refuses what loses more."""


def calls_of(params: ClipParams) -> int:
    """How often a scheduler has the network called in a run."""
    return 2 * params.num_inference_steps - 1 if params.scheduler in _TWICE else params.num_inference_steps


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A fresh diffusers scheduler by its familiar name, on the noise schedule that the model was trained with.

    Args:
        name: a key of SCHEDULERS.
        config: the model's own scheduler config, as diffusers keeps it.
    """
    class_name, options = SCHEDULERS[name]
    scheduler = getattr(import_diffusers(), class_name)
    # As its from_config does, without importing every other scheduler.
    known = {key: value for key, value in config.items() if key in inspect.signature(scheduler.__init__).parameters}
    with numpy_quiet():
        return scheduler(**{**known, **options})


def import_diffusers() -> Any:
    """The package, imported without torch's compiler: that takes a second, and diffusers only marks classes for it."""
    if "diffusers" not in sys.modules:
        with _hidden("torch._dynamo", "torchao"), contextlib.suppress(ImportError):
            import diffusers
    import diffusers

    return diffusers


def import_networks() -> Any:
    """diffusers and transformers, for networks; call it before the first import of a network's class. Returns diffusers.

    Where torchao is installed they would import it, which takes up to ten seconds, and remark on what it does not find. They are told
    that it is not there; weights that were quantized with it are none that this package reads.
    """
    found = import_diffusers()
    with _hidden("torchao"):
        import transformers.utils.import_utils as libraries

        libraries.is_torchao_available()  # it remembers what it found; so does diffusers
        with contextlib.suppress(ImportError):
            from peft.import_utils import is_torchao_available

            is_torchao_available()
    return found


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Inside, these modules are not installed, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden, cast(Any, None)))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def set_steps(scheduler: Any, steps: int, device: torch.device | str = "cpu") -> None:
    """Choose the timesteps of a run from the schedule, in `scheduler.timesteps`.

    Args:
        scheduler: fresh from `make_scheduler`.
        steps: num_inference_steps, 1 to 1000.
        device: where to put the timesteps.

    Raises:
        UnsupportedParams: this scheduler makes no usable timesteps of so many steps; names the nearest number that works.
    """
    if (fault := _lay_out(scheduler, steps, device)) is None:
        return
    trial = copy.deepcopy(scheduler)  # the search must leave nothing behind in the scheduler that is in use
    trained = int(scheduler.config.num_train_timesteps)
    around = (near for distance in range(1, 1000) for near in (steps - distance, steps + distance) if 1 <= near <= 1000)
    nearest = next((near for near in around if _divides(near, trained) and _lay_out(trial, near, "cpu") is None), None)
    remedy = f"nearest: {nearest}" if nearest else "choose another scheduler"
    raise UnsupportedParams(f"num_inference_steps: {type(scheduler).__name__} cannot make {steps} steps: {fault}; {remedy}")


def _divides(steps: int, trained: int) -> bool:
    # Arithmetic rules out what no scheduler can lay out without losing too much: KDPM2 takes a tenth of a second to try.
    # Some schedulers divide by the steps, some by one more.
    return any(1 - trained // parts * parts / trained <= LOST_MAX + 0.01 for parts in (steps, steps + 1))


def _lay_out(scheduler: Any, steps: int, device: torch.device | str) -> str | None:
    """Set the timesteps; what is wrong with them in words, or None.

    Schedulers that round the size of a step down go wrong when there are many steps: 1000 / 334 is 2.99, and they take
    2. An offset may also push the first step past the end of training: an IndexError here, NaN or a bare assertion there.
    With leading spacing the noisiest part is left out: 600 steps of size 1 begin at timestep 600 with noise that the
    network never saw there. With any other, DDIM believes its steps to be shorter than they are and leaves noise behind.
    Nothing of this raises anything; the clip is just wrong. A Gaussian comes out 8 % off at LOST_MAX and 24 % at twice it.
    """
    trained = int(scheduler.config.num_train_timesteps)
    parameters = inspect.signature(scheduler.set_timesteps).parameters
    # LCM picks its steps among those it was distilled on, 50 by default; asked for more, it needs that many to pick from.
    options = {}
    if "original_inference_steps" in parameters:
        options["original_inference_steps"] = max(steps, int(scheduler.config.original_inference_steps))
    try:
        with numpy_quiet():
            scheduler.set_timesteps(steps, device=device, **options)
    except (IndexError, AssertionError, ValueError) as error:
        return f"it has {trained} to take them from ({str(error) or type(error).__name__})"
    if not bool(torch.isfinite(scheduler.timesteps).all()):
        return "some of its timesteps are not numbers"
    first = float(scheduler.timesteps[0])
    if first > trained - 1:
        return f"the first would be at timestep {first:g}, and training ended at {trained - 1}"
    if (trained - trained / steps - first) / trained > LOST_MAX:
        return f"they would begin at timestep {first:g} of {trained}, where noise is no longer pure"
    whole = trained // steps
    rounds = type(scheduler).__name__ == "DDIMScheduler" and scheduler.config.timestep_spacing != "leading"
    if rounds and 1 - whole * steps / trained > LOST_MAX:
        return f"it would take them {whole} timesteps long where {trained / steps:.3g} are needed"
    return None


def forked(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Inside, the global generators of the CPU and of one device may be drawn from: they are put back at the end.

    torch's own default wakes every GPU of the machine for it, warns where there are several, and fails on MPS, whose generator is not
    put back here.
    """
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    return torch.random.fork_rng([device.index or 0] if device.type == kind else [], device_type=kind)


@contextlib.contextmanager
def numpy_quiet() -> Iterator[None]:
    # Several schedulers hand torch tensors to NumPy in a way that NumPy 2 only just allows. Nothing to do with the user.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="__array")
        yield


def denoise(
    predict: Predict,
    noise: torch.Tensor,
    scheduler: Any,
    params: ClipParams,
    generator: torch.Generator,
    progress: Progress,
    preview: Callable[[torch.Tensor], np.ndarray] | None = None,
) -> torch.Tensor:
    """Take noise to latents: the one sampling loop, with classifier-free guidance (Ho and Salimans 2022).

    Args:
        predict: the network; see Predict.
        noise: standard normal, (F, C, h, w).
        scheduler: fresh from `make_scheduler`; it keeps state, so one a run.
        params: num_inference_steps, guidance_scale and guidance_interval are read here. At guidance 1 or below, and outside the
            interval, there is no negative pass.
        generator: source of the noise that stochastic schedulers add.
        progress: receives the stage "denoise" and every step; Stop raised there ends the loop.
        preview: renders latents small, uint8 (F, h, w, 3).

    Returns:
        Latents, (F, C, h, w).

    Raises:
        UnsupportedParams: see `set_steps`. Stop: from a listener.
    """
    set_steps(scheduler, params.num_inference_steps, noise.device)
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    steps = steps_of(params, len(scheduler.timesteps))
    latents: torch.Tensor = noise * scheduler.init_noise_sigma
    progress.stage("denoise", len(scheduler.timesteps))
    for timestep, (guided, *_) in zip(scheduler.timesteps, steps, strict=True):
        prediction = predict(scheduler.scale_model_input(latents, timestep), timestep, guided)  # (1 or 2, F, C, h, w)
        if guided:
            negative, positive = prediction
            guidance = negative + params.guidance_scale * (positive - negative)
        else:
            (guidance,) = prediction
        latents = scheduler.step(guidance, timestep, latents, **extra).prev_sample
        # Of these latents, no loop variable's closure: a listener may call it after the loop has moved on.
        progress.step(partial(preview, latents) if preview else None)
    return latents
