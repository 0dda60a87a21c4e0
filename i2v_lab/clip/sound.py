"""Frames with sound: what some models make beside the pictures, and how it gets into a clip's file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
"""A clip in memory: uint8 RGB, (F, H, W, 3)."""

CODECS = {"mp4": "AAC", "webm": "Opus"}  # a GIF has no sound


@dataclass(frozen=True, eq=False)
class Sound:
    """What is heard with a clip.

    Attributes:
        samples: float32, (channels, samples), -1 to 1.
        rate: samples a second.
        fps: frames a second of the clip that it was made for.
    """

    samples: npt.NDArray[np.float32]
    rate: int
    fps: Fraction

    def __str__(self) -> str:
        return f"{len(self.samples)} channel{'s' * (len(self.samples) > 1)}, {self.rate} Hz"


class FramesWithSound(np.ndarray[tuple[int, ...], np.dtype[np.uint8]]):
    """Frames as any model returns them, uint8 RGB (F, H, W, 3), with `sound` beside them. What is cut out of them has none."""

    sound: Sound | None = None


def with_sound(frames: Frames, samples: npt.NDArray[np.float32], rate: int, fps: Fraction) -> Frames:
    """The same frames, with sound, which is cut or made longer by silence to last as long as they do.

    Args:
        samples: (channels, samples), -1 to 1. rate: samples a second. fps: frames a second that the sound was made for.
    """
    count = round(len(frames) / fps * rate)
    kept = samples[:, :count].astype(np.float32)
    made = frames.view(FramesWithSound)
    made.sound = Sound(np.pad(kept, ((0, 0), (0, count - kept.shape[1]))), rate, fps)
    return made


def sound_of(frames: Frames) -> Sound | None:
    """The sound that frames were made with; None where there is none."""
    return frames.sound if isinstance(frames, FramesWithSound) else None
