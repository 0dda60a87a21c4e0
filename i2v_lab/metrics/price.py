"""What a clip lost against a reference: the same clip made without a lever, or with more steps."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from i2v_lab.clip import ffmpeg, video
from i2v_lab.errors import ClipError, printable

# Both clips are brought to one clock, frame by frame: otherwise timestamps shift, and a copy is compared with its neighbour frame.
_GRAPH = (
    "[0:v]format=yuv420p,settb=AVTB,setpts=N[clip];[1:v]format=yuv420p,settb=AVTB,setpts=N,split=3[one][two][three];"
    "[clip][one]psnr[a];[a][two]ssim"
)
_PRINTED = re.compile(rb"lavfi\.(psnr\.mse_avg|ssim\.All)=([0-9.eE+-]+|inf|nan)")


@dataclass(frozen=True)
class Likeness:
    """How alike two clips are, by FFmpeg.

    Attributes:
        psnr: of all frames, luma and chroma, dB; 100 where they are equal.
        ssim: mean over frames, luma and chroma, up to 1 (Wang et al. 2004).
        vmaf: mean over frames, 0 to 100 (Li et al. 2016, Toward a practical perceptual video quality metric); None where this FFmpeg
            has no libvmaf.
        first_frame_psnr: of the first frame alone, dB: how faithful to the picture it stays.
    """

    psnr: float
    ssim: float
    vmaf: float | None
    first_frame_psnr: float


@dataclass(frozen=True)
class Price(Likeness):
    """How far a clip is from its reference.

    Attributes:
        motion_kept: motion over that of the reference; below 1 the clip is slower. None where either cannot be measured.
        flicker_added: temporal_flickering of the reference less that of the clip, in grey levels: above 0 it flickers more.
    """

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


def price(clip: Path, reference: Path) -> Price:
    """Compare a clip with its reference, both as files, and measure both. Some seconds.

    Args:
        clip, reference: of one size and length.

    Raises:
        ClipError: one is no clip, or they differ in size or length.
    """
    from i2v_lab.metrics import measure

    return price_of(compare(clip, reference), measure(clip).values, measure(reference).values)


def price_of(likeness: Likeness, metrics: Mapping[str, float | None], of_reference: Mapping[str, float | None]) -> Price:
    """The price, from what was compared and from what was measured of each clip, as in its record."""
    motion, steady = ([found.get(name) for found in (metrics, of_reference)] for name in ("motion", "temporal_flickering"))
    return Price(
        **asdict(likeness),
        motion_kept=motion[0] / motion[1] if motion[0] is not None and motion[1] else None,
        flicker_added=255 * (steady[1] - steady[0]) if steady[0] is not None and steady[1] is not None else None,
    )


def compare(clip: Path, reference: Path) -> Likeness:
    """Compare two clips as files. Some tenths of a second; FFmpeg does it. Errors as `price`."""
    from i2v_lab.metrics.pixels import decibels

    one, other = video.probe(clip), video.probe(reference)
    if (one.width, one.height, one.frames) != (other.width, other.height, other.frames):
        sizes = [f"{info.frames} frames of {info.height}x{info.width}" for info in (other, one)]
        raise ClipError(
            f"{printable(clip)}: expected a clip of the same size and length as its reference, {sizes[0]}, got {sizes[1]}"
        )
    with tempfile.TemporaryDirectory(prefix="i2v") as folder:
        log = Path(folder) / "vmaf.json"
        place = str(log).replace("\\", "/").replace(":", "\\\\:").replace("'", "")
        graph = _GRAPH + (f"[b];[b][three]libvmaf=log_fmt=json:log_path={place}" if has_vmaf() else "[b];[three]nullsink;[b]null")
        last = ",metadata=print:file=-"
        said = ffmpeg.ask(clip, [*ffmpeg.READ, "-i", ffmpeg.url(reference), "-lavfi", graph + last, "-f", "null", "-"])
        vmaf = json.loads(log.read_text(encoding="utf-8"))["pooled_metrics"]["vmaf"]["mean"] if log.is_file() else None
    found: dict[bytes, list[float]] = {b"psnr.mse_avg": [], b"ssim.All": []}
    for name, value in _PRINTED.findall(said):
        found[name].append(float(value))
    errors, likeness = found.values()
    if not errors or len(errors) != len(likeness):
        raise ClipError(f"{printable(clip)}: FFmpeg compared no frames with {printable(reference)}; check both clips")
    return Likeness(decibels(sum(errors) / len(errors)), sum(likeness) / len(likeness), vmaf, decibels(errors[0]))


@cache
def has_vmaf() -> bool:
    """Whether this FFmpeg has libvmaf; that of Debian has not."""
    with ffmpeg.FFmpeg(["-filters"], ClipError, stdout=subprocess.PIPE) as running:
        return b" libvmaf " in running.output()
