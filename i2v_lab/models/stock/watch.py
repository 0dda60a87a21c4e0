"""Watches one run of a stock pipeline: its stages, steps and previews; and lets a listener stop it between two blocks of a network."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress
from i2v_lab.models.levers import Clock
from i2v_lab.models.stock.families import Family

# The ends of the names of the modules that a network is a list of, in diffusers and transformers.
BLOCKS = ("Block", "Layer", "Block3D", "Block2D", "DecoderLayer", "EncoderLayer", "SpatioTemporal")


def networks(pipe: Any) -> dict[str, torch.nn.Module]:
    """{component: network} of a pipeline."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def blocks(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The modules that a network is lists of."""
    return (module for module in network.modules() if module is not network and type(module).__name__.endswith(BLOCKS))


def set_parts(pipe: Any, values: Mapping[str, Any]) -> None:
    """Give components of a pipeline, such as its guider, their values, {"component.argument": value}; other names are passed over."""
    for argument, value in values.items():
        part, dot, name = argument.partition(".")
        if dot:  # it makes another of itself
            setattr(pipe, part, getattr(pipe, part).new(**{name: value}))


class Watch:
    """Hooks on a pipeline, for one run; a context manager, which takes them all off again.

    A pipeline asks nobody whether to go on while a network works, and a forward pass may take minutes: the hooks on blocks call
    `progress.pulse`, which may raise. diffusers undoes nothing of its own after an error: this does.
    """

    def __init__(self, pipe: Any, family: Family, params: ClipParams, progress: Progress, clock: Clock) -> None:
        self.pipe, self.family, self.params, self.progress, self.clock = pipe, family, params, progress, clock
        self._stage = ""
        self._hooks = ExitStack()

    def __enter__(self) -> Watch:
        self._enter("encode")
        for name, network in networks(self.pipe).items():
            for module in blocks(network):
                self._hooks.enter_context(module.register_forward_pre_hook(self._pulse))
            if name in self.family.denoisers:
                self._hooks.enter_context(network.register_forward_pre_hook(self._denoises))
        self._wrap(self.pipe.vae, "decode", lambda: self._enter("decode"))
        if not self.callback:
            self._wrap(self.pipe.scheduler, "step", after=lambda made: self._shown(made[0]))
        if isinstance(decoder := getattr(self.pipe.vae, "decoder", None), torch.nn.Module):  # frame by frame, or in chunks
            self._hooks.enter_context(decoder.register_forward_pre_hook(self._decodes))
        return self

    def __exit__(self, *_: Any) -> None:
        self._hooks.close()
        self.pipe.maybe_free_model_hooks()  # diffusers does it at the end of a whole run alone

    @property
    def callback(self) -> dict[str, Any]:
        """The argument that has the pipeline call `step`; nothing where it has none: then the scheduler's step counts."""
        known = inspect.signature(type(self.pipe).__call__).parameters
        return {"callback_on_step_end": self.step} if "callback_on_step_end" in known else {}

    def step(self, pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's `callback_on_step_end`. It must return what it was given: pipelines take tensors out of it."""
        self._shown(tensors["latents"])
        return tensors

    def _shown(self, latents: torch.Tensor) -> None:
        self.clock.next_step()
        kept = latents.detach()
        self.progress.step(lambda: preview(self._unpacked(kept), max(self.family.channels, 1)))

    def _unpacked(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents with a dimension for channels, frames, height and width; packed ones are (1, F*h*w, C) in that order."""
        if self.family.channels > 0:
            return latents
        cell = self.pipe.vae_spatial_compression_ratio
        height, width = self.params.height // cell, self.params.width // cell
        tokens = latents[:, latents.shape[1] % (height * width) :]  # the picture's own may be in front
        return tokens.view(1, -1, height, width, tokens.shape[-1]).movedim(-1, 1)

    def _enter(self, stage: str, total: int | None = None) -> None:
        if stage != self._stage:
            self._stage = stage
            self.progress.stage(stage, total)

    def _pulse(self, *_: Any) -> None:
        self.progress.pulse()

    def _denoises(self, *_: Any) -> None:
        self._enter("denoise", self.params.num_inference_steps)
        if self.family.interval:  # the pipeline reads it after the pass under the prompt
            self.pipe._guidance_scale = self.params.guidance_scale if self.clock.now.guided else 1.0

    def _decodes(self, *_: Any) -> None:
        if self._stage == "decode":
            self.progress.step()

    def _wrap(
        self, owner: Any, name: str, before: Callable[[], None] = lambda: None, after: Callable[[Any], None] = lambda made: None
    ) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def call(*args: Any, **options: Any) -> Any:
            before()
            made = real(*args, **options)
            after(made)
            return made

        owner.__dict__[name] = call
        self._hooks.callback(owner.__dict__.pop, name)


def preview(latents: torch.Tensor, channels: int) -> npt.NDArray[np.uint8]:
    """Latents as small pictures, uint8 RGB (F, h, w, 3): their three principal directions as colours.

    So no table of factors is needed for each VAE. The sign of a direction is chosen by its largest part, so that colours do not flip
    from step to step.

    Args:
        latents: (1, ...) of five dimensions.
        channels: which of them holds channels; the others are frames, height and width.
    """
    cells = latents[0].float().movedim(channels - 1, -1)  # (F, h, w, C)
    points = cells.reshape(-1, cells.shape[-1])
    points = points - points.mean(0)
    # On the CPU: the matrix is small, MPS has no such function, and on CUDA it would load a library with a workspace of its own.
    directions = torch.linalg.eigh((points.T @ points).cpu())[1][:, -3:].flip(1).to(points)  # (C, 3), the largest first
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    colours = points @ (directions * signs)
    low, high = colours.aminmax()
    scaled = ((colours - low) / (high - low).clamp(min=1e-6) * 255).nan_to_num(0).byte()
    shown: npt.NDArray[np.uint8] = scaled.view(*cells.shape[:-1], -1).cpu().numpy()
    return shown if shown.shape[-1] == 3 else np.repeat(shown[..., :1], 3, -1)
