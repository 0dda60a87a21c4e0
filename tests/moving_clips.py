"""Clips whose motion is known: a photograph that moves, as frames, as measured, and as a file."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from i2v_lab.clip import video
from i2v_lab.clip.picture import open_picture
from i2v_lab.metrics import measure_frames

KINDS = ("shift", "zoom", "turn", "frozen", "noise", "black")


@cache
def clip(kind: str, count: int = 16, side: int = 512) -> np.ndarray:
    """A photograph that moves: 2 px to the right, 2 % larger, 1 degree clockwise a frame; frozen; with noise; one frame black."""
    picture = cv2.resize(open_picture("sample:astronaut").rgb, (900 * side // 512,) * 2, interpolation=cv2.INTER_AREA)
    rng, found = np.random.default_rng(0), []
    for k in range(count):
        move = np.eye(3)
        if kind in ("shift", "black"):
            move[0, 2] = 2 * k
        elif kind == "zoom":
            move[0, 0] = move[1, 1] = 1.02**k
        elif kind == "turn":
            angle = np.radians(k)
            move[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        to_middle, from_middle = np.eye(3), np.eye(3)
        to_middle[:2, 2], from_middle[:2, 2] = (side - 1) / 2, -(picture.shape[0] - 1) / 2
        frame = cv2.warpAffine(picture, (to_middle @ move @ from_middle)[:2], (side, side), flags=cv2.INTER_CUBIC)
        if kind == "noise":
            frame = np.clip(frame + rng.normal(0, 12, frame.shape), 0, 255).astype(np.uint8)
        found.append(frame * 0 if kind == "black" and k == 7 else frame)
    return np.stack(found)


@cache
def measured(kind: str):
    return measure_frames(clip(kind), crop=clip(kind)[0], prompt="camera panning left, zoom in")


def write(folder: Path, shown: np.ndarray, stem: str = "clip", **more) -> Path:
    return video.write(shown, folder, stem=stem, fps=Fraction(8), **more).path
