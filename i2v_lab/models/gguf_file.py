"""GGUF files: weights of one network, in blocks of few bits with scales of their own (the format of llama.cpp), read through diffusers.

Layers keep the blocks as they are in the file, and make weights of them while they work, as in quantize.py.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from i2v_lab.errors import ModelError
from i2v_lab.models.memory.ladder import one_line
from i2v_lab.models.quantize import keep

SUFFIX = ".gguf"
PLAIN = ("F32", "F16")  # formats that diffusers reads as plain tensors
Quantized = Sequence[tuple[Sequence[int], str]]
"""(shape, format, such as Q8_0) of each quantized tensor of a file."""


def read(path: Path) -> Any:
    """The file's GGUFReader; nothing but its head is read.

    Raises:
        ModelError: gguf is not installed; the file is none, cut or damaged; or diffusers does not read one of its formats.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{path}: GGUF files need gguf: pip install 'i2v_lab[families]'")
    from gguf import GGUFReader

    try:
        found = GGUFReader(path)
        if not found.tensors:
            raise ValueError("it has no tensors")
        last = max(int(tensor.data_offset) + int(tensor.n_bytes) for tensor in found.tensors)
        if last > (size := path.stat().st_size):
            raise ValueError(f"its tensors end at byte {last}, and it has {size}")
    except (OSError, ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ModelError(
            f"{path}: expected a whole GGUF file, got one that is cut or damaged ({one_line(error)}); fetch it again"
        ) from None
    from diffusers.quantizers.gguf.utils import dequantize_functions

    readable = {*PLAIN, *(kind.name for kind in dequantize_functions)}
    if unknown := sorted({tensor.tensor_type.name for tensor in found.tensors} - readable):
        raise ModelError(f"{path}: diffusers does not read {', '.join(unknown)}; take a file of {', '.join(sorted(readable))}")
    return found


def head(path: Path) -> bytes:
    """All of the file that is before the weights."""
    start = min(int(tensor.data_offset) for tensor in read(path).tensors)
    with path.open("rb") as file:
        return file.read(start)


def quantized(path: Path) -> Quantized:
    """What of the file's tensors is quantized. Raises ModelError as `read`."""
    found = [(tuple(map(int, reversed(tensor.shape))), tensor.tensor_type.name) for tensor in read(path).tensors]
    return [(shape, name) for shape, name in found if name not in PLAIN]


def adopt(network: torch.nn.Module, dtype: torch.dtype) -> None:
    """Have layers of a network that diffusers read from a GGUF file keep their blocks as plain parameters.

    What is quantized in the file and no linear layer, or must stay exact, becomes a plain weight.
    """
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor

    for layer in network.modules():
        for name, weight in list(layer._parameters.items()):
            if isinstance(weight, GGUFParameter) and not (name == "weight" and isinstance(layer, GGUFLinear)):
                plain = dequantize_gguf_tensor(weight).to(dtype)
                layer._parameters[name] = torch.nn.Parameter(plain, requires_grad=False)
        if isinstance(layer, GGUFLinear):
            weight = layer.weight
            layer.__class__ = torch.nn.Linear
            _keep(layer, weight.quant_type.name, weight.as_tensor(), dtype)


def pretend(network: torch.nn.Module, tensors: Quantized) -> None:
    """A network of fake tensors as `adopt` would leave it: layers are told from each other by the shapes of their weights."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    exact = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    formats: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for shape, name in tensors:
        formats[tuple(shape)].append(name)
    for path, layer in network.named_modules():
        if not isinstance(layer, torch.nn.Linear) or exact.intersection(path.split(".")):
            continue
        if found := formats.get(tuple(layer.weight.shape)):
            name = found.pop(0) if len(found) > 1 else found[0]
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
            rows, columns = layer.weight.shape
            _keep(layer, name, torch.empty((rows, columns // block * size), dtype=torch.uint8), layer.weight.dtype)


def _keep(layer: torch.nn.Linear, name: str, blocks: torch.Tensor, dtype: torch.dtype) -> None:
    keep(layer, name, blocks, torch.ones(1, dtype=dtype, device=blocks.device), _weights(name))


def _weights(name: str) -> Callable[[Any], torch.Tensor]:
    """What makes weights of a layer's blocks."""

    def weight(layer: Any) -> torch.Tensor:
        from diffusers.quantizers.gguf.utils import dequantize_functions
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        kind = GGMLQuantizationType[name]
        block, size = GGML_QUANT_SIZES[kind]
        made = dequantize_functions[kind](layer.numbers.reshape(-1, size), block, size)
        return torch.as_tensor(made.reshape(len(layer.numbers), -1).to(layer.scale.dtype))

    return weight
