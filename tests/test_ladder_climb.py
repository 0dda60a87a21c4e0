"""Climbing the memory ladder: one try after the other, and a process under a real limit of memory."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import SIZES, make_checkpoint

from i2v_lab.clip.video import Frames
from i2v_lab.errors import OutOfMemory, Stop
from i2v_lab.models.memory.ladder import climb


def test_climb_forgets_a_failed_try_before_the_next() -> None:
    held: list[weakref.ref[Any]] = []
    left: list[bool] = []

    def make(tier: int) -> str:
        left.append(any(ref() is not None for ref in held))
        made = np.zeros(1000)
        held.append(weakref.ref(made))
        if tier < 2:
            raise MemoryError
        return f"made on {tier}"

    told: list[tuple[int, str]] = []
    assert climb((0, 1, 2), make, lambda tier, why: told.append((tier, why))) == "made on 2"
    assert left == [False, False, False]
    assert told == [(0, "MemoryError"), (1, "MemoryError")]
    with pytest.raises(OutOfMemory, match="tier 1 was tried; make fewer frames") as caught:
        climb((1,), make, lambda tier, why: None)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("shape mismatch"), Stop("enough"), KeyboardInterrupt()])
def test_climb_lets_other_errors_pass(error: BaseException) -> None:
    tried: list[int] = []

    def make(tier: int) -> Frames:
        tried.append(tier)
        raise error

    with pytest.raises(type(error)):
        climb((0, 1), make, lambda tier, why: None)
    assert tried == [0]


LIMITED = """
import gc, resource, sys
from pathlib import Path
from i2v_lab.clip.params import ClipParams
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store

def pages(column):
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()

def run(params, **options):
    record = run_clip(params, None, store, settings=Settings(device="cpu"), **options)
    print(record.status, record.requested_tier, record.actual_tier, record.frames_sha256[:16], "|".join(record.notes) or record.reason, sep=";")

store, limits = Store(Path(sys.argv[2])), [int(limit) * 2**20 for limit in sys.argv[3:]]
small = ClipParams(image="sample:coffee", model=sys.argv[1], resolution="64x64", num_frames=2, num_inference_steps=1, guidance_scale=1)
large = small.replace(resolution="256x256", num_frames=48)
run(small)
run(large)  # all that libraries keep for good is there
before = pages(1)
for limit in limits:
    resource.setrlimit(resource.RLIMIT_AS, (pages(0) + limit, resource.RLIM_INFINITY))
    run(large, force=True)
    print((pages(1) - before) // 2**20)
    run(small, force=True)
"""


@pytest.mark.slow  # a minute: three ladders are climbed under a real limit
def test_a_real_limit_of_memory(tmp_path: Path) -> None:
    narrow = {"block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 1}
    vae = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}
    sizes = {**SIZES["small"], "unet": {**SIZES["small"]["unet"], **narrow}, "vae": {**SIZES["small"]["vae"], **vae}}
    SIZES["narrow"] = sizes
    folder = make_checkpoint(tmp_path / "narrow", "narrow")
    limits = ("54", "34", "12")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, folder, tmp_path / "results", *limits], capture_output=True, text=True, check=False, timeout=300,
        # Every tensor of some size is given back to the system when it is freed: what is left is what is held.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split(";") for line in done.stdout.splitlines()]
    (_, untroubled), tries = lines[:2], [lines[2:][part : part + 3] for part in range(0, 9, 3)]
    assert untroubled[:3] == ["done", "0", "0"]
    ends = [("done", "1", "ran out of memory on tier 0, made on tier 1"),
            ("done", "2", "ran out of memory on tiers 0, 1, made on tier 2"), ("out_of_memory", "5", "")]  # fmt: skip
    for (large, (left,), small), (status, tier, note) in zip(tries, ends, strict=True):
        assert large[:3] == [status, "0", tier]
        assert large[3] == (untroubled[3] if status == "done" else "")
        assert large[4].startswith(note)
        assert int(left) < 16  # MiB more than before; each try had tens
        assert small[:3] == ["done", "0", "0"]  # the next clip, in the same process and under the same limit
    assert "tiers 0, 1, 2, 5 were tried" in done.stdout
