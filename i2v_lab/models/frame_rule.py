"""Which numbers of frames a family makes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameRule:
    """The numbers of frames that a family makes: step * k + first, at least `least` and at most `most`."""

    step: int = 1
    first: int = 0
    least: int = 2
    most: int = 257

    def __str__(self) -> str:
        return (
            f"{self.step}k+{self.first} frames, {self.least} to {self.most}"
            if self.step > 1
            else f"{self.least} to {self.most} frames"
        )

    def nearest(self, frames: float) -> int:
        """The nearest number of frames that is allowed."""
        low, high = (-(-(self.least - self.first) // self.step), (self.most - self.first) // self.step)
        return self.first + self.step * min(max(round((frames - self.first) / self.step), low), high)
