"""Files that a page sends: in pieces, because a message of more than 10 MiB is lost silently on the way."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from i2v_lab.clip import video
from i2v_lab.clip.picture import MAX_FILE_BYTES
from i2v_lab.errors import ClipError, InputError
from i2v_lab.portable import NOT_IN_NAMES, is_device, replace
from i2v_lab.rights import make_folder

FOLDER = "uploads"
NAME_BYTES_MAX = 120
# First bytes of a video: ISO media except AVIF and HEIC, Matroska and WebM.
_VIDEO = re.compile(rb".{4}ftyp(?!avi[fs]|hei|hev|mif1|msf1)|\x1a\x45\xdf\xa3", re.DOTALL)


@dataclass
class _Arriving:
    name: str
    size: int
    part: Path
    file: BinaryIO
    got: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class Uploads:
    """Puts files together from their pieces, in uploads/ of the output folder.

    A page sends `begin` (name, size), then one `piece` after another, each when the one before was answered.
    """

    def __init__(self, directory: Path) -> None:
        """directory: the output folder."""
        self.folder = directory / FOLDER
        self._arriving: dict[str, _Arriving] = {}

    def receive(self, message: Mapping[str, Any], buffers: Sequence[Any]) -> tuple[dict[str, Any], Path | None]:
        """(what to answer, the file once it is whole).

        Raises:
            InputError: too large, out of order, or it cannot be kept.
        """
        id = str(message.get("id"))
        try:
            if message.get("type") == "begin":
                self._begin(id, str(message.get("name", "")), int(message.get("size", -1)))
                return {"id": id, "got": 0}, None
            if id not in self._arriving:
                raise InputError("upload: expected the beginning of a file first; drop it again")
            arriving = self._arriving[id]
            data = bytes(buffers[0]) if buffers else b""
            if message.get("at") != arriving.got or not data or arriving.got + len(data) > arriving.size:
                raise InputError(f"upload of {arriving.name!r}: a piece is missing or came twice; drop the file again")
            arriving.file.write(data)
            arriving.digest.update(data)
            arriving.got += len(data)
            whole = self._finish(id) if arriving.got == arriving.size else None
            return {"id": id, "got": arriving.got}, whole
        except OSError as error:
            self.forget(id)
            raise InputError(
                f"upload: {self.folder} cannot be written ({error.strerror}); free some space or check its rights"
            ) from None
        except InputError:
            self.forget(id)
            raise

    def forget(self, id: str) -> None:
        """Drop a file that did not arrive whole."""
        if arriving := self._arriving.pop(id, None):
            arriving.file.close()
            with suppress(OSError):
                arriving.part.unlink(missing_ok=True)

    def _begin(self, id: str, name: str, size: int) -> None:
        if not 0 < size <= MAX_FILE_BYTES:
            what = "an empty file" if size == 0 else f"{size / 2**20:.0f} MiB"
            raise InputError(f"upload: expected a file of at most {MAX_FILE_BYTES // 2**20} MiB, got {what}; use a smaller copy, "
                             "or enter its path")  # fmt: skip
        self.forget(id)
        make_folder(self.folder)
        part = self.folder / f".{secrets.token_hex(8)}.part"
        self._arriving[id] = _Arriving(safe_name(name), size, part, part.open("xb"))

    def _finish(self, id: str) -> Path:
        arriving = self._arriving.pop(id)
        arriving.file.close()
        # In a folder of its own: two pictures may have one name, and the same one is kept once.
        final = self.folder / arriving.digest.hexdigest()[:16] / arriving.name
        final.parent.mkdir(exist_ok=True)
        replace(arriving.part, final)
        return final


def safe_name(name: str) -> str:
    """The last part of a name from outside, without characters that mean something to a file system or a terminal."""
    last = re.split(r"[/\\]", name)[-1]
    plain = (
        "".join(letter if letter.isprintable() and letter not in NOT_IN_NAMES else "_" for letter in last).strip().lstrip(".")
        or "file"
    )
    plain = f"_{plain}" if is_device(plain) else plain
    stem, dot, suffix = plain.rpartition(".")
    suffix = (dot + suffix)[:12] if stem else ""
    stem = (stem or plain).encode()[: NAME_BYTES_MAX - len(suffix.encode())].decode(errors="ignore")
    return stem + suffix


def is_clip(path: Path) -> bool:
    """Whether a file is a clip, by its content: any video, and a GIF that carries settings. Anything else may be a picture."""
    with path.open("rb") as file:
        head = file.read(64)
    if _VIDEO.match(head):
        return True
    if head.startswith(b"GIF8"):
        with suppress(ClipError):
            return "params" in video.read_settings(path)
    return False
