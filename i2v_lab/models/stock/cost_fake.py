"""Fake tensors that a whole pipeline of diffusers runs on: shapes and types without memory, and values where values decide shapes.

torch's plain FakeTensorMode stops at `.item()`, at `image.min()`, at a slice by a mask's sum, at `.numpy()`. Here a tensor that comes in
from outside (a scheduler's sigmas, the picture, token ids) keeps its values beside its fake self, and so does what is computed of
such tensors alone. What comes out of a network has none.

`pretend` changes torch for the whole process: use it in a process that does nothing else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses import fake_tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

# Tensors of so many numbers keep their values: masks, token ids, timesteps, a picture's pixels. A clip's pixels have more.
VALUES = 1 << 24
MADE = 1 << 16  # the same, for tensors that torch.zeros and the like make

aten = torch.ops.aten


@contextlib.contextmanager
def pretend() -> Iterator[None]:
    """Inside, all tensors are fake. The names that are patched are private ones of torch; a test holds them to its version."""
    mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
    with (
        mock.patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", VALUES),
        mock.patch.object(fake_tensor.FakeTensor, "numpy", _numpy, create=True),
        mock.patch("torch._check_tensor_all_with", lambda *_, **__: None),
        mode,
        Lift(mode),
    ):
        yield


class Lift(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Turns real tensors into fake ones that remember their values, and answers what only values can."""

    def __init__(self, mode: fake_tensor.FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mode = mode

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet, kwargs = func.overloadpacket, kwargs or {}
        small = packet in (aten.zeros, aten.ones, aten.full) and math.prod(args[0]) <= MADE
        if packet in (aten.linspace, aten.arange) or small:
            with _disable_current_modes():
                return self._constant(func(*args, **kwargs))
        args, kwargs = tree_map_only(torch.Tensor, self._constant, (args, kwargs))
        if packet is aten.nonzero:
            return self._places(args[0])
        if packet is aten.index:  # by a mask: as many rows as it has true values
            args = (args[0], [place for index in args[1] for place in self._split(index)])
        if packet is aten._local_scalar_dense and args[0].constant is None:  # HunyuanVideo 1.5: "are all embeddings zero?"
            return False if args[0].dtype == torch.bool else 0
        return func(*args, **kwargs)

    def _constant(self, tensor: torch.Tensor) -> Any:
        if isinstance(tensor, fake_tensor.FakeTensor):
            return tensor
        return self.mode.fake_tensor_converter.from_real_tensor(self.mode, tensor, make_constant=True)

    def _split(self, index: Any) -> Iterable[Any]:
        return self._places(index).unbind(1) if index is not None and index.dtype == torch.bool else (index,)

    def _places(self, mask: Any) -> Any:
        """Where a mask is true; everywhere, if only a network's output could tell."""
        with _disable_current_modes():
            known = mask.constant if mask.constant is not None else torch.ones(mask.shape, dtype=torch.bool)
            return self._constant(known.nonzero())


def _numpy(self: Any, *, force: bool = False) -> Any:
    with _disable_current_modes():
        return self.constant.numpy() if self.constant is not None else np.broadcast_to(np.float32(0), tuple(self.shape))


def real(value: Any) -> Any:
    """A fake tensor's values as a real tensor; anything else as it is."""
    return value.constant if isinstance(value, fake_tensor.FakeTensor) and value.constant is not None else value


def outside() -> Any:
    """A context in which tensors are real."""
    return _disable_current_modes()
