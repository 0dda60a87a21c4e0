"""The closed-form model: an exact diffusion model of motion. It needs no weights, so it runs anywhere in seconds.

For a distribution that can be written down, the best possible denoiser is a formula and need not be learned. Here the
distribution is: take the picture, move it by one of the motions in motions.py, add a little noise.

    x0 = mu_k + sigma n,   k drawn with probability p(k | prompt)

and with x_t = a x0 + s eps the optimal denoiser is

    w_k ~ p(k | prompt) exp(-|x_t - a mu_k|^2 / 2 (a^2 sigma^2 + s^2)),   m = sum_k w_k mu_k
    E[x0 | x_t] = m + a sigma^2 / (a^2 sigma^2 + s^2) (x_t - a m)

(Scarvelis, Borde and Solomon 2023, Closed-form diffusion models; Kamb and Ganguli 2024, An analytic theory of
creativity in convolutional diffusion models.)

What it is: a true diffusion model, with the noise schedule, the schedulers, the guidance and the sampling loop of
I2VGen-XL, so those parameters have here the effect that they have in any diffusion model. What it is not: it moves a picture and invents nothing;
no hidden side is uncovered, nobody walks. Its figures (seconds, memory, the guidance that suits it) do not apply
to I2VGen-XL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from i2v_lab.clip.params import Advice, ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.video import Frames
from i2v_lab.errors import Message, UnsupportedParams
from i2v_lab.models.base import StageCost, Weightless, check_common
from i2v_lab.models.closed_form.canvas import FINE, Canvas, grid_size
from i2v_lab.models.closed_form.cost import cost
from i2v_lab.models.closed_form.mixture import Mixture, NoiseLevels
from i2v_lab.models.closed_form.motions import MOTIONS, understand
from i2v_lab.models.sampling import denoise, make_scheduler

REVISION = "closed-form 2"
"""The model's fingerprint: part of the key of each of its clips.

Raise the number when finished clips change by more than one grey level, whichever file the change is in: this package,
the sampling loop or the crop. tests/test_closed_form_golden.py fails then. Leave it for a change of comments, names or speed.
"""

# Chosen together with experiments/closed_form_check.py; docs/models.md has the table. Pixels run from -1 to 1.
SIGMA = 0.01  # noise in the data: 1.3 grey levels, so that finished clips are clean
LEAK = 0.80  # share of the probability that all motions have, whatever the prompt says

# The noise schedule of I2VGen-XL's converted checkpoint, except the spacing: a schedule that ends in pure noise has
# to start from there (Lin et al. 2024, Common diffusion noise schedules and sample steps are flawed).
SCHEDULER_CONFIG: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
}


def log_probabilities(prompt: str) -> torch.Tensor:
    """log p(k | prompt) over MOTIONS, (K,): the named ones share 1 - LEAK, all share LEAK; no known word, all alike."""
    asked = understand(prompt)
    named = torch.tensor([asked.names(motion) for motion in MOTIONS], dtype=torch.float64)
    uniform = torch.full_like(named, 1 / len(MOTIONS))
    return torch.log((1 - LEAK) * named / named.sum() + LEAK * uniform if named.any() else uniform)


class ClosedForm(Weightless):
    """The closed-form model as a VideoModel. It computes on the CPU, in float64 where exactness needs it."""

    name: ClassVar[str] = "closed-form"
    about: ClassVar[str] = (
        "Exact diffusion over motions of the picture: it moves a picture and invents nothing. No weights, any CPU."
    )
    licence: ClassVar[str] = "Apache-2.0"
    native_size: ClassVar[tuple[int, int]] = (512, 512)
    size_multiple: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"resolution": "512p", "num_frames": 8, "num_inference_steps": 30},
        "standard": {"resolution": "512p", "num_frames": 16, "num_inference_steps": 50},
        "high": {"resolution": "768p", "num_frames": 24, "num_inference_steps": 80},
        "extreme": {"resolution": "1024p", "num_frames": 32, "num_inference_steps": 100},
    }

    fingerprint = REVISION

    def __init__(self) -> None:
        # Here and not in `generate`, so that the second which diffusers takes to import counts as loading.
        self.levels = NoiseLevels(make_scheduler("ddim", SCHEDULER_CONFIG).alphas_cumprod)

    @classmethod
    def check(cls, params: ClipParams) -> None:
        check_common(cls, params)
        if params.dtype not in ("auto", "float32"):
            raise UnsupportedParams(f"dtype: closed-form computes in float32, got {params.dtype}; nearest: float32")

    @classmethod
    def advice(cls, params: ClipParams) -> list[Advice]:
        if understand(params.prompt):
            return []
        what = Message("no motion word was understood", "motion.unknown") if params.prompt else Message("empty", "motion.empty")
        return [Advice("prompt", what, "the motion is drawn at random from all",
                       "name one, such as: camera panning left, zoom in, ocean waves, 镜头向左平移")]  # fmt: skip

    @classmethod
    def cost(cls, params: ClipParams, **_: Any) -> tuple[StageCost, ...]:
        """See VideoModel.cost."""
        cls.check(params)
        return cost(params)

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """See VideoModel.generate."""
        scheduler = make_scheduler(params.scheduler, SCHEDULER_CONFIG)  # before any stage: some import scipy, which is loading
        clips = self.encode(image, params, progress)
        generator = torch.Generator().manual_seed(params.seed)
        noise = torch.randn(clips.shape[1:], generator=generator)
        mixture = Mixture(clips.flatten(1).double(), SIGMA)
        log_p = torch.stack([log_probabilities(params.negative_prompt), log_probabilities(params.prompt)])

        def predict(latents: torch.Tensor, timestep: torch.Tensor, with_negative: bool) -> torch.Tensor:
            a, s = self.levels(float(timestep))
            x = latents.flatten().double()
            clean = mixture.denoise(x, a, s, log_p if with_negative else log_p[1:])  # (1 or 2, D)
            velocity = a * (x - a * clean) / s - s * clean  # v = a eps - s x0 (Salimans and Ho 2022)
            return velocity.reshape(-1, *latents.shape).to(latents.dtype)

        latents = denoise(predict, noise, scheduler, params, generator, progress, _preview)
        return self.decode(latents, clips, image, params, progress)

    def encode(self, image: Picture, params: ClipParams, progress: Progress) -> torch.Tensor:
        """The centres mu_k: every motion's clip, average-pooled. float32 from -1 to 1, (K, F, 3, rows, columns)."""
        progress.stage("encode", len(MOTIONS))
        rows, columns = grid_size(params.height, params.width)
        canvas = Canvas.of(image, rows * FINE, columns * FINE)
        clips = np.empty((len(MOTIONS), params.num_frames, rows, columns, 3), np.float32)
        for clip, motion in zip(clips, MOTIONS, strict=True):
            fine = canvas.render(motion, canvas.path(motion, _times(params)), cv2.INTER_LINEAR)
            clip[:] = fine.reshape(-1, rows, FINE, columns * FINE * 3).mean(2).reshape(-1, rows, columns, FINE, 3).mean(3)
            progress.step()
        return torch.from_numpy(clips).permute(0, 1, 4, 2, 3).contiguous() / 127.5 - 1

    def decode(self, latents: torch.Tensor, clips: torch.Tensor, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """Full-size frames: the motions that the latents are made of, rendered, plus what else the latents hold.

        The second part, enlarged, is what sampling did too little or too much: noise not removed, guidance too strong.

        Args:
            latents: (F, 3, rows, columns). clips: from `encode`.

        Returns:
            uint8 RGB, (num_frames, height, width, 3).
        """
        progress.stage("decode", params.num_frames)
        uniform = torch.zeros(len(MOTIONS), dtype=torch.float64)
        mixture = Mixture(clips.flatten(1).double(), SIGMA)
        weights = torch.softmax(mixture.log_joint(latents.flatten().double(), 1.0, 0.0, uniform), -1)
        weights[weights < 1 / 512] = 0  # half a grey level at the most
        weights /= weights.sum()
        residual = latents - torch.einsum("k,kfchw->fchw", weights.to(clips.dtype), clips)
        rest = residual.permute(0, 2, 3, 1).numpy() * 127.5  # (F, rows, columns, 3), grey levels
        canvas = Canvas.of(image, params.height, params.width)
        shown = [(MOTIONS[k], float(weights[k])) for k in torch.nonzero(weights).flatten().tolist()]
        paths = [canvas.path(motion, _times(params)) for motion, _ in shown]
        frames = np.empty((params.num_frames, params.height, params.width, 3), np.uint8)
        for index in range(params.num_frames):
            frame = cv2.resize(rest[index], (params.width, params.height), interpolation=cv2.INTER_CUBIC)
            for (motion, weight), path in zip(shown, paths, strict=True):
                frame += weight * canvas.render(motion, path.part(index, index + 1), cv2.INTER_CUBIC)[0]
            frames[index] = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
            progress.step()
        return frames


def _times(params: ClipParams) -> npt.NDArray[np.float32]:
    return (np.arange(params.num_frames) / params.condition_fps).astype(np.float32)  # (F,), seconds


def _preview(latents: torch.Tensor) -> npt.NDArray[np.uint8]:
    return ((latents.permute(0, 2, 3, 1) + 1) * 127.5).clamp(0, 255).byte().numpy()
