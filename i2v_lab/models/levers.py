"""Caches on the networks that denoise: what a step may reuse of the steps before. For one run; after it the networks are as before.

Which steps reuse what is in clip/levers.py, so that the prediction of a clip's cost follows the same rule.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from i2v_lab.clip.levers import Cache, Step


class Clock:
    """Where a run is: which step, and which pass of the network in it.

    A network is called once a step (both prompts in one batch), or once for each prompt; the passes of a step keep things apart.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.step = 0
        self.passes = 0

    @property
    def now(self) -> Step:
        """What this step does."""
        return self.steps[min(self.step, len(self.steps) - 1)]

    def next_step(self) -> None:
        """The scheduler took a step."""
        self.step, self.passes = self.step + 1, 0

    def next_pass(self, *_: Any) -> None:
        """A network was called: a hook of its forward pass."""
        self.passes += 1


@contextmanager
def caching(networks: Sequence[torch.nn.Module], cache: Cache | None, clock: Clock) -> Iterator[None]:
    """Networks with a cache, inside the block.

    Args:
        networks: those that denoise; a step calls one of them, once or more.
        cache: which; None: nothing is done.
        clock: `next_step` is called after each step of the scheduler; passes are counted here.
    """
    with ExitStack() as stack:
        if cache is not None:
            for network in networks:
                stack.enter_context(_CACHES[cache.kind](network, cache, clock))
                stack.enter_context(network.register_forward_hook(clock.next_pass))
        yield


def in_place(module: torch.nn.Module, work: Callable[..., Any]) -> AbstractContextManager[Any]:
    """A module with another forward pass, inside the block; hooks of other libraries on the old one stay."""
    return mock.patch.object(module, "forward", work)


@contextmanager
def _deep(unet: Any, cache: Cache, clock: Clock, kept: dict[int, torch.Tensor] | None = None) -> Iterator[None]:
    """DeepCache (Ma et al. 2023, DeepCache: Accelerating diffusion models for free), its first branch.

    A step that reuses runs what stands before the blocks, the last layer of the last one, and what follows. What went into that
    layer from the layers below is kept.
    """
    if own := getattr(unet.__dict__.get("forward"), "deep", None):  # another library computes both kinds of step
        with own(clock):
            yield
        return
    *others, last = unet.up_blocks
    width = unet.conv_in.out_channels
    kept = {} if kept is None else kept

    def keep(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if not clock.now.reused:  # it is given the layers below and, after them, the skip connection
            kept[clock.passes] = given[0][:, : given[0].shape[1] - width].clone()

    def passed(true: Callable[..., Any], skips: int | None = None) -> Callable[..., Any]:
        def forward(hidden_states: torch.Tensor, *args: Any, **options: Any) -> Any:
            if not clock.now.reused:
                return true(hidden_states, *args, **options)
            return hidden_states if skips is None else (hidden_states, (hidden_states,) * skips)

        return forward

    def shallow(true: Callable[..., Any]) -> Callable[..., Any]:
        def forward(hidden_states: torch.Tensor, *args: Any, res_hidden_states_tuple: Any, **options: Any) -> Any:
            if not clock.now.reused:
                return true(hidden_states, *args, res_hidden_states_tuple=res_hidden_states_tuple, **options)
            with _last_layer(last):
                return true(kept[clock.passes], *args, res_hidden_states_tuple=res_hidden_states_tuple[:1], **options)

        return forward

    with last.resnets[-1].register_forward_pre_hook(keep), ExitStack() as stack:
        for block in unet.down_blocks:
            skips = len(block.resnets) + bool(block.downsamplers)
            stack.enter_context(in_place(block, passed(block.forward, skips)))
        for block in (unet.mid_block, *others):
            stack.enter_context(in_place(block, passed(block.forward)))
        stack.enter_context(in_place(last, shallow(last.forward)))
        yield


def deep_halves(unet: Any, forward: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two kinds of step of `deep` as functions of tensors alone, for libraries that compute one of them whole.

    Args:
        forward: the forward pass of the network.

    Returns:
        One that is called as `forward` and gives (output, kept); one that is called with `kept` as well and gives (output,).
    """
    cache = Cache("deep", 2)

    def full(**given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        kept: dict[int, torch.Tensor] = {}
        with _deep(unet, cache, Clock([Step(guided=True, reused=False)]), kept):
            made = forward(**given)[0]
        return made, kept[0]

    def shallow(kept: torch.Tensor, **given: Any) -> tuple[torch.Tensor]:
        with _deep(unet, cache, Clock([Step(guided=True, reused=True)]), {0: kept}):
            return (forward(**given)[0],)

    return full, shallow


def _last_layer(block: torch.nn.Module) -> AbstractContextManager[Any]:
    """A block of a UNet with its last layer alone, inside the block."""
    lists = {name: part for name, part in block.named_children() if isinstance(part, torch.nn.ModuleList)}
    return mock.patch.dict(block._modules, {name: torch.nn.ModuleList(part[-1:]) for name, part in lists.items()})


@contextmanager
def _broadcast(network: torch.nn.Module, cache: Cache, clock: Clock) -> Iterator[None]:
    """Pyramid attention broadcast (Zhao et al. 2024), with one range for all layers of attention.

    That of diffusers counts passes, not steps: with the two prompts in two passes, as in Wan, each would be given the attention of the
    other.
    """
    from diffusers.models.attention import AttentionModuleMixin
    from diffusers.models.attention_processor import Attention

    def kept(true: Callable[..., Any]) -> Callable[..., Any]:
        found: dict[int, Any] = {}

        def forward(*args: Any, **options: Any) -> Any:
            if not clock.now.reused or clock.passes not in found:
                found[clock.passes] = true(*args, **options)
            return found[clock.passes]

        return forward

    with ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, (Attention, AttentionModuleMixin)):
                stack.enter_context(in_place(module, kept(module.forward)))
        yield


@contextmanager
def _extended(network: torch.nn.Module, cache: Cache, clock: Clock) -> Iterator[None]:
    """TaylorSeer (Liu et al. 2025, From reusing to forecasting), first order, on the output of the whole network."""
    true = network.forward
    known: dict[int, list[tuple[int, torch.Tensor]]] = {}  # by pass: the last two steps that were computed, and their outputs

    def forward(*args: Any, **options: Any) -> Any:
        if clock.now.reused and (found := known.get(clock.passes)):
            step, output = found[-1]
            if len(found) > 1 and found[0][1].shape == output.shape:
                output = output + (output - found[0][1]) * ((clock.step - step) / (step - found[0][0]))
            return (output,)
        made = true(*args, **options)
        known[clock.passes] = [*known.get(clock.passes, [])[-1:], (clock.step, made[0])]
        return made

    with in_place(network, forward):
        yield


def _first_block(network: Any, cache: Cache, clock: Clock) -> AbstractContextManager[None]:
    """First-block cache of diffusers: the blocks after the first one run where its output changed by more than a threshold."""
    from diffusers.hooks import FirstBlockCacheConfig

    return _of_diffusers(network, FirstBlockCacheConfig(threshold=cache.number))


@contextmanager
def _of_diffusers(network: Any, config: Any) -> Iterator[None]:
    """A network with a cache of diffusers' own."""
    network.enable_cache(config)
    try:
        yield
    finally:
        network._reset_stateful_cache()
        network.disable_cache()


@contextmanager
def _by_magnitude(network: Any, cache: Cache, clock: Clock, ratios: dict[int, list[float]] | None = None) -> Iterator[None]:
    """MagCache (Ma et al. 2025): a step that reuses runs no block, and adds what the blocks added last.

    That of diffusers counts passes of each network instead of steps of the run: wrong where a second network takes over, where the two
    prompts go in two passes that it cannot tell apart (HunyuanVideo), and where guidance is off for some steps.

    Args:
        ratios: {step: of each pass}: receives how much larger what the blocks added is than in the step before.
    """
    kept: dict[int, torch.Tensor] = {}
    blocks = [
        block
        for name, part in network.named_children()
        if name.endswith(("blocks", "layers")) and isinstance(part, torch.nn.ModuleList)
        for block in part
    ]
    tuples: dict[torch.nn.Module, bool] = {}
    entered: list[torch.Tensor] = []

    def wrapped(block: torch.nn.Module) -> Callable[..., Any]:
        true: Callable[..., Any] = block.forward

        def forward(*args: Any, **options: Any) -> Any:
            hidden, more = (
                options[name] if name in options else args[place]
                for place, name in enumerate(("hidden_states", "encoder_hidden_states"))
            )
            if block is blocks[0]:
                entered[:] = [hidden]
            if clock.now.reused and clock.passes in kept:
                out = hidden + kept[clock.passes] if block is blocks[0] else hidden
                return (out, more) if tuples[block] else out
            made = true(*args, **options)
            tuples[block] = isinstance(made, tuple)
            if block is blocks[-1]:
                added = (made[0] if tuples[block] else made) - entered.pop()
                if ratios is not None and clock.passes in kept:
                    now, before = (torch.linalg.norm(found.float(), dim=-1) for found in (added, kept[clock.passes]))
                    ratios.setdefault(clock.step, []).append(float((now / (before + 1e-8)).mean()))
                kept[clock.passes] = added
            return made

        return forward

    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(in_place(block, wrapped(block)))
        yield


@contextmanager
def measured_ratios(networks: Sequence[torch.nn.Module], clock: Clock, ratios: dict[int, list[float]]) -> Iterator[None]:
    """A run inside the block fills `ratios`: {step: of each pass how much larger what the blocks add is than in the step before}."""
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(_by_magnitude(network, Cache("mag", 0), clock, ratios))
            stack.enter_context(network.register_forward_hook(clock.next_pass))
        yield


@contextmanager
def _faster(network: Any, cache: Cache, clock: Clock) -> Iterator[None]:
    """FasterCache (Lv et al. 2024) by the hooks of diffusers, told which steps reuse. Both prompts have to go in one pass."""
    from diffusers.hooks import FasterCacheConfig

    def share() -> float:
        return clock.step / len(clock.steps)

    config = FasterCacheConfig(
        current_timestep_callback=lambda: 0 if clock.now.reused else 1000,
        unconditional_batch_skip_range=2**31,  # the range of timesteps alone decides
        spatial_attention_block_skip_range=2,
        attention_weight_callback=lambda _: 0.5,
        # As diffusers has them for its timesteps of 1000 to 0.
        low_frequency_weight_callback=lambda _: 1.1 if 0.099 < share() < 0.901 else 1.0,
        high_frequency_weight_callback=lambda _: 1.1 if share() > 0.699 else 1.0,
        tensor_format="BFCHW",
    )
    with _of_diffusers(network, config), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)  # diffusers' call of it
        yield


_CACHES: dict[str, Callable[[Any, Cache, Clock], AbstractContextManager[None]]] = {
    "deep": _deep, "pab": _broadcast, "taylor": _extended, "first-block": _first_block, "mag": _by_magnitude,
    "faster": _faster,
}  # fmt: skip
