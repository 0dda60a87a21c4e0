"""What a stock family takes, predicted."""

from __future__ import annotations

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ModelError
from i2v_lab.models.base import StageCost, VideoModel
from i2v_lab.models.stock.families import Family


def cost(
    family: Family, params: ClipParams, *, checkpoint: str, device: str, dtype: str, tier: int = 0, loaded: VideoModel | None = None
) -> tuple[StageCost, ...]:
    """See `VideoModel.cost`."""
    raise ModelError(f"{family.name}: its memory cannot be predicted yet")
