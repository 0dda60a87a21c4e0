"""What a clip looks like in numbers: flicker, motion, agreement with its picture and its prompt. No network, nothing downloaded.

`measure` takes any MP4, WebM or GIF; METRICS says what each number is. Importing this loads neither torch nor pandas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import ClipError, I2VLabError, ParamsError, PictureError
from i2v_lab.metrics.registry import MARKS, METRICS, Metric, flaw

if TYPE_CHECKING:
    from i2v_lab.clip.record import RunRecord
    from i2v_lab.clip.video import Frames
    from i2v_lab.metrics.flow import ClipFlow
    from i2v_lab.metrics.frames import SampledFrames
    from i2v_lab.store import Store

__all__ = ["METRICS", "Measured", "Metric", "flaw", "measure", "measure_frames", "measure_run"]


@dataclass(frozen=True)
class Measured:
    """The metrics of a clip.

    Attributes:
        values: by the names of METRICS; None where a metric does not apply.
        missing: why, for each of those.
        frames: how many the clip has. looked_at: how many of these were measured.
        height, width: pixels.
        prompt: the one that motion was compared with; "" if there is none.
    """

    values: dict[str, float | None]
    missing: dict[str, str]
    frames: int
    looked_at: int
    height: int
    width: int
    prompt: str = ""

    @property
    def flaw(self) -> str:
        """What makes it no clip: "black", "noise", "frozen"; "" where it is one. See `flaw`."""
        return flaw(self.values)

    def __getitem__(self, name: str) -> float | None:
        return self.values[name]

    def _repr_html_(self) -> str:
        from html import escape

        rows = []
        for name, value in self.values.items():
            shown = escape(self.missing.get(name, "")) if value is None else f"{value:.4g} {escape(METRICS[name].unit)}"
            rows.append(f"<tr><th>{name}</th><td>{shown}</td><td>{METRICS[name].arrow}</td></tr>")
        return f"<table>{''.join(rows)}</table>"


def measure(
    path: str | Path,
    *,
    prompt: str | None = None,
    image: str | Path | None = None,
    store: Store | None = None,
    model: Any = None,
) -> Measured:
    """Measure a clip of this package, or any other MP4, WebM or GIF.

    Of a clip with more than 256 frames (or 400 MB of them), runs of 8 successive frames are measured, spread evenly.

    Args:
        path: the clip.
        prompt: what it should show; None: as the settings inside the clip say.
        image: the picture the clip was made from; None: the one that the settings inside name, if it is found (by its
            hash, in the store, beside the clip or among the sample photographs).
        store: where to look for the picture.
        model: a loaded model that has an image encoder (I2VGen-XL), for subject_consistency; otherwise that is left out.

    Raises:
        ClipError: not a clip. PictureError: `image` cannot be opened.
    """
    from i2v_lab.metrics.frames import read_evenly

    path = Path(path)
    params, sha256 = _inside(path)
    sampled = read_evenly(path)
    if params is not None:
        sampled = _unpadded(sampled, params.height, params.width)
    words = prompt if prompt is not None else params.prompt if params else None
    crop: Frames | str
    if image is not None:
        crop = open_picture(image).crop(*sampled.frames.shape[1:3])
    elif params is not None:
        crop = _crop_of(params, sha256, store, path.parent)
    else:
        crop = "the clip has no settings inside: name the picture that it was made from"
    return measure_frames(sampled, crop=crop, prompt=words, model=model)


def measure_run(record: RunRecord, store: Store, progress: Progress | None = None) -> Measured:
    """Measure the clip of a run that is done, with the picture and prompt of its record. `progress` as in `measure_frames`.

    Raises:
        ClipError: the run has no clip, or the file is gone or damaged.
    """
    from i2v_lab.metrics.frames import read_evenly

    if not record.clip or record.params is None:
        raise ClipError(f"run {record.id}: expected a finished clip, got a run that is {record.status}")
    params = record.params
    sampled = read_evenly(store.directory / record.clip, (params.num_frames, params.height * params.width, float(params.fps)))
    crop = _crop_of(params, record.image_sha256, store, store.clips)
    sampled = _unpadded(sampled, params.height, params.width)
    return measure_frames(sampled, crop=crop, prompt=params.prompt, progress=progress)


def _inside(path: Path) -> tuple[ClipParams | None, str]:
    """(params, sha256 of the picture) that a clip carries; None where it is not of this package, or of another version."""
    try:
        found = video.read_settings(path)
        record, carried = found.get("record"), found.get("params")
        sha256 = record.get("image_sha256") if isinstance(record, dict) else ""
        return ClipParams(**carried) if isinstance(carried, dict) else None, sha256 if isinstance(sha256, str) else ""
    except (ClipError, ParamsError, TypeError):
        return None, ""


def _unpadded(sampled: SampledFrames, height: int, width: int) -> SampledFrames:
    """Without the row and the column that made the sides even."""
    if sampled.frames.shape[1] - height in (0, 1) and sampled.frames.shape[2] - width in (0, 1):
        return replace(sampled, frames=sampled.frames[:, :height, :width])
    return sampled


def _crop_of(params: ClipParams, sha256: str, store: Store | None, folder: Path) -> Frames | str:
    """The crop that a clip was made from, or why it was not found. The clip is not trusted: the picture must have the hash."""
    kept = None
    with suppress(I2VLabError):  # no such hash
        kept = store.find_picture(sha256) if store else None
    name = params.image if params.image.startswith("sample:") else folder / Path(params.image).name
    for candidate in (kept, name):
        with suppress(PictureError, OSError, ValueError):
            if candidate and (picture := open_picture(candidate)).sha256 == sha256:
                return picture.crop(params.height, params.width)
    return "the picture that the clip was made from was not found"


def measure_frames(
    frames: SampledFrames | Frames,
    *,
    crop: Frames | str = "no picture was given",
    prompt: str | None = None,
    model: Any = None,
    fps: float = 8,
    progress: Progress | None = None,
) -> Measured:
    """Measure frames. Of what is no clip (see `flaw`) all that is better or worse is missing: it has no rank.

    Args:
        frames: uint8 RGB (F, H, W, 3), or a sample of a long clip.
        crop: what the clip was made from, uint8 RGB (H, W, 3); or why it is missing.
        prompt: what the clip should show; None: not known.
        model: as in `measure`.
        fps: frames a second, of an array; a sample knows its own.
        progress: hears a step after each optical flow, and may raise Stop.
    """
    import numpy as np

    from i2v_lab.metrics.frames import whole
    from i2v_lab.metrics.prompt import asked

    sampled = whole(frames, fps) if isinstance(frames, np.ndarray) else frames
    found = _measure_pixels(sampled, crop) | _measure_motion(sampled, prompt, progress or Progress())
    if model is not None:
        found |= _measure_subject(sampled, model)
    if word := flaw({name: value for name, value in found.items() if isinstance(value, float)}):
        ranked = [name for name, metric in METRICS.items() if metric.better is not None and name not in MARKS]
        kept = {"prompt_agreement": found["prompt_agreement"]} if word == "frozen" and "still" in asked(prompt or "") else {}
        found |= dict.fromkeys((name for name in ranked if name in found), f"the clip is {word}") | kept
    values = {name: value if isinstance(value := found[name], float) else None for name in METRICS if name in found}
    missing = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    height, width = sampled.frames.shape[1:3]
    return Measured(values, missing, sampled.total, len(sampled.frames), height, width, prompt or "")


_Found = dict[str, float | str]
"""By metric: its value, or why it has none."""


def _known(values: Mapping[str, float], reason: str = "it has no value for these frames") -> _Found:
    return {name: float(value) if math.isfinite(value) else reason for name, value in values.items()}


def _attempt(work: Callable[[], Mapping[str, float]], reason: str, *names: str) -> _Found:
    """Where OpenCV fails on these frames, these metrics are missing; the others are kept."""
    import cv2

    try:
        return _known(work(), reason)
    except cv2.error as error:
        return dict.fromkeys(names, f"OpenCV cannot do it with these frames ({error.err})")


def _measure_pixels(sampled: SampledFrames, crop: Frames | str) -> _Found:
    from i2v_lab.metrics import pixels

    one = "a clip of one frame has no change"
    sharp = [pixels.sharpness(frame) for frame in sampled.small]
    lost = 1 - sharp[-1] / sharp[0] if len(sharp) > 1 and sharp[0] > 0 else math.nan
    frozen, repeated = pixels.standstill(sampled)
    changes = {"temporal_flickering": pixels.temporal_flickering(sampled), "frozen_frames": frozen, "repeated_frames": repeated}
    found = _known({"sharpness": sum(sharp) / len(sharp), "black_frames": pixels.black_frames(sampled)})
    found |= _known({"noise_frames": pixels.noise_frames(sampled)})
    found |= _known(changes, one) | _known({"sharpness_loss": lost}, one if len(sharp) < 2 else "the first frame is flat")
    if not isinstance(crop, str) and crop.shape != sampled.frames[0].shape:
        crop = "the clip's size is not the one in its settings"
    if isinstance(crop, str):
        return found | dict.fromkeys(("input_ssim", "input_psnr"), crop)
    import cv2

    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (sampled.frames[0], crop)]
    found |= _known({"input_ssim": pixels.ssim(*grey)}, f"SSIM needs sides of {pixels.SSIM_SIDE} px")
    return found | _known({"input_psnr": pixels.psnr(sampled.frames[0], crop)})


_FLOW = ("motion", "motion_top5", "scene_right", "scene_down", "scene_zoom", "scene_turn", "warping_error")


def _measure_motion(sampled: SampledFrames, prompt: str | None, progress: Progress) -> _Found:
    from i2v_lab.metrics import flow
    from i2v_lab.metrics import prompt as words

    height, width = sampled.frames.shape[1:3]
    reason = ""
    if len(sampled.frames) < 2:
        reason = "a clip of one frame has no motion"
    elif min(height, width) < flow.SHORTEST:
        reason = f"optical flow needs sides of {flow.SHORTEST} px, got {min(height, width)}"
    elif min(sampled.small.shape[1:3]) < flow.SHORTEST:
        reason = f"too narrow for optical flow: {width}x{height}"
    if reason:
        return dict.fromkeys((*_FLOW, "smoothness", "drift_ssim", "prompt_agreement"), reason)
    clip = flow.ClipFlow(sampled, flow.Estimator(progress))
    found = _attempt(lambda: {"drift_ssim": clip.drift()}, "no later frame shows a tenth of the first one", "drift_ssim")
    if not clip.steps:
        reason = "the frames have no texture that could be followed"
    elif (share := clip.followed()) < flow.FOLLOWED:
        reason = (f"too fast to measure, or noise: optical flow follows {share:.0%} of what is seen; it finds movements up to a "
                  "seventh of the frame's side from one frame to the next")  # fmt: skip
    if reason:
        return found | dict.fromkeys((*_FLOW, "smoothness", "prompt_agreement"), reason)
    found |= _attempt(lambda: {"smoothness": clip.smoothness()}, "it needs three frames in a row", "smoothness")
    found |= _attempt(lambda: _flow_values(clip), "it has no value for these frames", *_FLOW)
    if prompt is None:
        return found | {"prompt_agreement": "the prompt is not known"}
    if not words.asked(prompt):
        return found | {"prompt_agreement": "the prompt names no direction, zoom or stillness"}
    return found | _known({"prompt_agreement": words.agreement(clip, prompt)})


def _flow_values(clip: ClipFlow) -> dict[str, float]:
    mean, top = clip.speeds()
    height, width = clip.grey[0].shape
    right, down, growth, turn = clip.fits.mean(0)
    of_width = 100 * min(height, width) / width
    return {
        "motion": 100 * mean,
        "motion_top5": 100 * top,
        "scene_right": of_width * right,
        "scene_down": of_width * down,
        "scene_zoom": 100 * growth,
        "scene_turn": math.degrees(turn),
        "warping_error": clip.warping_error(),
    }


def _measure_subject(sampled: SampledFrames, model: Any) -> _Found:
    if not (hasattr(model, "look") and hasattr(model, "clip_pixels")):
        return {"subject_consistency": f"the model {getattr(model, 'name', '')} carries no image encoder"}
    from i2v_lab.metrics.subject import subject_consistency

    return _known({"subject_consistency": subject_consistency(sampled.frames, model)}, "a clip of one frame has no change")
