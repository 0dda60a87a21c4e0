"""The deterministic model that tests use: no diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from i2v_lab.clip.params import Advice, ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.video import Frames
from i2v_lab.models.base import StageCost, Weightless, check_common


class FakeModel(Weightless):
    """Deterministic and instant, for tests: the crop, brightened a little more with each frame. No diffusion."""

    name: ClassVar[str] = "fake"
    about: ClassVar[str] = "For tests: the picture, a little brighter in each frame. No diffusion."
    licence: ClassVar[str] = "Apache-2.0"
    native_size: ClassVar[tuple[int, int]] = (64, 64)
    size_multiple: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"resolution": "64x64", "num_frames": 2, "num_inference_steps": 1}
    }

    fingerprint = "fake-1"

    @classmethod
    def check(cls, params: ClipParams) -> None:
        check_common(cls, params)

    @classmethod
    def advice(cls, params: ClipParams) -> list[Advice]:
        return []

    @classmethod
    def cost(cls, params: ClipParams, **_: Any) -> tuple[StageCost, ...]:
        cls.check(params)
        frame = params.height * params.width * 3
        # The frames are made through 16 bits, in three steps.
        return (
            StageCost("encode", 0, 2 * frame, 0),
            StageCost("denoise", 0, 2 * frame, 0),
            StageCost("decode", 0, 2 * frame + 5 * params.num_frames * frame, frame * params.num_frames),
        )

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        progress.stage("encode")
        crop = image.crop(params.height, params.width).astype(np.uint16)
        progress.stage("denoise", params.num_inference_steps)
        for _ in range(params.num_inference_steps):
            progress.step()
        progress.stage("decode")
        brighter = (params.seed % 5 + 1) * np.arange(params.num_frames, dtype=np.uint16)  # (F,)
        return np.minimum(crop[None] + brighter[:, None, None, None], 255).astype(np.uint8)  # (F, H, W, 3)
