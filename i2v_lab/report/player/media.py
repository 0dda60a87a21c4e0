"""The clips and first frames of a grid, each read once and scaled to a size that a page can hold."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from i2v_lab.clip import ffmpeg, video
from i2v_lab.errors import ClipError
from i2v_lab.report.player.assets import said
from i2v_lab.report.player.foreign import animation, at_one_rate, container, foreign, is_picture
from i2v_lab.report.player.grid import GridCell

LIMIT_BYTES = 60_000_000  # of clips and posters in one page, as base64 text
PROXY_SIDE = 416  # pixels
COPY_SIDE = 1280  # pixels: of a copy of a clip that browsers do not play, where it may be large
POSTER_SIDE = 320
PIXELS_IN_STEP = 4_500_000  # of all frames that are shown at once: with more, browsers on a few cores lose step
HEAD_BYTES = 262_144  # in which the index of an MP4 is looked for
_FOURCC = {0x34363248: "h264", 0x34363268: "h264", 0x31637661: "h264"}  # H264, h264, avc1
_I420 = 0x30323449  # 8-bit 4:2:0
Found = TypeVar("Found")


@dataclass(frozen=True)
class Media:
    """A clip in the form that a page holds.

    Attributes:
        info: the clip's file.
        poster: JPEG of its first frame.
        data: the file's bytes; None where only the poster is shown.
        mime: of `data`.
        said: a remark shown over the picture.
        kind: why browsers do not play the file itself; "" where they do.
    """

    info: video.VideoInfo
    poster: bytes
    data: bytes | None
    mime: str
    said: Any = ""
    kind: str = ""


def collect(cells: Sequence[GridCell], limit: int) -> tuple[list[Media | str], list[Any]]:
    """The clip of each cell, or why there is none; and remarks for the reader on copies and on clips left out."""
    found = look_at_all(cells, look)
    infos = [item.info for item in found if isinstance(item, Media)]
    whole = sum(info.file_bytes for info in infos) * 4 // 3
    pixels = sum(info.width * info.height for info in infos)
    left, proxies, posters, bare = limit, 0, 0, 0
    for place, item in enumerate(found):  # posters first, so that a cell without a clip has its picture if possible
        if isinstance(item, Media) and (left := left - len(item.poster) * 8 // 3) < 0:  # twice: also for readers without scripts
            found[place] = f"not in this page, which holds at most {limit / 1e6:g} MB: {item.info.path.name}"
            bare += 1
    full, many = whole > left, pixels > PIXELS_IN_STEP
    for place, item in enumerate(found):
        if not isinstance(item, Media):
            continue
        large = full or (many and max(item.info.width, item.info.height) > PROXY_SIDE)
        data, copied = bytes_of(item, large, left * 3 // 4)
        if data is None:
            found[place] = replace(item, said=said("poster_only"))
            posters += 1
        else:
            left -= len(data) * 4 // 3
            proxies += copied and large
            found[place] = replace(item, data=data, mime=mime_of(item, copied))
    notes = foreign_notes(found)
    if proxies:
        notes.append(said("copies_in_page", count=proxies, all=len(infos), side=PROXY_SIDE))
    if posters + bare:
        key, counts = "page_very_full" if bare else "page_full", {"count": posters + bare, "bare": bare}
        notes.append(said(key, megabytes=f"{limit / 1e6:g}", all=len(infos), **counts))
    return found, notes


def foreign_notes(found: Sequence[Media | str]) -> list[Any]:
    """What the reader is told of clips that browsers do not play themselves."""
    kinds = [item.kind for item in found if isinstance(item, Media) and item.kind]
    if not kinds:
        return []
    return [said("foreign", count=len(kinds), all=len(found), kinds="; ".join(dict.fromkeys(kinds)))]


def look_at_all(cells: Sequence[GridCell], look: Callable[[Path], Found]) -> list[Found | str]:
    """What `look` finds of the clip of each cell, or why there is nothing to show. Several at once, since each waits for FFmpeg."""

    def one(cell: GridCell) -> Found | str:
        if not cell.clip:
            return cell.reason
        try:
            return look(Path(cell.clip))
        except ClipError as error:
            return str(error)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(one, cells))


def look(path: Path) -> Media:
    """The clip and its first frame. The whole clip is decoded.

    Raises:
        ClipError: it is not a whole clip.
    """
    ffmpeg.must_be_file(path)
    if kind := is_picture(path):
        info = animation(path)
        return Media(info, poster(info.path), None, "", kind=kind)
    info = video.probe(path)
    return Media(at_one_rate(info), poster(path), None, "", kind=foreign(info))


def glance(path: Path) -> Media:
    """As `look`, but of an MP4 only the header and the first frame are read: it takes a fifth of the time.

    Raises:
        ClipError: there is no such file, or it is not a clip.
    """
    import cv2

    ffmpeg.must_be_file(path)
    if container(path) != "video/mp4" or not _even_times(path):
        return look(path)
    capture = cv2.VideoCapture(str(path))
    try:
        found, frame = capture.read()
        rate, count = float(capture.get(cv2.CAP_PROP_FPS)), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        codec = _FOURCC.get(int(capture.get(cv2.CAP_PROP_FOURCC)))
        plain = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) == _I420
    finally:
        capture.release()
    if not found or codec is None or not plain or count < 1 or not 0 < rate < 1000:
        return look(path)
    height, width = frame.shape[:2]
    scale = min(1.0, POSTER_SIDE / max(height, width))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    fps = Fraction(rate).limit_denominator(1001)
    return Media(video.VideoInfo(path, count, width, height, fps, path.stat().st_size, codec, (0, 0)), jpeg, None, "")


def _even_times(path: Path) -> bool:
    """Whether the index of an MP4 is at its beginning, says of each track that all its samples last as long, and names no AV1."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    runs = [int.from_bytes(head[found.end() + 4 : found.end() + 8], "big") for found in re.finditer(b"stts", head)]
    return bool(runs) and max(runs) == 1 and b"av01" not in head  # of which OpenCV complains on the terminal


def bytes_of(item: Media, large: bool, room: int) -> tuple[bytes | None, bool]:
    """The bytes of a clip in a page, None where they are more than `room`; and whether they are a copy.

    A clip that browsers do not play is copied; a large clip is copied where the copy is smaller.
    """
    info = item.info
    if room <= 0:
        return None, False
    sides = [PROXY_SIDE] if large else [COPY_SIDE, PROXY_SIDE] if item.kind else []
    for side in sides:
        data = proxy(info, side)
        if len(data) <= room and (item.kind or len(data) < info.file_bytes):
            return data, True
    return (info.path.read_bytes() if info.file_bytes <= room and not item.kind else None), bool(item.kind)


def mime_of(item: Media, copied: bool) -> str:
    return "video/mp4" if copied else container(item.info.path)


def _fit(side: int) -> str:
    """FFmpeg's filter that scales the longer side down to `side` pixels, with even sides."""
    return f"scale=w='min({side},iw)':h='min({side},ih)':force_original_aspect_ratio=decrease:force_divisible_by=2:flags=bicubic"


def poster(path: Path) -> bytes:
    """JPEG of the first frame."""
    picture = ["-map", "0:v:0", "-frames:v", "1", "-vf", f"{_fit(POSTER_SIDE)},format=yuvj420p"]
    return ffmpeg.ask(path, [*picture, "-c:v", "mjpeg", "-q:v", "4", "-f", "image2pipe", "-"])


def proxy(info: video.VideoInfo, side: int = PROXY_SIDE) -> bytes:
    """An MP4 of the same frames at the same rate (for a GIF its mean rate), at most `side` pixels wide and high.

    A browser seeks fast in it. The newest copies are kept, so that a page that opens again need not wait.
    """
    return _proxy(info, side, info.path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _proxy(info: video.VideoInfo, side: int, _: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "proxy.mp4"
        encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26" if side == PROXY_SIDE else "20", "-g", "8", "-bf", "0"]
        # Frame n is at exactly n / rate seconds: the time base is one frame.
        rate, base = info.fps, f"{info.fps.denominator}/{info.fps.numerator}"
        times = f"settb={base},setpts=N" if info.steady else f"fps={rate},settb={base}"
        regular = ["-vf", f"{_fit(side)},{times},format=yuv420p", "-fps_mode", "cfr", "-r", str(rate)]
        plain = ["-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4"]
        ffmpeg.ask(info.path, ["-map", "0:v:0", *regular, *encode, *plain, ffmpeg.url(out)])
        return out.read_bytes()
