"""The motions of the closed-form model: what moves, and how; how fast, and which words name it, is in vocabulary.toml.

A motion is a camera movement, something that happens in the scene, or one of each. Both are displacement functions:
given the position of a pixel of the clip and the time, they return the position in the picture that it is taken from. At time 0 every
displacement is zero, so the first frame is the picture.

Coordinates: the crop's short side is 1, its centre is (0, 0), x grows to the right, y downwards. Time is in seconds,
frame number over condition_fps. Speeds are in short sides, natural-log zoom or radians a second.

Camera movements move the camera: a pan to the left makes the scene move to the right.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Warp = Callable[[Array, Array, Array, float], tuple[Array, Array]]
"""warp(x, y, time, speed): where the picture is sampled for clip positions x, y. Everything broadcasts: x and y to
(F, h, w), time is (F, 1, 1). Returns (x, y), which broadcast to (F, h, w)."""
Gain = Callable[[Array, float], Array]
"""gain(time, speed): by what the picture's brightness is multiplied; 1 at time 0."""

FOCAL = 1.2  # focal length of the imagined camera in short sides: about that of a phone


def pan(x: Array, y: Array, time: Array, speed: float, right: float, down: float) -> tuple[Array, Array]:
    return x + right * speed * time, y + down * speed * time


def zoom(x: Array, y: Array, time: Array, speed: float, inwards: float) -> tuple[Array, Array]:
    scale = np.exp(-inwards * speed * time)
    return x * scale, y * scale


def rotate(x: Array, y: Array, time: Array, speed: float, clockwise: float) -> tuple[Array, Array]:
    angle = clockwise * speed * time  # y grows downwards, so a positive angle turns the camera clockwise
    return x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)


def tilt(x: Array, y: Array, time: Array, speed: float, up: float) -> tuple[Array, Array]:
    """The camera turns about its horizontal axis: the homography K R K^-1 (Hartley and Zisserman 2004, 8.4.2)."""
    angle = up * speed * time
    depth = FOCAL * np.cos(angle) + y * np.sin(angle)
    return FOCAL * x / depth, FOCAL * (y * np.cos(angle) - FOCAL * np.sin(angle)) / depth


def dolly(x: Array, y: Array, time: Array, speed: float, inwards: float) -> tuple[Array, Array]:
    """Like a zoom, but the lower part of the picture, which is mostly nearer, moves more."""
    scale = np.exp(-inwards * speed * time * (1 + np.clip(y, -0.5, 0.5)))
    return x * scale, y * scale


def shake(x: Array, y: Array, time: Array, speed: float) -> tuple[Array, Array]:
    """A hand-held camera: three incommensurable sines on each axis and a little roll."""
    right = 0.5 * np.sin(9.1 * time) + 0.3 * np.sin(17.3 * time) + 0.2 * np.sin(29.7 * time)
    down = 0.5 * np.sin(11.3 * time) - 0.3 * np.sin(19.9 * time) + 0.2 * np.sin(31.1 * time)
    x, y = rotate(x, y, 0.4 * speed * np.sin(7.7 * time), 1.0, 1.0)
    return x + speed * right, y + speed * down


def still(x: Array, y: Array, time: Array, speed: float) -> tuple[Array, Array]:
    return x + 0 * time, y + 0 * time


def ripple(x: Array, y: Array, time: Array, speed: float) -> tuple[Array, Array]:
    """Two travelling waves over the lower part, shorter towards the horizon as water looks."""
    depth = np.clip((y + 0.05) / 0.3, 0, 1)
    near = depth * depth * (3 - 2 * depth)  # 0 above the horizon, 1 well below it, smooth between

    def height(t: Array) -> Array:
        return np.sin(2 * np.pi * (5.0 * y + 0.8 * x - 1.6 * t)) + 0.6 * np.sin(2 * np.pi * (3.1 * y - 1.7 * x - 1.1 * t))

    lift = speed * near * (height(time) - height(0 * time))
    return x + 0.5 * lift, y + lift


def sway(x: Array, y: Array, time: Array, speed: float) -> tuple[Array, Array]:
    """Wind: the higher, the further to and fro; the phase runs along with the wind."""
    high = np.clip(0.5 - y, 0, 1) ** 1.5
    phase = 2 * np.pi * 0.9 * x
    swing = np.sin(2 * np.pi * 1.1 * time + phase) - np.sin(phase)
    return x + speed * high * swing, y + 0.15 * speed * high * swing


def pulse(x: Array, y: Array, time: Array, speed: float) -> tuple[Array, Array]:
    """Breathing: the middle swells and shrinks, the rim does not move."""
    middle = np.exp(-(x * x + y * y) / (2 * 0.3**2))
    scale = 1 - speed * middle * np.sin(2 * np.pi * 1.1 * time)
    return x * scale, y * scale


def brighten(time: Array, speed: float) -> Array:
    return np.exp(speed * time)


def flicker(time: Array, speed: float) -> Array:
    return 1 + speed * (0.6 * np.sin(2 * np.pi * 3.7 * time) + 0.4 * np.sin(2 * np.pi * 6.1 * time))


@dataclass(frozen=True)
class Part:
    """One camera movement or one thing that happens in the scene.

    Attributes:
        name: as people say it; also what `understand` returns.
        speeds: slow, normal and fast, in the unit of the displacement function.
        words: a regular expression that finds it in a prompt, English and Chinese.
        warp: its displacement function. gain: its brightness function.
        beyond: it needs what is outside of the picture: it cannot be made to stay inside.
    """

    name: str
    speeds: Mapping[str, float]
    words: str = ""
    warp: Warp = still
    gain: Gain | None = None
    beyond: bool = False


_VOCABULARY: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text("utf-8"))
_WARPS: Mapping[str, Warp] = {
    "zoom in": partial(zoom, inwards=1.0), "zoom out": partial(zoom, inwards=-1.0),
    "rotate clockwise": partial(rotate, clockwise=1.0), "rotate counterclockwise": partial(rotate, clockwise=-1.0),
    "tilt up": partial(tilt, up=1.0), "tilt down": partial(tilt, up=-1.0),
    "dolly in": partial(dolly, inwards=1.0), "dolly out": partial(dolly, inwards=-1.0),
    "shake": shake, "ripple": ripple, "sway": sway, "pulse": pulse,
}  # fmt: skip
_GAINS: Mapping[str, Gain] = {"brighten": brighten, "fade": brighten, "flicker": flicker}
PANS = {
    "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1),
    "up left": (-1, -1), "up right": (1, -1), "down left": (-1, 1), "down right": (1, 1),
}  # fmt: skip


def _pan(name: str) -> Part:
    right, down = PANS[name]
    length = float(np.hypot(right, down))
    return Part(f"pan {name}", _VOCABULARY["pan"]["speeds"], warp=partial(pan, right=right / length, down=down / length))


def _parts(kind: str) -> Iterator[Part]:
    for name, about in _VOCABULARY[kind].items():
        yield Part(name, warp=_WARPS.get(name, still), gain=_GAINS.get(name), **about)


CAMERAS = (*map(_pan, PANS), *_parts("cameras"))
SCENES = tuple(_parts("scenes"))


@dataclass(frozen=True)
class Motion:
    """A camera movement and something in the scene, each at one speed: one whole clip, given a picture."""

    camera: Part
    scene: Part
    camera_speed: str
    scene_speed: str

    @property
    def name(self) -> str:
        """What it is, in words: "slow pan left", "pan left + ripple", "still"."""
        parts = [(self.camera, self.camera_speed)] if self.camera.name != "still" or self.scene.name == "none" else []
        parts += [(self.scene, self.scene_speed)] if self.scene.name != "none" else []
        return " + ".join(part.name if speed == "normal" else f"{speed} {part.name}" for part, speed in parts)

    def source(self, x: Array, y: Array, time: Array, camera_time: Array) -> tuple[Array, Array]:
        """Where the picture is sampled for clip positions x and y, as a `Warp`; the camera's time may run slower."""
        x, y = self.camera.warp(x, y, camera_time, self.camera.speeds[self.camera_speed])
        return self.scene.warp(x, y, time, self.scene.speeds[self.scene_speed])

    def brightness(self, time: Array) -> Array:
        """What the picture's brightness is multiplied by, the shape of `time`."""
        return self.scene.gain(time, self.scene.speeds[self.scene_speed]) if self.scene.gain else np.ones_like(time)


def _table() -> tuple[Motion, ...]:
    still_camera, no_scene = CAMERAS[-1], SCENES[0]
    alone = [Motion(camera, no_scene, speed, "normal") for camera in CAMERAS for speed in camera.speeds]
    alone += [Motion(still_camera, scene, "normal", speed) for scene in SCENES[1:] for speed in scene.speeds]
    return (*alone, *(Motion(camera, scene, "normal", "normal") for camera, scene in product(CAMERAS[:-1], SCENES[1:])))


MOTIONS: tuple[Motion, ...] = _table()
"""Every motion that the model knows: each camera movement and each scene alone at three speeds, and in pairs."""


@dataclass(frozen=True)
class Understood:
    """What a prompt names: camera movements, scenes, and a speed (None where no word names one)."""

    cameras: frozenset[str] = field(default_factory=frozenset)
    scenes: frozenset[str] = field(default_factory=frozenset)
    speed: str | None = None

    def __bool__(self) -> bool:
        return bool(self.cameras or self.scenes)

    def names(self, motion: Motion) -> bool:
        """True if the prompt asks for this motion: what is not named does not move."""
        if not self:
            return False
        camera_fits = motion.camera.name in (self.cameras or {"still"})
        return camera_fits and motion.scene.name in (self.scenes or {"none"}) and self._speed_fits(motion)

    def _speed_fits(self, motion: Motion) -> bool:
        if self.speed is None or (motion.camera.name != "still" and motion.scene.name != "none"):
            return True  # pairs exist at one speed only
        moving = motion.camera_speed if motion.camera.name != "still" else motion.scene_speed
        return moving == self.speed or motion.name == "still"


_CLAUSES = re.compile(r"[.,;:!?，。；：！？、\n]+|\b(?:and )?then\b|\bwhile\b|\bas the\b|然后|接着|同时")
# "no wind", "without shaking": what is denied is not asked for. A denied camera movement is a still camera.
_DENIED = re.compile(r"\b(?:no|not|without|never)\s+(?:any\s+|much\s+)?(?!camera\b)\w+|(?:没有|不要|无)[^\s，。；、]{1,2}")


def understand(prompt: str) -> Understood:
    """Read the motions and the speed that a prompt names, in English and Chinese; other words are passed over."""
    text = _DENIED.sub(" ", prompt.lower())
    cameras: set[str] = set()
    for clause in filter(str.strip, _CLAUSES.split(text)):
        cameras |= _named(_CAMERA_WORDS, clause.strip()) or _rotations(clause) or _pans(clause)
    speeds = _named(_VOCABULARY["speed_words"], text)
    return Understood(frozenset(cameras), frozenset(_named(_SCENE_WORDS, text)), speeds.pop() if len(speeds) == 1 else None)


_CAMERA_WORDS, _SCENE_WORDS = ({part.name: part.words for part in parts if part.words} for parts in (CAMERAS, SCENES))


def _named(words: Mapping[str, str], text: str) -> set[str]:
    """The names whose words are in the text."""
    return {name for name, pattern in words.items() if re.search(pattern, text)}


def _rotations(clause: str) -> set[str]:
    if not re.search(_VOCABULARY["rotate"]["words"], clause):
        return set()
    return _named(_VOCABULARY["rotation_words"], clause) or set(_VOCABULARY["rotation_words"])  # no sense named: both


def _pans(clause: str) -> set[str]:
    if not re.search(_VOCABULARY["pan"]["words"], clause):
        return set()
    named = _named(_VOCABULARY["direction_words"], clause)
    diagonals = {f"{vertical} {side}" for vertical, side in product(("up", "down"), ("left", "right")) if {vertical, side} <= named}
    return {f"pan {name}" for name in diagonals or named}
