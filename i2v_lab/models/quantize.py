"""Weights of a network in 8 bits each: the layers keep small numbers, and make weights of the network's own dtype of them while they work.

    int8   whole numbers from -127 to 127, and a scale for each output channel, which takes the largest weight to 127
    fp8    float8_e4m3fn, as diffusers' layerwise casting has it; what that leaves alone is left alone here

A layer holds its weights in full for the moment in which it runs. Biases, norms and embeddings stay as they are. It is done here, and not
by torchao: that takes seconds to import and remarks on what it does not find, in plain clips too, and its tensors of other classes do
not go through the hooks and the prediction of memory as these plain parameters do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

LAYERS = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
MOST = 127


def quantize(network: torch.nn.Module, how: str) -> None:
    """Keep the weights of a network in 8 bits from now on.

    Args:
        network: of floating-point weights without gradients, on any device; fake tensors too.
        how: int8 or fp8; "none" leaves it as it is.
    """
    if how == "none":
        return
    exact = list(getattr(network, "_keep_in_fp32_modules", None) or ())
    if how == "fp8":
        exact += getattr(network, "_skip_layerwise_casting_patterns", None) or ()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, LAYERS) and "weight" in layer._parameters and not any(re.search(part, name) for part in exact):
            to, of = _KINDS[how]
            keep(layer, how, *to(layer.weight), of)


def keep(
    layer: torch.nn.Module, how: str, numbers: torch.Tensor, scale: torch.Tensor, weight: Callable[[Any], torch.Tensor]
) -> None:
    """Have a layer keep numbers and a scale in place of its weight.

    Args:
        how: a name for this way, the same for all layers of one class that have it.
        scale: of the weight's dtype; what asks a network for its dtype finds it there.
        weight: makes the weight of a layer.
    """
    del layer.weight
    layer.register_parameter("numbers", torch.nn.Parameter(numbers, requires_grad=False))
    layer.register_parameter("scale", torch.nn.Parameter(scale, requires_grad=False))
    kind: Any = type(layer)
    if (kind, how) not in _classes:  # one for each, so that equal layers are of one class
        _classes[kind, how] = type(f"{how.capitalize()}{kind.__name__}", (kind,), {"weight": property(weight)})
    layer.__class__ = _classes[kind, how]


_classes: dict[tuple[type, str], type] = {}


def _to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(numbers, int8, of the weight's shape; scale, of its dtype, (channels, 1, ...))."""
    largest = weight.float().abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    scale = (largest / MOST).to(weight.dtype)  # rounded first: what is kept is then of the very scale that it is multiplied with
    scale = torch.where(scale == 0, 1, scale).to(weight.dtype)
    return (weight.float() / scale.float()).round_().clamp_(-MOST, MOST).to(torch.int8), scale


def _of_int8(layer: Any) -> torch.Tensor:
    return torch.mul(layer.numbers, layer.scale)


def _to_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(bits, uint8, which nothing takes for the dtype of the network; a one, which has that dtype)."""
    return weight.to(torch.float8_e4m3fn).view(torch.uint8), torch.ones(1, dtype=weight.dtype, device=weight.device)


def _of_fp8(layer: Any) -> torch.Tensor:
    return torch.as_tensor(layer.numbers.view(torch.float8_e4m3fn).to(layer.scale.dtype))


_KINDS: Mapping[str, tuple[Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], Callable[[Any], torch.Tensor]]] = {
    "int8": (_to_int8, _of_int8), "fp8": (_to_fp8, _of_fp8),
}  # fmt: skip
