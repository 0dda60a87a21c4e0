"""What a user left open in ClipParams, filled in: the family's defaults, and what depends on the picture or on chance."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Any

from i2v_lab.clip.params import AUTO, SIDE_MAX, SIDE_MIN, ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.errors import Message, UnsupportedParams
from i2v_lab.models.base import VideoModel, nearest_size
from i2v_lab.models.registry import find

DRAWN = -1  # the seed that asks for one


def resolve(params: ClipParams, look: Callable[[], Picture] | None = None, kind: type[VideoModel] | None = None) -> ClipParams:
    """The same clip with nothing left open; params that have nothing open come back as they are.

    - What was not given is the family's default (its "standard" preset).
    - `resolution`: "auto" is the family's legal size nearest to the picture's shape, with about as many pixels as its native size;
      a name such as "480p" is the family's size of that name, turned as the picture is.
    - `seconds` becomes the nearest `num_frames` that the family makes, at the clip's fps.
    - `seed` -1 becomes a number drawn at random.

    Args:
        look: opens the picture of the params; called only where its shape decides.
        kind: the family, where it is known already.

    Raises:
        UnsupportedParams: the family has no size of that name; seconds and num_frames are both given.
        PictureError: the picture cannot be opened. ModelError: no such model.
    """
    kind = kind or find(params.model)[0]
    given = params.given()
    if "seconds" in given and "num_frames" in given:
        raise UnsupportedParams(
            f"seconds: expected seconds or num_frames, got both ({given['seconds']:g} and {given['num_frames']}); drop one"
        )
    standard = kind.presets.get("standard", {})
    fields: dict[str, Any] = {**params.plain(), **standard, **given}
    if seconds := fields.pop("seconds", None):
        rate = ClipParams(image=params.image, fps=fields["fps"]).fps
        fields["num_frames"] = kind.frame_rule.nearest(float(seconds * rate))
    if fields["seed"] == DRAWN:
        fields["seed"] = secrets.randbelow(2**31)
    fields["resolution"] = _size(kind, fields["resolution"], look or (lambda: open_picture(params.image)))
    return ClipParams(**fields)


def _size(kind: type[VideoModel], resolution: str, look: Callable[[], Picture]) -> str:
    """The resolution as HEIGHTxWIDTH, or as a square's name."""
    if resolution == AUTO:
        if len(kind.only_sizes) == 1:
            return _text(kind.native_size)
        seen = look()
        return _text(_legal(kind, seen.height / seen.width))
    if "x" in resolution:
        return resolution
    if resolution not in kind.sizes:
        text = f"resolution: {kind.name} has {', '.join(kind.sizes)}, auto and HEIGHTxWIDTH, got {resolution}"
        raise UnsupportedParams(Message(text, "resolution", input=repr(resolution)))
    height, width = kind.sizes[resolution]
    if height == width or len(kind.only_sizes) == 1:
        return _text((height, width))
    seen = look()
    turned = (width, height) if seen.height > seen.width else (height, width)
    return _text(nearest_size(kind, *turned) if kind.only_sizes else turned)


def _legal(kind: type[VideoModel], shape: float) -> tuple[int, int]:
    """(height, width): of the family's legal sizes that with about its native number of pixels nearest to a shape, height over width."""
    step, pixels = max(kind.size_multiple, 8), math.prod(kind.native_size)  # closed-form takes any size; an odd one would be padded
    shape = min(max(shape, 1 / 3), 3)  # no family was trained on narrower ones
    heights = range(-(-SIDE_MIN // step) * step, SIDE_MAX + 1, step)
    candidates = kind.only_sizes or [(height, max(round(height / shape / step), 1) * step) for height in heights]
    legal = [
        (height, width)
        for height, width in candidates
        if min(height, width) >= SIDE_MIN and max(height, width) <= SIDE_MAX and height * width <= 1.05 * pixels
    ]
    # Both count: what of the picture is cut off is lost, and so is the sharpness of a smaller clip.
    return min(legal, key=lambda size: 2 * abs(math.log(size[0] / size[1] / shape)) + abs(math.log(size[0] * size[1] / pixels)))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
