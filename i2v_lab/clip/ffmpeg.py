"""The bundled FFmpeg as a child process: started, read and always ended.

Clips are read in this process of its own too, not by PyAV in ours. PyAV would be faster (a probe 12 to 35 ms instead of 50
to 70), and 1,986 mutated clips did not crash it. But a clip of 43 kB with frames of 16000x8000 takes 460 MB of the user's
own kernel there, with no time limit, and writing needs FFmpeg all the same: a second copy of its libraries, 129 MB.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from i2v_lab.errors import ClipError, I2VLabError, WriteError, printable
from i2v_lab.portable import APART

# A clip is not trusted: playlists, which can name other files and addresses, are not opened.
READ = ["-protocol_whitelist", "file,pipe", "-format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi", "-xerror"]


class FFmpeg:
    """One run of FFmpeg; at the end of the with block it has ended, in every case."""

    def __init__(
        self,
        arguments: Sequence[str],
        error: type[I2VLabError],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        try:
            binary = imageio_ffmpeg.get_ffmpeg_exe()
            self.process = subprocess.Popen(
                [binary, "-hide_banner", "-nostdin", "-v", "error", *arguments],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                **APART,  # we handle Ctrl-C: FFmpeg must not end the file
            )
        except (OSError, RuntimeError) as problem:
            raise error(
                f"FFmpeg cannot be run ({problem}): reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an FFmpeg that runs"
            ) from None
        self.lines: deque[str] = deque(maxlen=50)
        # FFmpeg stops when its error pipe is full, so a thread always reads it.
        self.drain = threading.Thread(target=self._drain, daemon=True)
        self.drain.start()

    def _drain(self) -> None:
        assert self.process.stderr is not None  # noqa: S101 - for the type checker
        while line := self.process.stderr.readline(10_000):
            self.lines.append(line.decode("utf-8", "replace").strip())

    def output(self, limit: int | None = None) -> bytes:
        """All of standard output, or its first `limit` bytes."""
        assert self.process.stdout is not None  # noqa: S101
        return self.process.stdout.read() if limit is None else self.process.stdout.read(limit)

    def feed(self, data: npt.NDArray[np.uint8]) -> bool:
        """Send bytes to standard input; False once FFmpeg has gone."""
        assert self.process.stdin is not None  # noqa: S101
        try:
            self.process.stdin.write(data.data)
        except OSError:
            return False
        return True

    def finish(self, seconds: float | None = None) -> int:
        """Close standard input and wait, at most `seconds`; the exit code, below zero for a signal."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        self.drain.join()
        return code

    @property
    def words(self) -> str:
        """FFmpeg's last messages, in one line."""
        lines = [re.sub(r"\[[^\]]*@ 0x[0-9a-f]+\]\s*", "", line) for line in self.lines]
        return printable("; ".join(dict.fromkeys(line for line in lines[-2:] if line)))[-400:]

    @property
    def disk_full(self) -> bool:
        """Whether FFmpeg said that the disk, or a user's quota of it, is full."""
        return any("No space left on device" in line or "Disk quota exceeded" in line for line in self.lines)

    def failure(self) -> str:
        """How FFmpeg ended, its last messages and what to do, in one line."""
        code, said = self.finish(), self.words or "it said nothing"
        if code < 0:
            return f"FFmpeg was killed by signal {-code} ({said}); memory may have run out: try a smaller clip"
        return f"FFmpeg failed with exit code {code} ({said}); `i2v-lab doctor` says which encoders work here"

    def __enter__(self) -> FFmpeg:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.finish()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def ask(path: Path, arguments: Sequence[str], *, limit: int | None = None) -> bytes:
    """What FFmpeg prints about a clip."""
    must_be_file(path)
    with FFmpeg([*READ, "-i", url(path), *arguments], ClipError, stdout=subprocess.PIPE) as ffmpeg:
        data = ffmpeg.output(limit)
        if limit is not None and len(data) == limit:
            return data
        if ffmpeg.finish() != 0:
            raise ClipError(f"{printable(path)}: expected a whole MP4, WebM or GIF; FFmpeg cannot read it ({ffmpeg.words})")
    return data


def must_be_file(path: Path) -> None:
    if not Path(path).is_file():  # a pipe or a device would hang
        what = "is not a file" if Path(path).exists() else "there is no such file"
        raise ClipError(f"{printable(path)}: {what}; expected an MP4, WebM or GIF")


def url(path: Path) -> str:
    # So that a name such as -y.mp4 or http:x is never an option or an address.
    return f"file:{Path(path).absolute()}"


def encoders() -> dict[str, bool]:
    """Which encoders work on this machine, found by encoding one frame with each."""
    tiny = ["-f", "lavfi", "-i", "color=size=256x256:rate=8", "-frames:v", "1", "-pix_fmt", "yuv420p", "-c:v"]
    found = {}
    for name in ("libx264", "libvpx-vp9", "libsvtav1", "h264_nvenc"):
        with FFmpeg([*tiny, name, "-f", "null", "-"], WriteError) as ffmpeg:
            found[name] = ffmpeg.finish(20) == 0  # a driver in a bad state may hang
    return found


def ffmpeg_version() -> str:
    """Version of the FFmpeg in use. Raises WriteError where there is none that runs."""
    with FFmpeg(["-version"], WriteError, stdout=subprocess.PIPE) as ffmpeg:
        words = ffmpeg.output().decode("utf-8", "replace").split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else "unknown"
