"""One clip on a pipeline of fake tensors: what each stage holds, on each tier of the memory ladder, and its FLOPs.

The pipeline's own `__call__` runs, with its own scheduler, for three steps at most: that is how many a scheduler remembers. What is
called again with the same shapes is replayed (cost_replay.py).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from PIL import Image

from i2v_lab.clip.levers import Cache, Step
from i2v_lab.models.levers import Clock, caching
from i2v_lab.models.memory.tiers import block_bytes, bytes_of, tensors_of
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.sampling import numpy_quiet
from i2v_lab.models.stock.cost_fake import outside, real
from i2v_lab.models.stock.cost_replay import Replay
from i2v_lab.models.stock.offload import inner_lists, is_whole
from i2v_lab.models.stock.watch import blocks, networks, set_parts

STAGES = ("encode", "denoise", "decode")
STEPS = 3  # that are run, at most
TIERS = (0, 3, 4)  # those that differ in what is on the device; see offload.py


def rehearse(
    pipe: Any, denoisers: Sequence[str], call: Mapping[str, Any], size: Sequence[int], *, tiling: bool, cache: str = ""
) -> dict[str, int]:
    """Run a clip; the pipeline is left as it was.

    Args:
        pipe: of fake tensors, in the mode that they were made in.
        call: arguments of the pipeline, without the picture; those of a part of it as "part.argument".
        size: (height, width) of the picture.
        tiling: whether the VAE decodes in tiles.
        cache: a kind of cache; all steps after the first reuse what it keeps.

    Returns:
        {"encode.flops": of the stage, denoise: of one call of the scheduler's, "denoise.reused.flops": of one that reuses,
        "denoise.second.flops": of one after it;
        "encode.weights.3": bytes on the device at the highest point of the stage on tier 3; "encode.activations.3": bytes of all else there; ...}.
    """
    picture = Image.new("RGB", (size[1], size[0]), (90, 120, 150))
    known = inspect.signature(type(pipe).__call__).parameters
    callback = {"callback_on_step_end": lambda pipe, index, timestep, tensors: tensors}  # a pipeline holds what it gives to it
    given = {name: value for name, value in {**call, **callback}.items() if name in known}
    set_parts(pipe, call)
    if tiling and hasattr(pipe.vae, "enable_tiling"):
        pipe.vae.enable_tiling()
    boundary = pipe.config.get("boundary_ratio")
    if cache and boundary is not None:
        pipe.register_to_config(boundary_ratio=0.0)  # one network throughout: the second one has kept nothing to reuse
    try:
        with numpy_quiet(), torch.no_grad(), Rehearsal(pipe, denoisers, cache) as rehearsal:
            pipe(image=picture, **given, output_type="np")
    finally:
        if boundary is not None:
            pipe.register_to_config(boundary_ratio=boundary)
    if hasattr(pipe.vae, "disable_tiling"):
        pipe.vae.disable_tiling()
    return rehearsal.found()


class Rehearsal:
    """Hooks on a pipeline, for one run; a context manager.

    What runs between two changes of what is on the device is a segment; a stage's highest point is that of its highest segment.
    """

    def __init__(self, pipe: Any, denoisers: Sequence[str], cache: str = "") -> None:
        self.pipe, self.denoisers, self.cache = pipe, denoisers, cache
        self.clock = Clock([Step(guided=True, reused=False), Step(guided=True, reused=True)])
        self.networks = networks(pipe)
        self.bytes = {name: bytes_of(network) for name, network in self.networks.items()}
        self.blocks = {name: block_bytes(network, inner_lists(network)) for name, network in self.networks.items()}
        order = [name for name in str(pipe.model_cpu_offload_seq).split("->") if name in self.networks]
        self._before = dict(zip(order[1:], order, strict=False))  # whose hook takes which network off the device
        self.tracker = Tracker(tensors_of(self.networks.values()))
        self.stage, self.steps = "encode", 0
        self._flops = dict.fromkeys((*STAGES, "denoise.reused", "denoise.second"), 0)
        self._highest: dict[tuple[str, int], tuple[int, int]] = {}
        self.replay = Replay(self.tracker)
        self._on: set[str] = set()
        self._running: list[str] = []
        self._seen = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Rehearsal:
        from diffusers.video_processor import VideoProcessor

        put = self._stack.enter_context
        for name, network in self.networks.items():
            coder = hasattr(network, "decoder") and hasattr(network, "decode")
            inside: Any = (network.encoder, network.decoder) if coder else (network, *blocks(network))
            for inner in () if self.cache and name in self.denoisers else inside:  # what is kept changes from call to call
                put(self.replay.of(inner))
            self._wrap(network, "forward", name, "denoise" if name in self.denoisers else "")
            if coder:
                self._wrap(network, "encode", name)
                self._wrap(network, "decode", name, "decode" if name == "vae" else "")
            for blend in ("blend_v", "blend_h", "blend_t"):  # in place, a row of pixels at a time
                if hasattr(network, blend):
                    put(mock.patch.dict(network.__dict__, {blend: lambda before, after, extent: after}))
            for module in network.modules():
                if hasattr(module, "prepare_causal_attention_mask"):
                    put(mock.patch.dict(module.__dict__, {"prepare_causal_attention_mask": _mask}))
            put(mock.patch.dict(network.__dict__, {"to": self._converted(network)}))
        if self.cache:
            put(caching([self.networks[name] for name in self.denoisers], Cache(self.cache, 2), self.clock))
        kind = type(self.pipe.scheduler)
        put(mock.patch.object(kind, "step", self._stepped(kind.step)))
        put(mock.patch.object(kind, "set_timesteps", self._begun(kind.set_timesteps)))
        put(mock.patch.object(kind, "__deepcopy__", _copied, create=True))
        put(mock.patch.object(VideoProcessor, "postprocess_video", _postprocess))
        self._add_tables()
        put(self.tracker)
        return self

    def __exit__(self, *error: Any) -> None:
        self._cut()
        self._stack.__exit__(*error)

    def found(self) -> dict[str, int]:
        """See `rehearse`."""
        found = {f"{stage}.flops": flops for stage, flops in self._flops.items()}
        for (stage, tier), (weights, activations) in self._highest.items():
            found |= {f"{stage}.weights.{tier}": weights, f"{stage}.activations.{tier}": activations}
        return found

    def _resident(self, tier: int) -> int:
        """Bytes of weights on the device now, as the hooks of diffusers leave them there."""
        if tier == 0:
            return sum(self.bytes.values())
        if tier == 3:
            return sum(self.bytes[name] for name in self._on)
        whole = sum(self.bytes[name] for name in self.networks if is_whole(name))
        return whole + sum(self.blocks[name] for name in self._running[-1:] if not is_whole(name))

    def _cut(self) -> None:
        """End a segment."""
        for tier in TIERS:
            now = self._resident(tier), self.tracker.peak
            self._highest[self.stage, tier] = max(self._highest.get((self.stage, tier), (0, 0)), now, key=sum)
        self.tracker.peak = self.tracker.held
        if self.stage != "denoise" or self.steps == 0:
            self._flops[self.stage] += self.tracker.flops - self._seen
        elif self.cache and self.steps < STEPS:
            self._flops["denoise.reused" if self.steps == 1 else "denoise.second"] += self.tracker.flops - self._seen
        self._seen = self.tracker.flops

    def _wrap(self, owner: Any, method: str, name: str, stage: str = "") -> None:
        """A call of a network, or of its encode or decode: a segment of its own."""
        work = getattr(owner, method)

        @functools.wraps(work)
        def call(*args: Any, **options: Any) -> Any:
            self._cut()
            self.stage = stage or self.stage
            self._on.discard(self._before.get(name, ""))
            self._on.add(name)
            self._running.append(name)
            try:
                return work(*args, **options)
            finally:
                self._cut()
                self._running.pop()

        self._stack.enter_context(mock.patch.dict(owner.__dict__, {method: call}))

    def _converted(self, network: torch.nn.Module) -> Callable[..., Any]:
        """A network's `to`: what it replaces is gone from the device."""
        true = network.to

        def call(*args: Any, **options: Any) -> Any:
            before = list(network.parameters())
            out = true(*args, **options)
            after = set(map(id, network.parameters()))
            self.tracker.drop(old for old in before if id(old) not in after)
            return out

        return call

    def _add_tables(self) -> None:
        self.tracker.add(*(item for item in vars(self.pipe.scheduler).values() if isinstance(item, torch.Tensor)))

    def _stepped(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def call(*args: Any, **options: Any) -> Any:
            self._cut()
            self.steps += 1
            self.clock.next_step()
            return step(*args, **options)

        return call

    def _begun(self, set_timesteps: Callable[..., Any]) -> Callable[..., Any]:
        """Schedulers work out their timesteps in real numbers."""

        @functools.wraps(set_timesteps)
        def call(*args: Any, **options: Any) -> Any:
            self._cut()
            self.steps = 0
            with outside():
                out = set_timesteps(*map(real, args), **{name: real(value) for name, value in options.items()})
            self._add_tables()
            return out

        return call


def _mask(n_frame: int, n_hw: int, dtype: torch.dtype, device: Any, batch_size: int | None = None) -> torch.Tensor:
    """As that of HunyuanVideo 1.5's VAE, which fills it a row at a time."""
    mask = torch.empty(n_frame * n_hw, n_frame * n_hw, dtype=dtype, device=device)
    return mask if batch_size is None else mask.unsqueeze(0).expand(batch_size, -1, -1)


def _copied(scheduler: Any, memo: dict[int, Any]) -> Any:
    """LTX-2 copies its scheduler, whose numbers are real, for the sound."""
    made = copy.copy(scheduler)
    with outside():
        vars(made).update(copy.deepcopy(vars(scheduler), memo))
    return made


def _postprocess(self: Any, video: Any, output_type: str = "np", **options: Any) -> list[Any]:
    """As VideoProcessor.postprocess_video, without the copy that NumPy makes in the end."""
    return [self.postprocess(item.permute(1, 0, 2, 3), output_type, **options) for item in video]
