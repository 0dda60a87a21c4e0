"""Other code for the same networks, for one run: blocks that torch's compiler made code of, and other kernels of attention."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from i2v_lab.errors import UnsupportedParams
from i2v_lab.models.levers import in_place
from i2v_lab.models.memory.ladder import one_line

DENOISERS = ("unet", "transformer", "transformer_2")
# What UNets and CogVideoX repeat: blocks of attention; diffusers names such blocks for the other families (`_repeated_blocks`).
BLOCKS = ("BasicTransformerBlock", "TemporalBasicTransformerBlock", "CogVideoXBlock")
VARIANTS = 64  # of a class of blocks, by shapes and options, that are compiled: of a UNet there are more than torch's own 8


@contextmanager
def compiled(networks: Mapping[str, torch.nn.Module], device: str) -> Iterator[None]:
    """The repeated blocks of the networks that denoise, compiled; a class of blocks once a process and shape.

    Hooks of a block stay outside of what is compiled, so that a run is watched and stopped as without.

    Raises:
        UnsupportedParams: there is no compiler here, or blocks are moved to the device one by one.
    """
    _check_compiler(device)
    with ExitStack() as stack:
        stack.enter_context(importlib.import_module("torch._dynamo").config.patch(recompile_limit=VARIANTS))
        for name in DENOISERS:
            network: Any = networks.get(name)
            kinds = (*BLOCKS, *(getattr(network, "_repeated_blocks", None) or ()))
            for block in network.modules() if network is not None else ():
                if type(block).__name__ in kinds:
                    if "forward" in block.__dict__:
                        raise UnsupportedParams("compile: regional does not work where blocks are moved to the device one by one, got a "
                                                "tier that does that; use tier 3 or lower, or leave compile out")  # fmt: skip
                    kind: Any = type(block)
                    stack.enter_context(in_place(block, functools.partial(_code_of(kind), block)))
        yield


@functools.cache
def _code_of(kind: Any) -> Callable[..., Any]:
    """The forward pass of a class of blocks, compiled when it is first called. Of the class: that of a block would keep its network."""
    return torch.compile(kind.forward, dynamic=False)


def _check_compiler(device: str) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch's own parts use what torch deprecates
        importlib.import_module("torch._inductor.compile_fx")
    if device.startswith("cuda"):
        what = "" if importlib.util.find_spec("triton") else "triton: pip install triton"
    else:
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            what = "" if get_cpp_compiler() else "a C++ compiler"
        except Exception as error:  # noqa: BLE001 - it raises what it raises
            what = f"a C++ compiler such as g++ ({one_line(error, 100)})"
    if what:
        raise UnsupportedParams(f"compile: torch's compiler needs {what}; install it, or leave compile out")


@contextmanager
def attending(name: str, device: str) -> Iterator[None]:
    """Attention by another backend of diffusers' dispatcher, in all networks that go through it.

    Raises:
        UnsupportedParams: it runs on CUDA alone, or its package is missing.
    """
    from diffusers.models.attention_dispatch import attention_backend

    if name in ("sage", "flash", "xformers") and not device.startswith("cuda"):
        raise UnsupportedParams(f"attention: {name} runs on CUDA alone, got {device}; nearest: native")
    with ExitStack() as stack:
        try:
            stack.enter_context(attention_backend(name))
        except (RuntimeError, ValueError, ImportError) as error:
            raise UnsupportedParams(f"attention: {name} cannot be used here ({one_line(error)}); nearest: native") from None
        yield
