"""Follows what torch code holds and computes: bytes of live storages, their highest sum, and FLOPs.

It works on real tensors and, which is what it is for, on fake ones: tensors of a shape and a type without memory behind
them (torch's FakeTensorMode), so that the code of a network of billions of parameters runs on a laptop in a second.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, inside its `with` block, every storage that an operation returns, until nothing refers to it any more.

        with torch.no_grad(), Tracker(weights) as tracker:
            network(x)
        tracker.peak, tracker.flops

    What an operation needs inside itself and gives back (workspaces of cuDNN, oneDNN's packed weights) is not seen, nor
    how an allocator rounds and splits. Use `torch.no_grad`: under `inference_mode` whole operations such as a linear
    layer or attention would arrive in one piece, and what they hold in between would not be seen.

    Attributes:
        held: bytes alive now.
        peak: the most that was alive at once.
        flops: floating-point operations of matrix products, convolutions and attention; a multiply and an add are two.
            Norms, activations, sums and copies are not counted: on such networks they are a few per cent.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        """Args:
        known: tensors that are there already and are not to be counted: parameters and buffers. A view of one, such as
            a transposed weight, would otherwise count as new memory.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = self.flops = 0
        # By the storage itself: several tensors share one, and a storage's address is used again once it is gone.
        self._sizes: dict[int, int] = {}
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        for tensor in known:
            storage = tensor.untyped_storage()
            self._known[id(storage)] = storage

    def add(self, *tensors: torch.Tensor) -> None:
        """Count tensors that were made outside."""
        for tensor in tensors:
            self._count(tensor)

    def drop(self, tensors: Iterable[torch.Tensor]) -> None:
        """Known tensors that are there no more: others may take their room."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if self._known.pop(id(storage), None) is storage:
                self.held -= storage.nbytes()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.flops += flops(func, args, kwargs, result)
        for item in tree_iter(result):
            if isinstance(item, torch.Tensor):
                self._count(item)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage: Any = tensor.untyped_storage()
        key = id(storage)
        if self._known.get(key) is storage:
            return
        size = storage.nbytes()
        if key not in self._sizes:
            weakref.finalize(storage, self._forget, key).atexit = False
        elif self._sizes[key] == size:
            return
        self.held += size - self._sizes.get(key, 0)  # a storage may be resized in place
        self._sizes[key] = size
        self.peak = max(self.peak, self.held)

    def _forget(self, key: int) -> None:
        self.held -= self._sizes.pop(key)


def flops(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> int:
    """FLOPs of one operation of torch: by the table of torch's FlopCounterMode, and attention on a CPU, which it lacks."""
    packet = func._overloadpacket
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        packet = torch.ops.aten._scaled_dot_product_flash_attention
    count: Callable[..., int] | None = flop_registry.get(packet)
    return int(count(*args, **kwargs, out_val=result)) if count else 0
