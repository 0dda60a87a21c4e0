"""Every scheduler of a stock family solves that family's equation: with an exact denoiser it takes noise to the data's mean and spread.

The data is a Gaussian, for which the best prediction is a formula. Finite frames alone would not show a scheduler that misreads a
family's noise schedule: it makes clips too, worse ones.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_families import PIPELINES

from i2v_lab.models.sampling import numpy_quiet
from i2v_lab.models.stock.families import FAMILIES
from i2v_lab.models.stock.schedulers import make_scheduler

MEAN, SPREAD, STEPS = 0.7, 0.4, 100
CASES = [(name, scheduler) for name, family in FAMILIES.items() for scheduler in family.scheduler_classes]


def flow(scheduler: Any, noisy: torch.Tensor, timestep: torch.Tensor, last: bool) -> torch.Tensor:
    """E[noise - data | (1 - s) data + s noise], s being the timestep over 1000."""
    s = float(timestep) / scheduler.config.num_train_timesteps
    return velocity(noisy, 1 - s, s, data=-1.0, noise=1.0)


def diffusion(scheduler: Any, noisy: torch.Tensor, timestep: torch.Tensor, last: bool) -> torch.Tensor:
    """E[a noise - b data | a data + b noise], with a^2 + b^2 = 1."""
    if getattr(scheduler.config, "timestep_type", "") == "continuous":
        a = 1 / math.sqrt(1 + math.exp(4 * float(timestep)) ** 2)
    else:
        a = math.sqrt(float(scheduler.alphas_cumprod[int(timestep)]))
    b = math.sqrt(1 - a * a)
    return velocity(noisy, a, b, data=-b, noise=a)


def velocity(noisy: torch.Tensor, a: float, b: float, *, data: float, noise: float) -> torch.Tensor:
    """`data` E[data | a data + b noise] + `noise` E[noise | ...], for data of MEAN and SPREAD."""
    found = MEAN + a * SPREAD**2 / (a * a * SPREAD**2 + b * b) * (noisy - a * MEAN)
    left = (noisy - a * found) / b if b > 1e-6 else torch.zeros_like(noisy)
    return data * found + noise * left


@pytest.mark.parametrize(("name", "solver"), CASES)
def test_a_scheduler_takes_noise_to_the_data(name, solver):
    family = FAMILIES[name]
    with numpy_quiet():
        own = PIPELINES[name]().scheduler
        shift = family.presets["standard"].get("flow_shift")
        scheduler = make_scheduler(family.scheduler_classes[solver], own, shift)
        shifts = {"mu": 1.0} if getattr(scheduler.config, "use_dynamic_shifting", False) else {}  # a pipeline works it out
        scheduler.set_timesteps(STEPS, **shifts)
        is_flow = "FlowMatch" in type(scheduler).__name__ or getattr(scheduler.config, "use_flow_sigmas", False)
        predict = flow if is_flow else diffusion
        latents = torch.randn(1, 1, 1, 100, 400, generator=torch.Generator().manual_seed(3)).double()
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        for number, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
            predicted = predict(scheduler, scaled, timestep, number + 1 == len(scheduler.timesteps))
            latents = scheduler.step(predicted, timestep, latents).prev_sample.double()
    assert float(latents.mean()) == pytest.approx(MEAN, rel=0.03)
    assert float(latents.std()) == pytest.approx(SPREAD, rel=0.1)
