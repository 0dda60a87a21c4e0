"""What the tests of `cost` share: the params of a small clip, and an empty cache of costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from i2v_lab.clip.params import ClipParams
from i2v_lab.models.memory import cost_cache


@contextmanager
def empty_cost_cache(place: Path) -> Iterator[Path]:
    """The folder of a cache of costs inside `place`, empty at first, instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        cost_cache.forget()
        yield place / "i2v_lab" / "costs"
    cost_cache.forget()


def clip(shape: str = "128x128 4", **fields: object) -> ClipParams:
    resolution, frames = shape.split()
    return ClipParams(
        **{"image": "sample:coffee", "resolution": resolution, "num_frames": int(frames), "num_inference_steps": 2, **fields}
    )
