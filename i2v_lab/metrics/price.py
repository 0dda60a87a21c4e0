"""What a clip lost against a reference: the same clip made without a lever, or with more steps."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from i2v_lab.clip import ffmpeg, video
from i2v_lab.errors import ClipError, printable

EQUAL_DB = 100.0  # the PSNR of equal clips, which has no other number

# Both clips are brought to one clock, frame by frame: otherwise timestamps shift, and a copy is compared with its neighbour frame.
_GRAPH = (
    "[0:v]format=yuv420p,settb=AVTB,setpts=N[clip];[1:v]format=yuv420p,settb=AVTB,setpts=N,split=3[one][two][three];"
    "[clip][one]psnr[a];[a][two]ssim[b];[b][three]libvmaf=log_fmt=json:log_path={log},metadata=print:file=-"
)
_PRINTED = re.compile(rb"lavfi\.(psnr\.mse_avg|ssim\.All)=([0-9.eE+-]+|inf|nan)")


@dataclass(frozen=True)
class Price:
    """How far a clip is from its reference.

    Attributes:
        psnr: of all frames, luma and chroma, dB; 100 where they are equal.
        ssim: mean over frames, luma and chroma, up to 1 (Wang et al. 2004).
        vmaf: mean over frames, 0 to 100 (Li et al. 2016, Toward a practical perceptual video quality metric).
        first_frame_psnr: of the first frame alone, dB: how faithful to the picture it stays.
        motion_kept: motion over that of the reference; below 1 the clip is slower. None where either cannot be measured.
        flicker_added: temporal_flickering of the reference less that of the clip, in grey levels: above 0 it flickers more.
    """

    psnr: float
    ssim: float
    vmaf: float
    first_frame_psnr: float
    motion_kept: float | None
    flicker_added: float | None


FIELDS: Mapping[str, tuple[str, str]] = {
    "psnr": ("PSNR", "dB"),
    "ssim": ("SSIM", ""),
    "vmaf": ("VMAF", ""),
    "first_frame_psnr": ("PSNR of the first frame", "dB"),
    "motion_kept": ("motion kept", ""),
    "flicker_added": ("flicker added", "grey levels"),
}
"""The figures of a price: title and unit."""


def price(
    clip: Path,
    reference: Path,
    metrics: Mapping[str, float | None] | None = None,
    of_reference: Mapping[str, float | None] | None = None,
) -> Price:
    """Compare a clip with its reference, both as files. Some tenths of a second; FFmpeg does it.

    Args:
        clip, reference: of one size and length.
        metrics, of_reference: what was measured of each, as in its record; None: it is measured here.

    Raises:
        ClipError: one is no clip, or they differ in size or length.
    """
    one, other = video.probe(clip), video.probe(reference)
    if (one.width, one.height, one.frames) != (other.width, other.height, other.frames):
        sizes = [f"{info.frames} frames of {info.height}x{info.width}" for info in (other, one)]
        raise ClipError(
            f"{printable(clip)}: expected a clip of the same size and length as its reference, {sizes[0]}, got {sizes[1]}"
        )
    errors, likeness, vmaf = _compare(clip, reference)
    own, its = (
        metrics if metrics is not None else _measured(clip),
        of_reference if of_reference is not None else _measured(reference),
    )
    motion, its_motion, steady, its_steady = (
        own.get("motion"),
        its.get("motion"),
        own.get("temporal_flickering"),
        its.get("temporal_flickering"),
    )
    return Price(
        psnr=_decibels(sum(errors) / len(errors)), ssim=sum(likeness) / len(likeness), vmaf=vmaf, first_frame_psnr=_decibels(errors[0]),
        motion_kept=motion / its_motion if motion is not None and its_motion else None,
        flicker_added=255 * (its_steady - steady) if steady is not None and its_steady is not None else None,
    )  # fmt: skip


def _compare(clip: Path, reference: Path) -> tuple[list[float], list[float], float]:
    """(mean squared error, SSIM) of each frame, and VMAF."""
    with tempfile.TemporaryDirectory(prefix="i2v") as folder:
        log = Path(folder) / "vmaf.json"
        place = str(log).replace("\\", "/").replace(":", "\\\\:").replace("'", "")
        said = ffmpeg.ask(clip, [*ffmpeg.READ, "-i", ffmpeg.url(reference), "-lavfi", _GRAPH.format(log=place), "-f", "null", "-"])
        vmaf = float(json.loads(log.read_text(encoding="utf-8"))["pooled_metrics"]["vmaf"]["mean"])
    found: dict[bytes, list[float]] = {b"psnr.mse_avg": [], b"ssim.All": []}
    for name, value in _PRINTED.findall(said):
        found[name].append(float(value))
    errors, likeness = found.values()
    if not errors or len(errors) != len(likeness):
        raise ClipError(f"{printable(clip)}: FFmpeg compared no frames with {printable(reference)}; check both clips")
    return errors, likeness, vmaf


def _decibels(error: float) -> float:
    return min(EQUAL_DB, 10 * math.log10(255**2 / error)) if error > 0 else EQUAL_DB


def _measured(clip: Path) -> Mapping[str, float | None]:
    from i2v_lab.metrics import measure

    return measure(clip).values
