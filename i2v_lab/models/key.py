"""What a clip is known by: the key of its settings, before it is made, and the hash of its frames, after."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from i2v_lab.image import Picture
from i2v_lab.models import Identity
from i2v_lab.models.base import Frames, VideoModel
from i2v_lab.models.tiers import changes_pixels
from i2v_lab.params import ClipParams


def clip_key(params: ClipParams, picture: Picture, model: VideoModel | Identity, tier: int = 0) -> str:
    """Identity of a clip: a hash of everything that decides its pixels, wherever picture and checkpoint lie.

    Args:
        tier: the rung of the memory ladder. Rungs that keep the pixels have one key; one that changes those of a clip of this
            size has another, so that who did not ask for such a clip, and has room for a better one, is never given it.
    """
    decides: dict[str, Any] = {
        **params.plain(),
        "image": picture.sha256,
        "model": [model.name, model.fingerprint],
        "dtype": model.dtype,
        **({"decoded": "in tiles"} if changes_pixels(tier, params.height, params.width) else {}),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def frames_sha256(frames: Frames) -> str:
    """Hash of the frames as the model returned them: shape and pixels."""
    return hashlib.sha256(str(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()
