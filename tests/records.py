"""Records that the tests of the store save, and how they ask for an error."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.errors import StoreError

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
PARAMS = ClipParams(
    model="i2vgen-xl", image="pictures/ä b.png", prompt="a cat; \"walking\",\n走着", negative_prompt="blur", resolution="704x1280",
    num_frames=24, fps="24000/1001", condition_fps=8, num_inference_steps=30, guidance_scale=7.5, seed=2**63 - 1, scheduler="heun",
    dtype="float16", seconds=2.5, flow_shift=3.0, guidance_scale_2=4.0, true_cfg_scale=1.5, min_guidance_scale=1.0, motion_bucket_id=127,
    noise_aug_strength=0.02, decode_timestep=0.05, decode_noise_scale=0.025, image_cond_noise_scale=0.15, lora="style.safetensors:0.8",
    guidance_interval="0.1-0.8", cache="deep:3", quantization="int8", backend="openvino", compile="regional",
    attention="sage",
)  # fmt: skip
FULL = RunRecord(
    id=new_id(NOON), status="done", reason="-", params=PARAMS, seconds_per_step=0.3,
    seconds={"load": 1.5, "denoise": 9.25, "metrics": 0.5, "total": 12.0},
    peak_ram_gib=3.5, peak_vram_allocated_gib=8.25, peak_vram_reserved_gib=9.0, ram_rise_gib=0.5, predicted_peak_gib=8.0,
    first_of_shape=True,
    requested_tier=0, actual_tier=1, clip="clips/a.mp4", retimed_from="r", file_bytes=12345, frames_sha256="f" * 64, padded_rows=1, padded_columns=1,
    metrics={"motion": 1.25, "flicker": None}, notes=("first frame of 3", "näxt"), sweep="guidance", key="k" * 64, created=NOON,
    finished=NOON + timedelta(seconds=12), image_sha256="a" * 64, model_name="i2vgen-xl", model_fingerprint="b" * 64,
    device="cuda:0", device_name="a GPU", parallel=2, cpu_capability="AVX2", dtype="bfloat16", versions={"torch": "2.13.0"}, host="elsewhere", pid=17,
)  # fmt: skip


def record(status: str = "done", **fields: object) -> RunRecord:
    return RunRecord.model_validate({"id": new_id(), "status": status, "params": ClipParams(image="x.png"), **fields})


def fault(work: object, *args: object, **options: object) -> str:
    """The text of the error, which is one line."""
    with pytest.raises(StoreError) as caught:
        work(*args, **options)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """Another process, whose standard input and output are ours."""
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code, *map(str, args)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip
