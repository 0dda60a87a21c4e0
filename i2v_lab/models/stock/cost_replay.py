"""Runs a network once for each shape of its arguments. A second call is not run: it holds what the first one held, on top of what is
there by then, and gives tensors of the same shapes. So forty equal blocks, fifty steps or a hundred tiles take the time of one.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch.utils._pytree import tree_leaves, tree_map

from i2v_lab.models.memory.tracker import Tracker


class Replay:
    """Replays modules of the same classes, options and sizes, for arguments of the same shapes.

    Lists among the arguments that a module changes, as the causal VAEs do with what they keep of the frames before, are changed in
    the same way. A call that takes or gives what is neither a tensor nor a plain value, such as a language model's cache, is run.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._known: dict[Any, tuple[int, int, _Skeleton, list[_Skeleton | None]]] = {}

    @contextlib.contextmanager
    def of(self, module: torch.nn.Module) -> Iterator[None]:
        """Inside, this module is replayed."""
        function, identity = module.forward, _identity(module)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            given = (args, options)
            try:
                key = (identity, _shape(given))
            except TypeError:
                return function(*args, **options)
            tracker = self.tracker
            before, flops, held = tracker.peak, tracker.flops, tracker.held
            if key in self._known:
                own, more, out, after = self._known[key]
                made = self._replay(given, out, after)
                tracker.peak, tracker.flops = max(before, held + own), flops + more
                return made
            tracker.peak = held
            inputs = [weakref.ref(tensor.untyped_storage()) for tensor in _tensors(given)]  # old ones may go while it runs
            lists = [(_shape(found), found) for found in _lists(given)]
            result = function(*args, **options)
            own, tracker.peak = tracker.peak - held, max(before, tracker.peak)
            with contextlib.suppress(TypeError):
                changed = [_Skeleton(found, inputs) if _shape(found) != shape else None for shape, found in lists]
                self._known[key] = own, tracker.flops - flops, _Skeleton(result, inputs), changed
            return result

        with mock.patch.dict(module.__dict__, {"forward": call}):
            yield

    @staticmethod
    def _replay(given: Any, out: _Skeleton, after: list[_Skeleton | None]) -> Any:
        inputs = _tensors(given)
        for found, changed in zip(_lists(given), after, strict=True):
            if changed is not None:
                found[:] = changed.made(inputs)
        return out.made(inputs)


def _tensors(given: Any) -> list[torch.Tensor]:
    return [item for item in tree_leaves(given) if isinstance(item, torch.Tensor)]


def _identity(module: torch.nn.Module) -> Any:
    """What of a module decides what it does with arguments: equal for the equal blocks of a network."""
    found = []
    for name, inner in module.named_modules():
        plain = [(key, value) for key, value in vars(inner).items() if isinstance(value, (bool, int, float, str))]
        sizes = [(key, tuple(value.shape), value.dtype) for key, value in inner._parameters.items() if value is not None]
        found.append((name, type(inner), tuple(item for item in plain if item[0] != "layer_idx"), tuple(sizes), inner.extra_repr()))
    return tuple(found)


def _shape(item: Any) -> Any:
    """What of arguments decides what a module does with them; TypeError where that cannot be said."""
    if isinstance(item, torch.Tensor):
        return tuple(item.shape), item.dtype, item.stride()
    if isinstance(item, Mapping):
        return tuple((key, _shape(value)) for key, value in item.items())
    if isinstance(item, (list, tuple)):
        return type(item), tuple(map(_shape, item))
    if isinstance(item, (int, float, str, bool, type(None), torch.dtype)):
        return item
    raise TypeError(type(item))


def _lists(item: Any) -> list[list[Any]]:
    """The lists among arguments."""
    inner = item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple)) else ()
    own = [item] if isinstance(item, list) else []
    return own + [found for value in inner for found in _lists(value)]


class _Skeleton:
    """Tensors of the same shapes, strides and storages as those in a structure; what shares its memory with an input still does.

    TypeError where something else is in there, which might hold tensors.
    """

    def __init__(self, structure: Any, inputs: list[weakref.ref[Any]]) -> None:
        self._storages: list[tuple[int, torch.dtype]] = []
        places = {id(storage()): -1 - number for number, storage in enumerate(inputs) if storage() is not None}

        def bone(item: Any) -> Any:
            if not isinstance(item, torch.Tensor):
                _shape(item)
                return item
            storage = item.untyped_storage()
            if id(storage) not in places:
                places[id(storage)] = len(self._storages)
                self._storages.append((storage.nbytes() // item.element_size(), item.dtype))
            return _Bone(places[id(storage)], tuple(item.shape), item.stride(), int(item.storage_offset()))

        self._bones = tree_map(bone, structure)

    def made(self, inputs: list[torch.Tensor]) -> Any:
        storages = [torch.empty(numbers, dtype=dtype) for numbers, dtype in self._storages]

        def tensor(item: Any) -> Any:
            if not isinstance(item, _Bone):
                return item
            return torch.as_strided(inputs[-1 - item.storage] if item.storage < 0 else storages[item.storage], *item.view)

        return tree_map(tensor, self._bones)


class _Bone:
    """Where a tensor is: the number of its storage (below 0: of an input), and the view of it."""

    def __init__(self, storage: int, *view: Any) -> None:
        self.storage, self.view = storage, view
