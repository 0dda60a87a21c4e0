"""What a clip looks like in numbers: flicker, motion, agreement with its picture and its prompt. No network, nothing downloaded.

`measure` takes any MP4, WebM or GIF; METRICS says what each number is. Importing this loads neither torch nor pandas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import ClipError, I2VLabError, ParamsError, PictureError
from i2v_lab.metrics.registry import METRICS, Metric

if TYPE_CHECKING:
    from i2v_lab.clip.record import RunRecord
    from i2v_lab.clip.video import Frames
    from i2v_lab.metrics.flow import ClipFlow
    from i2v_lab.metrics.frames import SampledFrames
    from i2v_lab.store import Store

__all__ = ["METRICS", "Measured", "Metric", "measure", "measure_frames", "measure_run"]


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
    sampled = read_evenly(store.directory / record.clip, (params.num_frames, params.height * params.width))
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
    from i2v_lab.metrics.frames import SampledFrames

    if sampled.frames.shape[1] - height in (0, 1) and sampled.frames.shape[2] - width in (0, 1):
        return SampledFrames(sampled.frames[:, :height, :width], sampled.runs, sampled.total)
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
    progress: Progress | None = None,
) -> Measured:
    """Measure frames.

    Args:
        frames: uint8 RGB (F, H, W, 3), or a sample of a long clip.
        crop: what the clip was made from, uint8 RGB (H, W, 3); or why it is missing.
        prompt: what the clip should show; None: not known.
        model: as in `measure`.
        progress: hears a step after each optical flow, and may raise Stop.
    """
    import numpy as np

    from i2v_lab.metrics.frames import whole

    sampled = whole(frames) if isinstance(frames, np.ndarray) else frames
    found = _Found()
    _measure_pixels(found, sampled, crop)
    _measure_motion(found, sampled, prompt, progress or Progress())
    if model is not None:
        _measure_subject(found, sampled, model)
    ordered = {name: found.values[name] for name in METRICS if name in found.values}
    height, width = sampled.frames.shape[1:3]
    return Measured(ordered, found.missing, sampled.total, len(sampled.frames), height, width, prompt or "")


@dataclass(frozen=True)
class _Found:
    """The values, and why some are missing."""

    values: dict[str, float | None] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def put(self, values: Mapping[str, float], reason: str = "it has no value for these frames") -> None:
        for name, value in values.items():
            self.values[name] = float(value) if math.isfinite(value) else None
            if self.values[name] is None:
                self.missing[name] = reason

    def lack(self, reason: str, *names: str) -> None:
        self.put(dict.fromkeys(names, math.nan), reason)

    def attempt(self, work: Callable[[], Mapping[str, float]], reason: str, *names: str) -> None:
        """Where OpenCV fails on these frames, these metrics are missing; the others are kept."""
        import cv2

        try:
            self.put(work(), reason)
        except cv2.error as error:
            self.lack(f"OpenCV cannot do it with these frames ({error.err})", *names)


def _measure_pixels(found: _Found, sampled: SampledFrames, crop: Frames | str) -> None:
    from i2v_lab.metrics import pixels

    one = "a clip of one frame has no change"
    found.put({"temporal_flickering": pixels.temporal_flickering(sampled)}, one)
    sharp = [pixels.sharpness(frame) for frame in sampled.frames]
    found.put({"sharpness": sum(sharp) / len(sharp)})
    if len(sharp) < 2 or sharp[0] <= 0:
        found.lack(one if len(sharp) < 2 else "the first frame is flat", "sharpness_loss")
    else:
        found.put({"sharpness_loss": 1 - sharp[-1] / sharp[0]})
    frozen, repeated = pixels.standstill(sampled)
    found.put({"frozen_frames": frozen, "repeated_frames": repeated}, one)
    found.put({"black_frames": pixels.black_frames(sampled)})
    if isinstance(crop, str):
        found.lack(crop, "input_ssim", "input_psnr")
    elif crop.shape != sampled.frames[0].shape:
        found.lack("the clip's size is not the one in its settings", "input_ssim", "input_psnr")
    else:
        import cv2

        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (sampled.frames[0], crop)]
        found.put({"input_ssim": pixels.ssim(*grey)}, f"SSIM needs sides of {pixels.SSIM_SIDE} px")
        found.put({"input_psnr": pixels.psnr(sampled.frames[0], crop)})


_FLOW = ("motion", "motion_top5", "motion_relative", "motion_top5_relative", "scene_right", "scene_down", "scene_zoom", "scene_turn",
         "warping_error")  # fmt: skip


def _measure_motion(found: _Found, sampled: SampledFrames, prompt: str | None, progress: Progress) -> None:
    from i2v_lab.metrics import flow
    from i2v_lab.metrics import prompt as words

    named = words.asked(prompt) if prompt is not None else []
    short = min(sampled.frames.shape[1:3])
    reason = ""
    if len(sampled.frames) < 2:
        reason = "a clip of one frame has no motion"
    elif short < flow.SHORTEST:
        reason = f"optical flow needs sides of {flow.SHORTEST} px, got {short}"
    if not reason:
        clip = flow.ClipFlow(sampled, flow.shrink(sampled.frames), flow.Estimator(progress))
        if min(clip.grey[0].shape) < flow.SHORTEST:
            reason = f"too narrow for optical flow: {sampled.frames.shape[2]}x{sampled.frames.shape[1]}"
    if reason:
        found.lack(reason, *_FLOW, "smoothness", "drift_ssim", "prompt_agreement")
        return
    found.attempt(lambda: {"smoothness": clip.smoothness()}, "it needs three frames in a row", "smoothness")
    found.attempt(lambda: {"drift_ssim": clip.drift()}, "no later frame shows a tenth of the first one", "drift_ssim")
    if not clip.steps:
        found.lack("the frames have no texture that could be followed", *_FLOW, "prompt_agreement")
        return
    found.attempt(lambda: _flow_values(clip), "it has no value for these frames", *_FLOW)
    if not named:
        unknown = "the prompt is not known" if prompt is None else "the prompt names no direction, zoom or stillness"
        found.lack(unknown, "prompt_agreement")
    else:
        found.put({"prompt_agreement": words.agreement(clip, prompt or "")})


def _flow_values(clip: ClipFlow) -> dict[str, float]:
    mean, top = clip.lengths()
    height, width = clip.sampled.frames.shape[1:3]
    short = min(height, width)
    right, down, growth, turn = clip.fits.mean(0)
    return {
        "motion": mean,
        "motion_top5": top,
        "motion_relative": 100 * mean / short,
        "motion_top5_relative": 100 * top / short,
        "scene_right": right * short,
        "scene_down": down * short,
        "scene_zoom": 100 * growth,
        "scene_turn": math.degrees(turn),
        "warping_error": clip.warping_error(),
    }


def _measure_subject(found: _Found, sampled: SampledFrames, model: Any) -> None:
    if not (hasattr(model, "look") and hasattr(model, "clip_pixels")):
        found.lack(f"the model {getattr(model, 'name', '')} carries no image encoder", "subject_consistency")
        return
    from i2v_lab.metrics.subject import subject_consistency

    found.put({"subject_consistency": subject_consistency(sampled.frames, model)}, "a clip of one frame has no change")
