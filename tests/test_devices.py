"""Which device is which: the numbers of NVML and of torch, other devices than CUDA, and what is asked of each of torch's modules."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from i2v_lab import models
from i2v_lab.devices import gpus, turns
from i2v_lab.devices.meter import Meter
from i2v_lab.errors import ModelError
from i2v_lab.models import device as models_device
from i2v_lab.models.memory import ladder, tiers
from i2v_lab.models.sampling import forked
from i2v_lab.run.make import check_device

GIB = 2**30


class Driver(types.ModuleType):
    """NVML of a machine with these cards, (name, GiB, whether it is in MIG mode), in the order of the bus."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards: tuple[str, int, bool]) -> None:
        super().__init__("pynvml")
        self.cards = cards

    def nvmlInit(self) -> None:
        if not self.cards:
            raise self.NVMLError

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetName(self, number: int) -> str:
        return self.cards[number][0]

    def nvmlDeviceGetMemoryInfo(self, number: int) -> Any:
        return types.SimpleNamespace(total=self.cards[number][1] * GIB)

    def nvmlDeviceGetUUID(self, number: int) -> str:
        return f"GPU-{number}"

    def nvmlDeviceGetMigMode(self, number: int) -> tuple[int, int]:
        return (int(self.cards[number][2]),) * 2


@pytest.fixture
def machine_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with these cards and a torch for CUDA that is not imported yet, and would see the card `seen`."""

    def set_up(*cards: tuple[str, int, bool], build: str = "cu128", seen: str = "", **variables: str) -> None:
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(sys.modules, "pynvml", Driver(*cards))
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.setattr(gpus, "_build", lambda: build)
        monkeypatch.setattr(gpus, "_by_torch", lambda kind, index, free: gpus.Gpu(f"{kind}:{index}", seen, 1) if seen else None)

    return set_up


SMALL, LARGE = ("T4", 16, False), ("A100", 80, False)


@pytest.mark.parametrize(
    ("cards", "setting", "device", "expected"),
    [
        ((LARGE, LARGE), {}, "cuda:1", "GPU-1"),
        ((LARGE, LARGE), {"CUDA_VISIBLE_DEVICES": "1"}, "cuda:0", "GPU-1"),
        ((LARGE, LARGE), {"CUDA_VISIBLE_DEVICES": "1"}, "cuda:1", None),
        ((LARGE,), {"CUDA_VISIBLE_DEVICES": ""}, "cuda:0", None),
        ((SMALL, LARGE), {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "cuda:0", "GPU-0"),
        ((SMALL, LARGE), {}, "cuda:0", "torch"),  # torch counts the fastest first
        ((("A100", 80, True),), {}, "cuda:0", "torch"),  # torch sees a part of it
        ((LARGE,), {"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, "cuda:0", "torch"),
        ((LARGE,), {"build": "cpu"}, "cuda:0", None),
        ((), {}, "cuda:0", None),
        ((), {"build": "rocm6.4"}, "cuda:0", "torch"),  # no NVML on AMD's cards
    ],
)
def test_the_card_that_torch_will_call_by_this_number(machine_with, cards, setting, device, expected):
    machine_with(*cards, seen="torch", **setting)
    found = gpus.gpu(device)
    assert (found and (found.uuid or found.name)) == expected
    if expected is None and device == "cuda:0":
        assert gpus.default_device() == "cpu"


def test_two_processes_that_number_a_card_differently_wait_for_each_other(machine_with):
    machine_with(LARGE, LARGE, CUDA_VISIBLE_DEVICES="1")
    one = turns._name("cuda:0")
    machine_with(LARGE, LARGE)
    assert turns._name("cuda:1") == one != turns._name("cuda:0")


class Module:
    """torch.xpu or torch.mps of a machine that has one: which of its functions were called."""

    def __init__(self, *, keeps_peaks: bool = True) -> None:
        self.called: list[str] = []
        self.allocated = 3 * GIB
        if keeps_peaks:
            self.max_memory_allocated = self.max_memory_reserved = lambda index: 2 * GIB
            self.reset_peak_memory_stats = lambda index: self.called.append(f"reset {index}")

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def device_count(self) -> int:
        return 1

    def is_bf16_supported(self) -> bool:
        return False

    def synchronize(self, *index: str) -> None:
        self.called.append("synchronize")

    def empty_cache(self) -> None:
        self.called.append("empty_cache")

    def current_allocated_memory(self) -> int:
        return self.allocated

    def driver_allocated_memory(self) -> int:
        return self.allocated + GIB


def test_intel_and_apple_are_chosen_after_cuda_and_measured_by_their_own_functions(monkeypatch):
    xpu, mps = Module(), Module(keeps_peaks=False)
    monkeypatch.setattr(torch, "xpu", xpu)
    monkeypatch.setattr(torch, "mps", mps)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: True)
    monkeypatch.setattr(models_device, "GPUS", {"cuda": torch.cuda, "xpu": xpu, "mps": mps})
    assert str(models_device.choose_device(None)) == "xpu:0"
    assert str(models_device.choose_device("mps")) == "mps"
    with pytest.raises(ModelError, match="expected one of the 1 XPU devices that torch sees, got xpu:1"):
        models_device.choose_device("xpu:1")
    assert models_device.choose_dtype("auto", torch.device("mps"), "bfloat16") == torch.bfloat16
    with pytest.raises(ModelError, match="xpu:0 does not compute in bfloat16; use --dtype float32 or float16"):
        models_device.choose_dtype("auto", torch.device("xpu:0"), "bfloat16")
    with Meter("xpu:0") as meter:
        meter.stage("encode")
    assert (meter.peak_vram_allocated_gib, meter.peak_vram_reserved_gib) == (2, 2)
    assert xpu.called[:2] == ["synchronize", "reset 0"]
    with Meter("mps") as meter:
        meter.stage("encode")
        mps.allocated = 7 * GIB
        meter.stage("denoise")
        mps.allocated = GIB
    assert (meter.peak_vram_allocated_gib, meter.peak_vram_reserved_gib) == (7, 8)
    ladder.free()
    assert xpu.called[-1] == mps.called[-1] == "empty_cache"


@pytest.mark.parametrize("device", ["mps", "xpu:0"])
def test_tiers_that_need_cuda_are_not_those_of_other_devices(device):
    assert tiers.tiers_on(device) == (0, 1, 2, 5)
    assert models.family("wan2.2-ti2v-5b").tiers(device) == (0, 5)
    with pytest.raises(ModelError, match=f"as {device}, got a machine where torch sees none"):
        check_device(models.family("i2vgen-xl"), device)


def test_random_numbers_of_one_device_alone_are_put_back(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # torch's own fork_rng then warns, and wakes all
    for name in ("cpu", "mps"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            state = torch.get_rng_state()
            with forked(torch.device(name)):
                torch.rand(3)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", "MPS backend out of memory (MPS allocated: 9.03 GB)",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    ],
)  # fmt: skip
def test_each_library_that_is_short_of_memory_is_understood(said):
    assert ladder.is_out_of_memory(RuntimeError(said))
    assert not ladder.is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_rocm_is_named_as_what_it_is(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert gpus.runtime("cuda:0") == "ROCm 6.4"
    assert gpus.runtime("xpu:0") == "XPU"


def test_a_lock_without_a_driver_keeps_the_number(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert turns._name("cuda:1") == "cuda-1"
    assert turns._name("mps") == "mps"
