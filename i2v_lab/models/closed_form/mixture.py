"""A mixture of Gaussians: its density and its optimal denoiser, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with centres mu_k and one width: its density and its denoiser, exactly.

    Attributes:
        centres: (K, D), float64.
        sigma: standard deviation of every component.
    """

    centres: torch.Tensor
    sigma: float

    @cached_property
    def _squares(self) -> torch.Tensor:
        return (self.centres**2).sum(1)  # (K,)

    def log_joint(self, x: torch.Tensor, a: float, s: float, log_p: torch.Tensor) -> torch.Tensor:
        """log p(k) p(x_t | k), up to a constant.

        Args:
            x: noisy sample x_t = a x0 + s eps, (D,).
            a, s: signal and noise of the noise level.
            log_p: log p(k), (..., K).

        Returns:
            (..., K).
        """
        squares = x @ x - 2 * a * (self.centres @ x) + a * a * self._squares  # |x - a mu_k|^2, (K,)
        return log_p - squares / (2 * (a * a * self.sigma**2 + s * s))

    def denoise(self, x: torch.Tensor, a: float, s: float, log_p: torch.Tensor) -> torch.Tensor:
        """E[x0 | x_t], the optimal denoiser: (..., D). Arguments as in `log_joint`."""
        mean = torch.softmax(self.log_joint(x, a, s, log_p), -1) @ self.centres  # (..., D)
        variance = self.sigma**2
        return mean + a * variance / (a * a * variance + s * s) * (x - a * mean)


class NoiseLevels:
    """a and s of x_t = a x0 + s eps at any timestep, whole or between two (KDPM2 asks for those)."""

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        kept = alphas_cumprod.double().clamp(min=2**-24, max=1 - 2**-24)  # the very last is pure noise: finite logs
        self._log_snr = torch.log(kept / (1 - kept)).numpy()

    def __call__(self, timestep: float) -> tuple[float, float]:
        log_snr = np.interp(timestep, np.arange(len(self._log_snr)), self._log_snr)
        alpha = 1 / (1 + np.exp(-log_snr))
        return float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))
