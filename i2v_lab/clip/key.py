"""What a clip is known by: the key of its settings, before it is made, and the hash of its frames, after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from i2v_lab.clip.levers import NEUTRAL
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.video import Frames

NOT_IN_KEY = ("fps",)  # parameters that decide no pixel


class KnownModel(Protocol):
    """What of a model decides pixels."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def clip_key(params: ClipParams, image_sha256: str, model: KnownModel, changes: Mapping[str, str] | None = None) -> str:
    """Identity of a clip's frames: a hash of everything that decides their pixels, wherever picture and checkpoint are.

    Args:
        params: with LoRAs named by their content (`models.by_content`).
        image_sha256: hex digest of the picture's bytes.
        changes: what else changes pixels, such as decoding in tiles (`models.memory.tiers.pixel_changes`). A clip that is
            made so has a key of its own: a user who did not ask for it never gets it.
    """
    decides: dict[str, Any] = {
        **{name: value for name, value in params.plain().items() if name not in NOT_IN_KEY and value != NEUTRAL.get(name)},
        "image": image_sha256,
        "model": [model.name, model.fingerprint],
        "dtype": model.dtype,
        **(changes or {}),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def frames_sha256(frames: Frames) -> str:
    """Hash of the frames as the model returned them: shape and pixels."""
    return hashlib.sha256(str(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()
