"""How a loaded model shares the work of a step with the other processes: parts of all tokens, or one of the two passes of guidance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from i2v_lab.clip.params import ClipParams
from i2v_lab.models.checkpoint import quiet_libraries


@contextmanager
def sharing(model: Any, params: ClipParams, mesh: Any) -> Iterator[None]:
    """A model whose steps are shared between the processes of `mesh`, inside the block.

    Args:
        model: loaded in each of them, and called alike in each of them.
        mesh: a DeviceMesh with the dimensions "ring" and "ulysses".
    """
    with ExitStack() as stack:
        if model.shares == "guidance":
            stack.enter_context(_passes(model))
        else:
            model.use_loras(params)  # first: they change the layers that hooks are put on
            for name in model.family.denoisers:
                stack.enter_context(_tokens(getattr(model.pipe, name), mesh))
        yield


# The layers of attention whose keys are the tokens of the video. In all others (text, picture, sound) each process has all keys.
_OVER_TOKENS = ("attn1", "video_to_audio_attn")


@contextmanager
def _tokens(network: Any, mesh: Any) -> Iterator[None]:
    """Ulysses (Jacobs et al. 2023, DeepSpeed Ulysses), as diffusers has it: a process has its part of the tokens, and in attention its
    part of the heads for all tokens."""
    from diffusers import ContextParallelConfig
    from diffusers.hooks.context_parallel import remove_context_parallel

    plan = _plan(network)
    processors = {
        name: module.processor
        for name, module in network.named_modules()
        if hasattr(getattr(module, "processor", None), "_parallel_config")
    }
    try:
        with quiet_libraries():  # it warns that it is experimental
            network.enable_parallelism(config=ContextParallelConfig(ulysses_degree=mesh.size(), mesh=mesh), cp_plan=plan)
        for name, processor in processors.items():
            if name.rpartition(".")[2] not in _OVER_TOKENS:
                processor._parallel_config = None
        yield
    finally:
        remove_context_parallel(network, plan)
        network._parallel_config = None
        for processor in processors.values():
            processor._parallel_config = None


def _plan(network: Any) -> dict[str, Any]:
    """What of a network is split by tokens, and where they are put together again.

    Those of diffusers 0.42 for LTX and LTX-2 are for text to video: they do not split the timesteps, of which a clip from a picture has
    one a token; they split the text, whose mask then has more heads than its attention; and of LTX-2 they forget what is between
    video and sound.
    """
    from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

    if not type(network).__name__.startswith("LTX"):
        return dict(network._cp_plan)
    tokens = 2 if getattr(network.rope, "rope_type", "") == "split" else 1  # (B, tokens, D), or (B, heads, tokens, D)
    turned = ContextParallelInput(split_dim=tokens, expected_dims=tokens + 2, split_output=True)
    ropes = [name for name in ("rope", "cross_attn_rope") if hasattr(network, name)]
    return {
        "": {
            "hidden_states": ContextParallelInput(split_dim=1, expected_dims=3),
            "timestep": ContextParallelInput(split_dim=1, expected_dims=2),
        },
        **{name: {0: turned, 1: turned} for name in ropes},
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    }


def _passes(model: Any) -> AbstractContextManager[Any]:
    """The first process predicts under the negative prompt, the second under the prompt; both get both predictions."""
    whole = model.predict

    def predict(conditions: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        if len(conditions.fps) == 1:  # no guidance at this step
            return whole(conditions, latents, timestep)
        own = whole(conditions.only(dist.get_rank()), latents, timestep)  # (1, F, 4, h, w)
        both = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(2)]
        dist.all_gather(both, own.contiguous())
        return torch.cat(both)

    return mock.patch.object(model, "predict", predict)
