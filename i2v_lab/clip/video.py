"""Clips: frames to MP4, WebM or GIF through the bundled FFmpeg and back, with the settings that made them inside.

A clip is written under a temporary name, read back, and only then published (see publish.py).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from i2v_lab.clip import gif_comment
from i2v_lab.clip.ffmpeg import READ, FFmpeg, ask, must_be_file, url
from i2v_lab.clip.publish import disk_full, partial_file, publish, writing
from i2v_lab.clip.sound import CODECS, Frames, Sound
from i2v_lab.errors import ClipError, WriteError, printable

__all__ = ["FORMATS", "Frames", "VideoInfo", "check_format", "probe", "read", "read_settings", "retime", "write"]

FORMATS = ("mp4", "webm", "gif")
SETTINGS_LIMIT = 8_000_000  # bytes of JSON inside a clip
GIF_FPS_MAX = 50  # browsers slow a GIF's delays below 0.02 s down to 0.1 s
FPS_TERM_MAX = 1_001_000  # FFmpeg rounds rates whose numerator or denominator is larger

# The matrix is converted by the filter and written into the file by setparams: one without the other shifts colours.
_YUV420 = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_ENCODE = {
    # A constant quantizer: with CRF, x264 gives a clip of a higher rate worse frames (1.5 dB between 8 and 24 frames/s).
    "mp4": ["-vf", _YUV420, *"-c:v libx264 -preset fast -qp 17".split()],
    "webm": ["-vf", _YUV420, *"-c:v libvpx-vp9 -deadline good -cpu-used 4 -crf 16 -b:v 0 -row-mt 1".split()],
    "gif": ["-filter_complex", "[0:v]split[a][b];[a]palettegen[p];[b][p]paletteuse"],
}
_SOUND = {"AAC": "-c:a aac -b:a 192k".split(), "Opus": "-c:a libopus -b:a 128k".split()}
_MUX = {"mp4": ["-movflags", "+faststart"], "webm": [], "gif": ["-loop", "0"]}
_CODEC = {"mp4": "h264", "webm": "vp9", "gif": "gif"}  # as FFmpeg calls what _ENCODE makes
_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in "=;#\\\n"})  # as FFmpeg's metadata files want


@dataclass(frozen=True)
class VideoInfo:
    """What a clip's file holds.

    Attributes:
        path: the file.
        frames: how many frames it has.
        width, height: of the file, in pixels, padding included.
        fps: frames a second that the file really has. MP4: exactly as asked. WebM: its times are whole milliseconds
            and its rate whole nanoseconds; this is FFmpeg's nearest usual ratio, within 0.2 %. GIF: its delays are whole
            hundredths of a second; this is the mean (8 asked, 16 frames: delays of 12 and 13, about 8).
        file_bytes: size of the file.
        codec: h264, vp9, gif, or another name of FFmpeg.
        padded: (rows, columns), 0 or 1 each, added at the bottom and the right. Only `write` knows it: (0, 0) from `probe`.
        plain: whether its pixels are 8-bit 4:2:0, which every browser plays.
        steady: whether all its frames last as long, up to rounding.
    """

    path: Path
    frames: int
    width: int
    height: int
    fps: Fraction
    file_bytes: int
    codec: str
    padded: tuple[int, int]
    plain: bool = True
    steady: bool = True


def check_format(format: str, fps: Fraction) -> None:
    """Raise WriteError if no clip of this format can have this rate. Call it before the frames are made."""
    if format not in FORMATS:
        raise WriteError(f"format: expected {', '.join(FORMATS)}, got {format!r}")
    if fps <= 0 or max(fps.numerator, fps.denominator) > FPS_TERM_MAX:
        raise WriteError(f"fps: expected a positive ratio of whole numbers up to {FPS_TERM_MAX}, got {fps}; try 24000/1001")
    if format == "gif" and fps > GIF_FPS_MAX:
        raise WriteError(
            f"fps: browsers play a GIF at {GIF_FPS_MAX} frames a second at most, got {fps}; choose mp4, or at most {GIF_FPS_MAX}"
        )


def write(
    frames: Iterable[npt.NDArray[np.uint8]],
    directory: Path,
    *,
    stem: str,
    fps: Fraction,
    format: str = "mp4",
    settings: Mapping[str, Any] | None = None,
    sound: Sound | None = None,
) -> VideoInfo:
    """Write a clip, read it back and give it its name: `stem.format`, or `stem_1.format`, ... where that is taken.

    Nothing is resized. MP4 and WebM hold even sizes only: an odd one repeats its last row or column once. A GIF holds
    all its frames in FFmpeg's memory while it chooses the colours.

    Args:
        frames: a stream of uint8 RGB frames (H, W, 3), all of one size; an array (F, H, W, 3) is one too.
        directory: where the clip goes; made if missing.
        stem: its name without ending: one plain part, no folders.
        fps: playback rate in frames a second; exact (24000/1001).
        format: mp4 (H.264), webm (VP9) or gif (at most 50 frames a second).
        settings: what JSON can hold, up to 8 MB; kept inside as one JSON text, for `read_settings`.
        sound: what is heard (AAC in MP4, Opus in WebM; a GIF has none). It lasts as long as the frames do.

    Raises:
        WriteError: nothing was left behind; the text says why and what to do. What `frames` raises passes through.
        TypeError, ValueError: the settings are not JSON.
    """
    fps, directory = Fraction(fps), Path(directory)
    check_format(format, fps)
    _check_stem(stem)
    comment = None if settings is None else _dump(settings)
    with partial_file(directory, stem, format) as partial:
        return _finish(_encode(frames, partial, fps, comment, sound), directory, stem, comment)


def retime(source: Path, directory: Path, *, stem: str, fps: Fraction, settings: Mapping[str, Any]) -> tuple[VideoInfo, bool]:
    """Write a further clip, with another rate, from one that `write` made. The format stays, and the rules are those of `write`.

    Args:
        source: the clip to copy. directory, stem, fps, settings: as in `write`; the source's own settings are dropped.

    Returns:
        The new clip (its `padded` is not known here: the source's is), and True where the coded pictures are the same
        bytes. False: another program coded the source, so its frames were decoded and encoded again, with some loss.

    Raises:
        ClipError: the source cannot be read. WriteError: nothing was left behind.
    """
    fps, directory, source = Fraction(fps), Path(directory), Path(source)
    format = source.suffix[1:]
    check_format(format, fps)
    _check_stem(stem)
    info = probe(source)
    if info.codec != _CODEC[format]:
        return write(read(source), directory, stem=stem, fps=fps, format=format, settings=settings), False
    comment = _dump(settings)
    with partial_file(directory, stem, format) as partial:
        arguments = ["-y", *READ, "-i", url(source), *_comment_input(partial, comment), "-map", "0:v:0", "-c", "copy"]
        with FFmpeg([*arguments, *_MUX[format], *_new_times(info, fps), "-f", format, url(partial)], WriteError) as ffmpeg:
            if ffmpeg.finish() != 0:
                raise _failure(ffmpeg, directory)
        copied = _read_back(replace(info, path=partial, fps=fps))
        return _finish(copied, directory, stem, comment), True


def _new_times(info: VideoInfo, fps: Fraction) -> list[str]:
    """Arguments that give each packet of a copied stream the time it has at `fps`.

    The time base is one frame, so that what was rounded to ticks of the source becomes a whole number of frames.
    """
    rate, base = f"{fps.numerator}/{fps.denominator}", f"{fps.denominator}/{fps.numerator}"
    if info.codec != "h264":  # packets are in the order in which they are shown
        # The rate is what a WebM states. The first packet of a GIF has the extension that makes it loop: no second one.
        loop = ["-loop", "-1"] if info.codec == "gif" else []
        return ["-bsf:v", f"setts=time_base={base}:ts=N*{base}/TB:duration={base}/TB", "-r", rate, *loop]
    times = ":".join(f"{name.lower()}={name}*({info.fps})*{base}" for name in ("PTS", "DTS", "DURATION"))
    # The codec's own header states a rate as well, in fields: two for each frame.
    return ["-bsf:v", f"h264_metadata=tick_rate={2 * fps.numerator}/{fps.denominator},setts=time_base={base}:{times}"]


def _finish(info: VideoInfo, directory: Path, stem: str, comment: str | None) -> VideoInfo:
    """Give the temporary file at `info.path`, which was read back, its name."""
    partial, format = info.path, info.path.suffix[1:]
    with writing(directory):
        if comment is not None and format == "gif":
            gif_comment.insert(partial, comment)
            info = replace(probe(partial), padded=info.padded)
        with partial.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())  # some disks report only now that they are full
        return replace(info, path=publish(partial, directory, stem, format))


def probe(path: Path) -> VideoInfo:
    """What the clip holds. All of it is decoded, so a damaged clip is an error.

    Raises:
        ClipError: there is no such file, or it is not a whole MP4, WebM or GIF.
    """
    # The same stream twice: as it is in the file (codec, durations), and decoded (size, frames, rate).
    streams = ["-map", "0:v:0", "-map", "0:v:0", "-c:v:0", "copy", "-c:v:1", "rawvideo", "-fps_mode:v:1", "passthrough"]
    text = ask(path, [*streams, "-f", "framecrc", "-"]).decode("ascii", "replace")
    heads = dict(re.findall(r"^#(\w+ \d): (.+)$", text, re.MULTILINE))
    packets = [[field.strip() for field in line.split(",")] for line in text.splitlines() if line[:2] in ("0,", "1,")]
    shown_at, durations = ([int(fields[place]) for fields in packets if fields[0] == "0"] for place in (2, 3))
    frames = sum(fields[0] == "1" for fields in packets)
    try:
        codec, size, base = heads["codec_id 0"], heads["dimensions 1"].split("x"), Fraction(heads["tb 0"])
        fps = len(durations) / (sum(durations) * base)
        if codec in ("vp8", "vp9", "av1"):
            # Times in whole milliseconds are less exact than the rate that such a file states; but below 5 frames a second
            # FFmpeg sometimes states another one.
            stated, apart = 1 / Fraction(heads["tb 1"]), (max(shown_at) - min(shown_at)) * base
            fps = stated if abs((len(shown_at) - 1) / stated - apart) <= 2 * base else (len(shown_at) - 1) / apart
        width, height = int(size[0]), int(size[1])
        chroma = 2 * ((width + 1) // 2) * ((height + 1) // 2)
        plain = next(int(fields[4]) for fields in packets if fields[0] == "1") == width * height + chroma
    except (StopIteration, KeyError, ValueError, ZeroDivisionError, IndexError):
        raise ClipError(f"{printable(path)}: expected a clip with frames that last some time, found none") from None
    return VideoInfo(Path(path), frames, width, height, fps, Path(path).stat().st_size, codec, (0, 0), plain, _steady(shown_at))


def _steady(shown_at: list[int]) -> bool:
    """Whether frames that are shown at these ticks follow each other evenly, up to the rounding of a tick."""
    times = sorted(shown_at)
    apart = [after - before for before, after in itertools.pairwise(times)]
    return not apart or max(apart) - min(apart) <= 2 or max(apart) <= 1.5 * min(apart)


def read(path: Path, select: str = "") -> Frames:
    """The frames of a clip: uint8 RGB, (F, H, W, 3), padding included.

    Args:
        select: an expression of FFmpeg's filter `select`, where only some frames are wanted.

    Raises:
        ClipError: there is no such file, or it is not a whole MP4, WebM or GIF.
    """
    # Plain conversion repeats chroma pixels; these flags interpolate them, as players do: 2 dB nearer to the source.
    smooth = "scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
    filters = ["-vf", f"select={select},{smooth}" if select else smooth, "-fps_mode", "passthrough"]
    data = ask(path, ["-map", "0:v:0", *filters, "-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-"])
    head = re.match(rb"P6\n(\d+) (\d+)\n255\n", data)  # each frame brings its own size: nothing is guessed
    if head is None:
        raise ClipError(f"{printable(path)}: expected a clip, found no frames")
    width, height = int(head[1]), int(head[2])
    rows = np.frombuffer(data, np.uint8)
    if rows.size % (head.end() + height * width * 3):
        raise ClipError(f"{printable(path)}: expected frames of one size, {width}x{height}; they change within the clip")
    rows = rows.reshape(-1, head.end() + height * width * 3)
    return rows[:, head.end() :].reshape(-1, height, width, 3).copy()  # (F, H, W, 3)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings inside a clip. They are not trusted: they are parsed and nothing more. Validate them.

    Raises:
        ClipError: no such file, not a clip, no settings inside, or they are not a JSON object of at most 8 MB.
    """
    must_be_file(path)
    try:
        with Path(path).open("rb") as file:
            is_gif = file.read(6) in (b"GIF87a", b"GIF89a")
            text = gif_comment.read(file, SETTINGS_LIMIT) if is_gif else None
    except OSError as error:
        raise ClipError(f"{printable(path)}: cannot be read ({error.strerror})") from None
    if not is_gif:
        # Escaping at most doubles the text. A longer answer is cut, and refused below.
        text = _metadata_comment(ask(path, ["-f", "ffmetadata", "-"], limit=2 * SETTINGS_LIMIT + 100_000))
    if text is None:
        raise ClipError(f"{printable(path)}: carries no settings; expected a clip that this package wrote, not re-encoded since")
    try:
        if len(text) > SETTINGS_LIMIT:
            raise ClipError(f"{printable(path)}: its comment is over {SETTINGS_LIMIT} bytes: not the settings of a clip")
        settings = json.loads(text)
    except (ValueError, RecursionError):
        raise ClipError(f"{printable(path)}: its comment is not the settings of a clip (broken JSON)") from None
    if not isinstance(settings, dict):
        raise ClipError(f"{printable(path)}: its comment is not the settings of a clip (expected a JSON object)")
    return settings


def _check_stem(stem: str) -> None:
    if Path(stem).name != stem or stem.startswith((".", " ")) or not stem or "\0" in stem or "\\" in stem:
        raise WriteError(f"a clip's name must be one plain file name, got {stem!r}")


def _comment_input(partial: Path, comment: str | None, place: int = 1) -> list[str]:
    """Arguments that put the comment into the file that FFmpeg writes, as the input with this number. A GIF gets it afterwards."""
    if comment is None or partial.suffix == ".gif":
        return []
    metadata = partial.with_suffix(".txt")  # a file: as an argument, long settings fail (E2BIG)
    with writing(partial.parent):
        metadata.write_text(";FFMETADATA1\ncomment=" + comment.translate(_ESCAPES) + "\n", encoding="utf-8")
    return ["-f", "ffmetadata", "-i", url(metadata), "-map_metadata", str(place)]


def _sound_input(partial: Path, sound: Sound) -> list[str]:
    """Arguments that put the sound into the file that FFmpeg writes, as its last input."""
    heard = partial.with_suffix(".wav")
    with writing(partial.parent), wave.open(str(heard), "wb") as file:
        file.setparams((len(sound.samples), 2, sound.rate, 0, "NONE", ""))
        file.writeframes((sound.samples.clip(-1, 1).T * 32767).round().astype("<i2").tobytes())
    return ["-f", "wav", "-i", url(heard)]


def _failure(ffmpeg: FFmpeg, directory: Path) -> WriteError:
    failure = ffmpeg.failure()
    return WriteError(disk_full(directory) if ffmpeg.disk_full else f"no clip was written: {failure}")


def _encode(
    frames: Iterable[npt.NDArray[np.uint8]], partial: Path, fps: Fraction, comment: str | None, sound: Sound | None
) -> VideoInfo:
    """Send the frames through FFmpeg into `partial` and read it back."""
    format = partial.suffix[1:]
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise WriteError("there are no frames to write: expected at least one")
    shape = _check_frame(first, 0, None)
    rows, columns = (0, 0) if format == "gif" else (shape[0] % 2, shape[1] % 2)
    height, width = shape[0] + rows, shape[1] + columns
    # -r and not -framerate: of a rate above 101 FFmpeg would take the nearest usual one.
    arguments = ["-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"]
    spoken = sound if format in CODECS else None
    if spoken:
        arguments += _sound_input(partial, spoken)
    arguments += [
        *_comment_input(partial, comment, 2 if spoken else 1),
        *_ENCODE[format],
        *(_SOUND[CODECS[format]] if spoken else []),
    ]
    arguments += [*_MUX[format], "-f", format, url(partial)]
    count = 0
    with FFmpeg(arguments, WriteError, stdin=subprocess.PIPE) as ffmpeg:
        for frame in itertools.chain([first], iterator):
            _check_frame(frame, count, shape)
            even = np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else frame
            if not ffmpeg.feed(np.ascontiguousarray(even)):
                break
            count += 1
        else:
            if ffmpeg.finish() == 0:
                return _read_back(VideoInfo(partial, count, width, height, fps, 0, format, (rows, columns)))
        raise _failure(ffmpeg, partial.parent)


def _check_frame(frame: Any, index: int, shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """The frame's shape, (H, W, 3); `shape` is that of the frames before it."""
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size:
        found = (frame.shape[0], frame.shape[1], 3)
        if shape in (None, found):
            return found
    came = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
    raise WriteError(f"frame {index}: expected uint8 RGB {shape or '(height, width, 3)'}, got {came}")


def _read_back(asked: VideoInfo) -> VideoInfo:
    """What the file at `asked.path` holds, once it is what was asked."""
    try:
        info = probe(asked.path)
    except ClipError as error:
        raise WriteError(f"the clip could not be read back after it was written: {error}") from None
    # How many seconds it may be longer or shorter: a GIF's delays are rounded to 0.01 s, the last one twice.
    slack = {"mp4": Fraction(0), "webm": asked.frames / asked.fps / 500, "gif": Fraction(2, 100)}[asked.path.suffix[1:]]
    same = (info.frames, info.width, info.height) == (asked.frames, asked.width, asked.height)
    if not same or abs(info.frames / info.fps - asked.frames / asked.fps) > slack:
        raise WriteError(
            f"the clip is not the one asked for: expected {asked.frames} frames of {asked.width}x{asked.height} at {asked.fps} "
            f"frames/s, read back {info.frames} of {info.width}x{info.height} at {info.fps}; try another format or rate"
        )
    return replace(info, padded=asked.padded)


def _dump(settings: Mapping[str, Any]) -> str:
    # ASCII: what no container, player or GIF reader can get wrong. Escapes hold all of unicode.
    text = json.dumps(dict(settings), allow_nan=False)
    if len(text) > SETTINGS_LIMIT:
        raise WriteError(f"settings: a clip holds up to {SETTINGS_LIMIT} bytes of them, got {len(text)}")
    return text


def _metadata_comment(dump: bytes) -> str | None:
    """The comment among FFmpeg's key=value lines, in which a backslash keeps the next character from meaning something."""
    # The patterns are possessive: others take a gigabyte for a long comment.
    for key, value in re.findall(r"^((?:[^\\=\n]++|\\.)*+)=((?:[^\\\n]++|\\.)*+)$", dump.decode("utf-8", "replace"), re.M | re.S):
        if key.lower() == "comment":
            return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
    return None
