"""What would fit in the place of a clip that does not: the nearest smaller resolution alone, and the nearest fewer frames alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress

from i2v_lab.clip.params import SIDE_MIN, ClipParams
from i2v_lab.errors import I2VLabError
from i2v_lab.models.base import VideoModel


def nearest(params: ClipParams, family: type[VideoModel], fits: Callable[[ClipParams], bool]) -> tuple[ClipParams, ...]:
    """The nearest smaller resolution alone, and the nearest fewer frames alone, that fit."""
    shorter = [params.replace(num_frames=frames) for frames in range(params.num_frames - 1, 1, -1)]
    found = (_first(candidates, family, fits) for candidates in (_smaller(params, family), shorter))
    return tuple(near for near in found if near)


def _smaller(params: ClipParams, family: type[VideoModel]) -> list[ClipParams]:
    """The clip in all smaller resolutions of about its shape, the largest first."""
    own = family.size_multiple
    step = 64 if not params.height % 64 and not params.width % 64 and not 64 % own else max(own, 8 // own * own)
    long, short = max(params.height, params.width), min(params.height, params.width)
    sizes = []
    for side in range(long - step, SIDE_MIN - 1, -step):
        other = max(SIDE_MIN, round(side * short / long / step) * step)
        sizes.append((side, other) if params.height >= params.width else (other, side))
    return [params.replace(resolution=f"{height}x{width}") for height, width in sizes if height * width]


def _first(candidates: list[ClipParams], family: type[VideoModel], fits: Callable[[ClipParams], bool]) -> ClipParams | None:
    """The first of the candidates, the largest first, that fits."""
    possible = [params for params in candidates if _can(params, family)]
    place = bisect_left(possible, True, key=fits)
    return possible[place] if place < len(possible) else None


def _can(params: ClipParams, family: type[VideoModel]) -> bool:
    with suppress(I2VLabError):
        family.check(params)
        return True
    return False
