"""Up the memory ladder: a try that runs out of memory is forgotten, and the next tier is tried."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from i2v_lab.errors import OutOfMemory

T = TypeVar("T")

# What RuntimeErrors of torch's CPU allocator, of C++, of CUDA, cuBLAS, cuDNN, XPU and MPS say when memory is short.
_WORDS = (
    "can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "alloc_failed", "allocation_failed",
    "out_of_device_memory", "out_of_host_memory", "out_of_resources",
)  # fmt: skip


def climb(
    tiers: Sequence[int],
    make: Callable[[int], T],
    ran_out: Callable[[int, str], None],
    worth: Callable[[int], bool] = lambda tier: True,
) -> T:
    """What `make` returns on the first tier where it does not run out of memory.

    Before the next try nothing of the failed one is left: neither its error, which holds every variable of the calls that
    it went through, nor what the device's allocator kept.

    Args:
        tiers: in the order they are tried, each once; not empty.
        make: does the work on a tier. Any error but of memory goes on up, as Stop and KeyboardInterrupt do.
        ran_out: called with the tier and the reason after each failed try; may raise to end the climb.
        worth: asked before every tier but the first whether to try it.

    Raises:
        OutOfMemory: after the last; it says why, and which tiers were tried.
    """
    tried: list[int] = []
    failed = ""
    for tier in tiers:
        if tried and not worth(tier):
            continue
        try:
            return make(tier)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failed = one_line(error)
        free()  # here, where the error and its traceback are gone
        tried.append(tier)
        ran_out(tier, failed)
    which = f"tier {tried[0]} was tried" if len(tried) == 1 else f"tiers {', '.join(map(str, tried))} were tried"
    advice = "" if "fewer frames" in failed else "; make fewer frames or a smaller resolution"
    raise OutOfMemory(f"{failed}; {which}{advice}")


def fitting(work: Callable[[], T], remedy: Callable[[str], str]) -> T:
    """What `work` returns.

    Args:
        remedy: the error's text for people, out of what the library said.

    Raises:
        OutOfMemory: memory was short. It is raised outside `except`: the error of the library keeps every variable of the calls that it
            went through.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = one_line(error)
    free()
    raise OutOfMemory(remedy(failed))


def free() -> None:
    """Give back what nothing refers to: to torch, and of the device's memory to the driver."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    for module in (torch.cuda, torch.xpu):
        if module.is_available() and module.is_initialized():
            module.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has no more memory."""
    torch = sys.modules.get("torch")
    if isinstance(error, (MemoryError, OutOfMemory)) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _WORDS)


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error of a library, short and on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}…"
