"""The motions of the closed-form model: one table of what moves, how fast, and which words name it.

A motion is a camera movement, something that happens in the scene, or one of each. Both are displacement functions:
given the position of a pixel of the clip and the time, they return the position in the picture that it is taken from. At time 0 every
displacement is zero, so the first frame is the picture.

Coordinates: the crop's short side is 1, its centre is (0, 0), x grows to the right, y downwards. Time is in seconds,
frame number over condition_fps. Speeds are in short sides, natural-log zoom or radians a second.

Camera movements move the camera: a pan to the left makes the scene move to the right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
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


def _speeds(slow: float, normal: float, fast: float) -> dict[str, float]:
    return {"slow": slow, "normal": normal, "fast": fast}


SPEED_WORDS = {
    "slow": r"\bslow(ly)?\b|\bgentl[ey]\b|\bgently\b|\bslight(ly)?\b|\bsubtl[ey]\b|\bsoft(ly)?\b|\bcalm(ly)?\b|缓慢|慢慢|缓缓|轻轻|轻微|微微|慢速",
    "fast": r"\bfast\b|\bquick(ly)?\b|\brapid(ly)?\b|\bswift(ly)?\b|\bstrong(ly)?\b|\bviolent(ly)?\b|\bhard\b|快速|迅速|飞快|剧烈|强烈|猛烈",
}
DIRECTION_WORDS = {
    "left": r"\bleft(wards?)?\b|左",
    "right": r"\bright(wards?)?\b|右",
    "up": r"\bup(wards?)?\b|\bupper\b|上",
    "down": r"\bdown(wards?)?\b|\blower\b|下",
}
# A clause needs one of these before its directions are read as a pan: "a man on the left" is no movement.
PAN_WORDS = (
    r"\bpan(s|ned|ning)?\b|\btrack(s|ed|ing)?\b|\btruck(s|ing)?\b|\bslid(e|es|ing)\b|\bpedestal\b|\bcrane(s|d)?\b|\bscroll(s|ing)?\b"
    r"|\b(camera|view|shot)\b.*\b(mov(e|es|ing)|travel(s|l?ing)?|fl(y|ies|ying)|drift(s|ing)?|glid(e|es|ing)|go(es|ing)?)\b"
    r"|平移|横移|移动|左移|右移|上移|下移|左摇|右摇|摇摄|(镜头|相机|摄像机|画面).*向[左右上下]"
)
ROTATE_WORDS = r"\brotat\w+|\bspin(s|ning)?\b|\broll(s|ing)?\b|clockwise|旋转|转动|时针"
COUNTERCLOCKWISE_WORDS = r"(counter|anti)[ -]?clockwise|逆时针"
CLOCKWISE_WORDS = r"(?<!counter)(?<!anti)(?<!counter[ -])(?<!anti[ -])clockwise|顺时针"
PANS = {
    "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1),
    "up left": (-1, -1), "up right": (1, -1), "down left": (-1, 1), "down right": (1, 1),
}  # fmt: skip


def _pan(name: str) -> Part:
    right, down = PANS[name]
    length = float(np.hypot(right, down))
    return Part(f"pan {name}", _speeds(0.09, 0.20, 0.36), warp=partial(pan, right=right / length, down=down / length))


CAMERAS = (
    *(_pan(name) for name in PANS),
    Part("zoom in", _speeds(0.12, 0.28, 0.50), warp=partial(zoom, inwards=1.0), words=(
        r"\bzoom(s|ed|ing)?[ -]*(\w+ )?in(to|wards?)?\b|\bpush(es|ing)?[ -]in\b|\bclose[ -]?up shot\b|\bmov(e|es|ing) closer\b"
        r"|拉近|推近|推进|放大|变焦推")),
    Part("zoom out", _speeds(0.12, 0.28, 0.50), warp=partial(zoom, inwards=-1.0), beyond=True, words=(
        r"\bzoom(s|ed|ing)?[ -]*(\w+ )?out(wards?)?\b|\bpull(s|ing)?[ -](out|back)\b|\bmov(e|es|ing) (further )?away\b|拉远|推远|缩小|拉开|变焦拉")),
    Part("rotate clockwise", _speeds(0.08, 0.20, 0.36), warp=partial(rotate, clockwise=1.0), beyond=True),
    Part("rotate counterclockwise", _speeds(0.08, 0.20, 0.36), warp=partial(rotate, clockwise=-1.0), beyond=True),
    Part("tilt up", _speeds(0.07, 0.14, 0.24), warp=partial(tilt, up=1.0),
         words=r"\btilt(s|ed|ing)?\b(?!.*\bdown).*\bup|\bup\w* tilt|上摇|仰拍|仰起|抬起镜头"),
    Part("tilt down", _speeds(0.07, 0.14, 0.24), warp=partial(tilt, up=-1.0),
         words=r"\btilt(s|ed|ing)?\b(?!.*\bup).*\bdown|\bdown\w* tilt|下摇|俯拍|俯下"),
    Part("dolly in", _speeds(0.12, 0.28, 0.50), warp=partial(dolly, inwards=1.0), words=(
        r"\bdoll(y|ies|ying)\b(?!.*\b(out|back)).*(in\b|forward|$)|\b(camera|view|shot)\b.*\bforwards?\b|向前(移动|推|走|飞)|前移|前进")),
    Part("dolly out", _speeds(0.12, 0.28, 0.50), warp=partial(dolly, inwards=-1.0), beyond=True, words=(
        r"\bdoll(y|ies|ying)\b.*\b(out|back\w*)\b|\b(camera|view|shot)\b.*\bbackwards?\b|向后(移动|退|拉|走|飞)|后移|后退")),
    Part("shake", _speeds(0.010, 0.022, 0.040), warp=shake,
         words=r"\bshak(e|es|ing|y)\b|\bhand[ -]?held\b|\bjitter\w*\b|\bearthquake\b|抖动|晃动|手持|颤动"),
    Part("still", {"normal": 0.0},
         words=r"\b(static|motionless|stationary|still|fixed|frozen|tripod|unmoving)\b|\bno camera (movement|motion)\b|静止|固定|不动|定格"),
)  # fmt: skip

SCENES = (
    Part("none", {"normal": 0.0}),
    Part("ripple", _speeds(0.004, 0.008, 0.014), warp=ripple, words=(
        r"\bwater\b|\bwav(e|es|y)\b|\bocean\b|\bseas?\b|\blake\b|\briver\b|\brippl\w+\b|\bstream(s|ing)?\b|水|浪|大海|海面|湖|河流|涟漪|波纹")),
    Part("sway", _speeds(0.010, 0.022, 0.040), warp=sway, words=(
        r"\bwind(y|s)?\b|\bsway(s|ing)?\b|\bbreez\w+\b|\bflutter\w*\b|\bblow(s|ing|n)?\b|\brustl\w+\b|风|摇曳|摇摆|飘动|飘扬")),
    Part("pulse", _speeds(0.04, 0.08, 0.14), warp=pulse, words=(
        r"\bbreath(e|es|ing)?\b|\bpuls(e|es|ing|ating)\b|\bheartbeat\b|\bthrob\w*\b|呼吸|脉动|搏动|跳动|起伏")),
    Part("brighten", _speeds(0.25, 0.45, 0.75), gain=brighten, words=(
        r"\bbrighten(s|ing)?\b|\b(brighter|lighter)\b|\bsunrise\b|\bdawn\b|\blights? up\b|变亮|日出|天亮|亮起")),
    Part("fade", _speeds(-0.35, -0.7, -1.2), gain=brighten, words=(
        r"\bfad(e|es|ing)\b|\bdarken(s|ing)?\b|\bdarker\b|\bdusk\b|\bsunset\b|\bdim(s|ming)?\b|变暗|日落|渐暗|天黑|变黑")),
    Part("flicker", _speeds(0.12, 0.25, 0.42), gain=flicker, words=(
        r"\bflicker\w*\b|\bcandle(s|light)?\b|\bstrob\w+\b|\bflash(es|ing)?\b|闪烁|烛光|闪光|闪动")),
)  # fmt: skip


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
        found = {part.name for part in CAMERAS if part.words and re.search(part.words, clause.strip())}
        cameras |= found or _rotations(clause) or _pans(clause)
    scenes = {part.name for part in SCENES if part.words and re.search(part.words, text)}
    speeds = [name for name, words in SPEED_WORDS.items() if re.search(words, text)]
    return Understood(frozenset(cameras), frozenset(scenes), speeds[0] if len(speeds) == 1 else None)


def _rotations(clause: str) -> set[str]:
    if not re.search(ROTATE_WORDS, clause):
        return set()
    words = {"rotate clockwise": CLOCKWISE_WORDS, "rotate counterclockwise": COUNTERCLOCKWISE_WORDS}
    return {name for name, pattern in words.items() if re.search(pattern, clause)} or set(words)  # no sense named: both


def _pans(clause: str) -> set[str]:
    if not re.search(PAN_WORDS, clause):
        return set()
    named = {name for name, words in DIRECTION_WORDS.items() if re.search(words, clause)}
    diagonals = {f"{vertical} {side}" for vertical, side in product(("up", "down"), ("left", "right")) if {vertical, side} <= named}
    return {f"pan {name}" for name in diagonals or named}
