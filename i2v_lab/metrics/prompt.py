"""Does the clip move as its prompt says? The words are those of the closed-form model, in English and Chinese."""

from __future__ import annotations

import numpy as np

from i2v_lab.metrics.flow import Array, ClipFlow, coordinates
from i2v_lab.models.closed_form.motions import CAMERAS, Part, understand

FLOOR = 0.005  # short sides a second: a movement below this is as good as none
STILL = 0.02  # short sides a second: a movement of this length is worth 0 where stillness was asked for, twice as much -1
_MOMENT = 1e-3  # seconds: short enough that a displacement grows in proportion
_PARTS = {part.name: part for part in CAMERAS}


def asked(prompt: str) -> list[str]:
    """The camera movements of a prompt that have a sense (a direction, a zoom, a turn) or are stillness; in a fixed order."""
    return sorted(understand(prompt).cameras - {"shake"})


def field_of(part: Part, x: Array, y: Array) -> Array:
    """How the scene moves under a camera movement, (h, w, 2), of any length: against the camera.

    Args:
        x, y: positions (h, w) in short sides, from the middle.
    """
    time = np.array(_MOMENT)
    to_x, to_y = part.warp(x.astype(np.float64), y.astype(np.float64), time, 1.0)  # where the picture is taken from
    return np.stack([x - to_x, y - to_y], -1) / _MOMENT


def agreement(flow: ClipFlow, prompt: str) -> float:
    """-1 (the opposite) over 0 (unrelated, or no motion) to 1 (as asked); of several movements the one that fits best.

    The camera's motion is the field that is fitted to each flow (`flow.fit`), so what moves in the scene may move. A movement:
    the mean over frames of the cosine between that field and the movement's own, over all of the frame; a field shorter
    than FLOOR counts in proportion. Stillness: 1 - length / STILL, at least -1. Lengths are root mean squares over the frame, in
    short sides a second: the same movement has the same value at any frame rate.

    Args:
        flow: with at least one step. prompt: one for which `asked` finds something.
    """
    x, y = coordinates(flow.grey[0].shape)
    right, down, growth, turn = flow.fits.T
    length = np.sqrt(right**2 + down**2 + (growth**2 + turn**2) * float((x**2 + y**2).mean()))  # (steps,)

    def fits(name: str) -> float:
        if name == "still":
            return float(np.mean(np.maximum(-1, 1 - length / STILL)))
        wanted = field_of(_PARTS[name], x, y)
        across, along = wanted[..., 0], wanted[..., 1]
        shares = [float(part.mean()) for part in (across, along, across * x + along * y, along * x - across * y)]
        own = float((across**2 + along**2).mean()) ** 0.5
        return float(np.clip(np.mean(flow.fits @ shares / (np.maximum(length, FLOOR) * own)), -1, 1))

    return max(fits(name) for name in asked(prompt))
