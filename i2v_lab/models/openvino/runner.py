"""The forward pass of a network, computed by OpenVINO: put in the place of torch's while a clip is made.

A network is converted when it is first called with tensors of new shapes, which a stage "convert" shows, and kept on disk;
later clips and processes take what was kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from i2v_lab.clip.progress import Progress
from i2v_lab.errors import ModelError
from i2v_lab.models.levers import Clock, in_place
from i2v_lab.models.openvino import store
from i2v_lab.models.openvino.convert import FULL, KEPT, SHALLOW, WHOLE, Arrays, Call, convert
from i2v_lab.models.openvino.library import import_quiet, versions

WRITTEN = 1  # of this package's own way to convert: what was kept by another is not used
INPUTS = "inputs"

_compiled: WeakKeyDictionary[torch.nn.Module, dict[tuple[Path, str], Any]] = WeakKeyDictionary()
"""What is in memory: {network: {(folder, numbers): compiled network}}, of one clip's shape at a time."""
PROFILED = False  # whether networks that are opened from now on count their seconds


def forget() -> None:
    """Let go of what is in memory."""
    _compiled.clear()


def profile() -> Iterator[tuple[str, float]]:
    """(kind of operation, seconds) of the last pass of each network that was opened while PROFILED."""
    for requests in _compiled.values():
        for request in requests.values():
            for node in request.profiling_info:
                yield f"{node.node_type} {node.exec_type}", node.real_time.total_seconds()


@dataclass
class Conversions:
    """The converted networks of one checkpoint at one size, in one number format.

    Attributes:
        decides: what they depend on, as JSON takes it: the checkpoint's fingerprint, the size.
        int8: quantised, by what the networks were given in a short run of the model.
        device: what OpenVINO calls it.
        numbers: what is computed in where it is not int8: f32 or bf16, which a CPU without it takes for f32.
    """

    decides: Sequence[Any]
    int8: bool
    device: str = "CPU"
    numbers: str = "f32"
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """The folder of these networks."""
        packages = ("openvino", "torch", "diffusers", *(("nncf",) if self.int8 else ()))
        key = json.dumps([WRITTEN, list(self.decides), self.int8, versions(*packages)], sort_keys=True)
        return store.folder() / hashlib.sha256(key.encode()).hexdigest()[:24]

    @property
    def has_inputs(self) -> bool:
        """Whether the inputs of a run are there, which int8 needs."""
        return store.whole(self.place / INPUTS) is not None

    def keep_inputs(self, found: Mapping[str, Sequence[Arrays]]) -> None:
        """Keep what the networks were given in a run, {name of the network: calls}."""
        flat = {
            f"{name}/{number}/{key}": value
            for name, calls in found.items()
            for number, call in enumerate(calls)
            for key, value in call.items()
        }

        def write(place: Path) -> dict[str, Any]:
            np.savez(place / "inputs.npz", allow_pickle=False, **flat)
            return {"calls": {name: len(calls) for name, calls in found.items()}}

        store.keep(self.place / INPUTS, write)

    def inputs(self, name: str) -> list[dict[str, Any]]:
        """What a network was given in that run."""
        if not self.samples:
            with np.load(self.place / INPUTS / "inputs.npz") as file:
                for key in file.files:
                    network, number, what = key.split("/")
                    calls = self.samples.setdefault(network, [])
                    calls.extend({} for _ in range(int(number) + 1 - len(calls)))
                    calls[int(number)][what] = file[key]
        return self.samples.get(name, [])


class StandIn:
    """Called in the place of a network's forward pass.

    Args:
        name: of the network, in file names.
        network: whose forward pass it stands for; `true` is that.
        kept: where converted ones are.
        rows: whether the elements of a batch are computed one after another: one shape serves with and without guidance then.
        progress, stage: hears of a conversion, and then that its stage goes on.
    """

    def __init__(
        self, name: str, network: torch.nn.Module, kept: Conversions, *, rows: bool, progress: Progress,
        stage: tuple[str, int | None],
    ) -> None:  # fmt: skip
        self.name, self.network, self.true, self.kept = name, network, network.forward, kept
        self.rows, self.progress, self.stage = rows, progress, stage
        self.clock: Clock | None = None
        self.reusable: dict[tuple[int, int], torch.Tensor] = {}  # by pass and row: what FULL gave for SHALLOW

    @contextmanager
    def deep(self, clock: Clock) -> Iterator[None]:
        """Steps that reuse compute the shallow half alone, inside the block."""
        self.clock = clock
        try:
            yield
        finally:
            self.clock = None
            self.reusable.clear()

    def __call__(self, *args: Any, **options: Any) -> Any:
        call = Call.of(self.true, args, options)
        made = [self._row(number, row) for number, row in enumerate(call.rows() if self.rows else [call])]
        output = made[0] if len(made) == 1 else torch.cat(made)
        return (output,) if call.rest.get("return_dict") is False else output

    def _row(self, row: int, call: Call) -> torch.Tensor:
        if self.clock is None:
            # Of a UNet the one network serves with `deep` and without.
            return self._compute(FULL if self.name == "unet" and hasattr(self.network, "up_blocks") else WHOLE, call)[0]
        place = self.clock.passes, row
        if not self.clock.now.reused:
            output, self.reusable[place] = self._compute(FULL, call)
            return output
        with_kept = Call({**call.tensors, KEPT: self.reusable[place]}, call.rest)
        return self._compute(SHALLOW, with_kept)[0]

    def _compute(self, kind: str, call: Call) -> list[torch.Tensor]:
        request = self._request(kind, call)
        request.infer(list(call.arrays().values()), share_inputs=True)
        # Copies: the next pass writes into what it gives.
        return [torch.from_numpy(np.array(request.get_output_tensor(number).data)) for number in range(len(request.model_outputs))]

    def _request(self, kind: str, call: Call) -> Any:
        open_ones = _compiled.setdefault(self.network, {})
        place = self.kept.place / f"{self.name}-{kind}-{call.signature(kind)}"
        wanted = place, self.kept.numbers
        if wanted not in open_ones:
            for other in [other for other in open_ones if (other[0].parent, other[1]) != (place.parent, self.kept.numbers)]:
                del open_ones[other]  # of another shape or number format: the memory is needed now
            if store.whole(place) is None:
                self.progress.stage("convert")
                self._convert(kind, call, place)
            self.progress.stage("load")
            open_ones[wanted] = self._open(place)
            self.progress.stage(*self.stage)
        return open_ones[wanted]

    def _convert(self, kind: str, call: Call, place: Path) -> None:
        samples = None
        if self.kept.int8:
            samples = [sample for sample in self.kept.inputs(self.name) if call.alike(sample)]
            if not samples:
                raise ModelError(f"quantization: int8 was not calibrated for this shape of the {self.name}; use backend torch")

        def write(folder: Path) -> dict[str, Any]:
            with in_place(self.network, self.true):
                return convert(self.network, self.true, kind, call, samples, folder) | {
                    "versions": versions("openvino", "nncf", "torch")
                }

        store.keep(place, write)

    def _open(self, place: Path) -> Any:
        # A CPU that has bfloat16 would take it by itself, also where float32 is meant. A GPU and an NPU have formats of their own.
        on_cpu = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": self.kept.numbers}
        options = {"PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": PROFILED, **(on_cpu if self.kept.device == "CPU" else {})}
        core = import_quiet("openvino").Core()
        try:
            return core.compile_model(str(place / "model.xml"), self.kept.device, options).create_infer_request()
        except RuntimeError as error:
            raise ModelError(
                f"backend: OpenVINO cannot open {place} ({' '.join(str(error).split())[:150]}); use backend torch"
            ) from None


@contextmanager
def recorded(networks: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, list[Call]]]:
    """What networks are called with inside the block, where torch computes them as before: {name of the network: calls}."""
    found: dict[str, list[Call]] = {name: [] for name in networks}
    with ExitStack() as stack:
        for name, network in networks.items():
            stack.enter_context(in_place(network, _recording(network.forward, found[name])))
        yield found


def _recording(true: Callable[..., Any], calls: list[Call]) -> Callable[..., Any]:
    def forward(*args: Any, **options: Any) -> Any:
        call = Call.of(true, args, options)
        copies = {name: value.clone() for name, value in call.tensors.items()}  # a pipeline may write into its own
        calls.extend(Call(copies, call.rest).rows())
        return true(*args, **options)

    return forward
