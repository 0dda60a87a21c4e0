"""Seconds and memory of a run: known answers from work whose length and size are known."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from i2v_lab.clip.progress import Listeners, Progress
from i2v_lab.clip.record import RunRecord
from i2v_lab.devices.hardware import machine, versions
from i2v_lab.devices.meter import Meter
from i2v_lab.errors import OutOfMemory

MIB = 2**20


def work(seconds: float) -> None:
    """Keep the processor busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_stages_add_up_to_the_total() -> None:
    before = time.perf_counter()
    with Meter() as meter:
        for name, seconds in {"load": 0.03, "encode": 0.01, "denoise": 0.06, "decode": 0.02, "write": 0.01}.items():
            meter.stage(name)
            work(seconds)
    around = time.perf_counter() - before
    assert list(meter.seconds) == ["load", "encode", "denoise", "decode", "write"]
    assert meter.seconds["denoise"] >= 0.06
    assert meter.seconds["encode"] >= 0.01
    assert sum(meter.seconds.values()) <= meter.total <= around
    assert meter.total - sum(meter.seconds.values()) < 0.02  # what lies outside of all stages
    assert meter.total == meter.total  # it stands still after the end


def test_a_stage_entered_twice_adds_up() -> None:
    with Meter() as meter:
        for _ in range(2):
            meter.stage("encode")
            work(0.02)
            meter.stage("denoise")
    assert meter.seconds["encode"] >= 0.04
    assert meter.seconds["denoise"] < 0.04


def test_what_comes_before_the_first_stage_is_in_the_total_alone() -> None:
    with Meter() as meter:
        work(0.03)
        meter.stage("load")
    assert meter.seconds["load"] < 0.03 <= meter.total


def test_steps_are_those_of_denoising() -> None:
    with Meter() as meter:
        listener: Progress = Listeners(meter)
        listener.stage("load", 3)
        listener.step()
        listener.stage("denoise", 4)
        for _ in range(4):
            work(0.01)
            listener.step(lambda: np.zeros((1, 2, 2, 3), np.uint8))
        listener.stage("decode", 2)
        listener.step()
    assert meter.steps == 4
    assert meter.seconds["denoise"] >= 0.04
    assert meter.seconds_per_step == meter.seconds["denoise"] / 4


def test_no_steps_no_seconds_per_step() -> None:
    with Meter() as meter:
        meter.stage("denoise", 4)
    assert meter.seconds_per_step is None


def test_peak_memory_of_an_array_that_comes_and_goes_within_a_stage() -> None:
    with Meter("cpu") as quiet:
        quiet.stage("denoise")
    with Meter("cpu") as meter:
        meter.stage("denoise")
        # Pages count once they are touched. The array is gone before the stage ends, so only the thread can see it.
        block = np.full(300 * MIB, 7, np.uint8)
        work(0.05)
        del block
        meter.stage("decode")
    assert quiet.peak_ram_gib is not None
    assert meter.peak_ram_gib is not None
    assert meter.peak_ram_gib - quiet.peak_ram_gib == pytest.approx(300 / 1024, abs=0.02)
    assert quiet.peak_ram_gib == pytest.approx(psutil.Process().memory_info().rss / 2**30, abs=0.05)


def test_no_cuda_no_vram() -> None:
    with Meter("cpu") as meter:
        meter.stage("denoise")
    assert (meter.peak_vram_allocated_gib, meter.peak_vram_reserved_gib) == (None, None)


def test_an_error_ends_the_thread_and_leaves_what_was_measured() -> None:
    meter = Meter()
    with pytest.raises(OutOfMemory), meter:
        meter.stage("denoise")
        meter.step()
        work(0.01)
        raise OutOfMemory("no more")
    assert meter.seconds["denoise"] >= 0.01
    assert meter.total >= meter.seconds["denoise"]
    assert meter.peak_ram_gib is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "memory of the run"]


def test_its_figures_fit_the_record() -> None:
    with Meter() as meter:
        meter.stage("denoise")
        meter.step()
        assert 0 < meter.total < 5  # it can be read while it runs
    record = RunRecord(id="1", status="done", **meter.record_fields())
    assert record.seconds["total"] == meter.total
    assert record.seconds_per_step == meter.seconds_per_step
    assert record.peak_ram_gib == meter.peak_ram_gib


@pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="needs an NVIDIA GPU")
def test_peak_vram_is_that_of_the_run() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA build of torch")
    torch.ones(512 * MIB, dtype=torch.uint8, device="cuda")  # before the run: must not count
    with Meter() as meter:
        meter.stage("denoise")
        block = torch.ones(256 * MIB, dtype=torch.uint8, device="cuda")
        for _ in range(200):
            block.mul_(1)  # these run on after the calls return
        meter.stage("decode")
    assert meter.peak_vram_allocated_gib == pytest.approx(0.25, abs=0.01)
    assert meter.peak_vram_reserved_gib is not None
    assert meter.peak_vram_reserved_gib >= meter.peak_vram_allocated_gib
    assert meter.seconds["denoise"] > meter.seconds["decode"]


def test_machine() -> None:
    found = machine("cpu")
    assert found["host"] == socket.gethostname()
    assert found["device_name"]
    assert found["vram_gib"] is None
    if sys.platform == "linux":
        kib = int(re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
        assert 0 < float(found["ram_gib"] or 0) <= kib / 2**20 + 1e-6
    assert set(machine()) == set(found)


def test_versions_without_importing_anything_heavy() -> None:
    code = (
        "import sys, json\nfrom i2v_lab.devices.hardware import machine, versions\nfrom i2v_lab.devices.meter import Meter\n"
        "found = versions(); machine()\n"
        "with Meter() as meter: meter.stage('load')\n"
        "assert not {'torch', 'diffusers', 'transformers', 'cv2', 'pandas'} & set(sys.modules)\nprint(json.dumps(found))"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    found = versions()
    assert result.stdout.strip().startswith("{")
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["numpy"] == np.__version__
    assert found["torch"] == importlib.metadata.version("torch")
    assert {"i2v_lab", "diffusers", "transformers", "opencv"} <= set(found)
    found["torch"] = "changed"
    assert versions()["torch"] != "changed"
