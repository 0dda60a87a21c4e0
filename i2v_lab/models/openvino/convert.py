"""A network of torch as one of OpenVINO: traced at one shape, in float32, or quantised to int8 by NNCF."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from i2v_lab.errors import ModelError
from i2v_lab.models.checkpoint import one_line
from i2v_lab.models.levers import deep_halves
from i2v_lab.models.memory.ladder import is_out_of_memory
from i2v_lab.models.openvino.library import import_quiet, quiet

Arrays = Mapping[str, npt.NDArray[Any]]
WHOLE, FULL, SHALLOW = "whole", "full", "shallow"
"""What of a network is converted: all of it; all of it, with what a step that reuses needs of it; what such a step computes."""
KEPT = "kept"  # the input of SHALLOW that FULL gives
MIGRATION = 0.5  # how much of the activations' range SmoothQuant moves into the weights of a matrix product (Xiao et al. 2023: 0.5)


@dataclass(frozen=True)
class Call:
    """What a network is called with.

    Attributes:
        tensors: its tensors by the names of the arguments. rest: its other arguments.
    """

    tensors: Mapping[str, torch.Tensor]
    rest: Mapping[str, Any]

    @classmethod
    def of(cls, forward: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> Call:
        """The call of a forward pass. A time is a float: some schedulers count in whole numbers, and networks take both."""
        given = inspect.signature(forward).bind(*args, **options).arguments
        given = {**given, **given.pop("kwargs", {})}
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        if "timestep" in tensors:
            tensors["timestep"] = tensors["timestep"].float()
        return cls(tensors, {name: value for name, value in given.items() if name not in tensors})

    def rows(self) -> list[Call]:
        """A call for each element of the batch, where all tensors have one; a tensor without a dimension is in all of the calls."""
        count, *others = {len(value) for value in self.tensors.values() if value.ndim}
        if others:
            return [self]
        return [
            Call({name: value[row : row + 1] if value.ndim else value for name, value in self.tensors.items()}, self.rest)
            for row in range(count)
        ]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The tensors as NumPy has them; they share memory."""
        return {name: value.detach().contiguous().numpy() for name, value in self.tensors.items()}

    def signature(self, kind: str) -> str:
        """A short text that changes with the shapes and types of the tensors, and with the other arguments."""
        shapes = [[name, list(value.shape), str(value.dtype)] for name, value in self.tensors.items()]
        rest = {name: repr(value) for name, value in self.rest.items()}
        return hashlib.sha256(json.dumps([kind, shapes, rest], sort_keys=True).encode()).hexdigest()[:12]

    def shapes(self) -> dict[str, list[Any]]:
        """{name: [shape, type]} of the tensors."""
        return {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in self.tensors.items()}

    def alike(self, arrays: Arrays) -> bool:
        """Whether these are tensors of the same names, shapes and types."""
        own = {name: value for name, value in self.arrays().items() if name != KEPT}
        return own.keys() == arrays.keys() and all(
            value.shape == arrays[name].shape and value.dtype == arrays[name].dtype for name, value in own.items()
        )


class _OfTensors(torch.nn.Module):
    """A network as a function of its tensors alone, in the order of their names; it gives a tuple."""

    def __init__(self, network: torch.nn.Module, work: Callable[..., Any], names: Sequence[str], rest: Mapping[str, Any]) -> None:
        super().__init__()
        self.network, self.work, self.names, self.rest = network, work, names, rest

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made = self.work(**dict(zip(self.names, tensors, strict=True)), **self.rest)
        return tuple(made) if isinstance(made, (tuple, list)) else (made,)


def traceable(network: torch.nn.Module, forward: Callable[..., Any], kind: str, call: Call) -> torch.nn.Module:
    """What is converted: (1) tensors in the order of `call`, (2) a tuple of tensors.

    Args:
        forward: the network's own forward pass, which is not always the one in its place.
    """
    work = forward if kind == WHOLE else deep_halves(network, forward)[kind == SHALLOW]
    return _OfTensors(network, work, list(call.tensors), call.rest).eval()


def convert(
    network: torch.nn.Module, forward: Callable[..., Any], kind: str, call: Call, samples: Sequence[Arrays] | None, place: Path
) -> dict[str, Any]:
    """Write model.xml and model.bin into a folder. Returns what is to be known of the network.

    Args:
        kind: WHOLE, FULL or SHALLOW.
        call: what it is called with; its shapes are those of the converted network.
        samples: what it was called with in a run of the model, to learn the ranges of int8 from; None: float32.

    Raises:
        ModelError: the network cannot be traced, or has operations that OpenVINO does not know.
    """
    openvino = import_quiet("openvino")
    module = traceable(network, forward, kind, call)
    given = tuple(call.tensors.values())
    try:
        with torch.no_grad(), quiet():
            # Its check would run the network three more times.
            traced = torch.jit.trace(module, given, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
            made = openvino.convert_model(traced, example_input=given, input=[tuple(tensor.shape) for tensor in given])
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"backend: OpenVINO cannot convert {type(network).__name__} ({one_line(error, 150)}); use backend torch"
        ) from None
    if len(made.inputs) != len(given):
        raise ModelError(f"backend: OpenVINO left out inputs of {type(network).__name__}; use backend torch")
    for port, name in zip(made.inputs, call.tensors, strict=True):
        port.get_tensor().set_names({name})
    if samples is not None:
        made = _quantised(made, _with_kept(network, forward, kind, call, samples))
    with quiet():
        openvino.save_model(made, place / "model.xml", compress_to_fp16=False)
    return {
        "network": type(network).__name__,
        "part": kind,
        "inputs": call.shapes(),
        "numbers": "float32" if samples is None else "int8",
    }


def _with_kept(
    network: torch.nn.Module, forward: Callable[..., Any], kind: str, call: Call, samples: Sequence[Arrays]
) -> list[dict[str, Any]]:
    """Samples for this part of a network: what a step that reuses is given was computed by one that does not."""
    if kind != SHALLOW:
        return [dict(sample) for sample in samples]
    found = []
    full = traceable(network, forward, FULL, Call({name: call.tensors[name] for name in samples[0]}, call.rest))
    with torch.no_grad():
        for sample in samples:
            kept = full(*(torch.from_numpy(sample[name]) for name in sample))[1]
            found.append({**sample, KEPT: kept.numpy()})
    return found


def _quantised(model: Any, samples: Sequence[Mapping[str, Any]]) -> Any:
    nncf = import_quiet("nncf")
    alphas = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=MIGRATION)
    with quiet():
        return nncf.quantize(
            model, nncf.Dataset(list(samples)), subset_size=len(samples), model_type=nncf.ModelType.TRANSFORMER,
            advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas),
        )  # fmt: skip
