"""Files that a page sends: in pieces, because a message of more than 10 MiB is lost on the way without a word."""

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

FOLDER = "uploads"
NAME_BYTES_MAX = 120
# Beginnings of what may be a clip: ISO media but for AVIF and HEIC, Matroska and WebM, GIF.
_VIDEO = re.compile(rb".{4}ftyp(?!avi[fs]|hei|hev|mif1|msf1)|\x1a\x45\xdf\xa3", re.DOTALL)


@dataclass
class _Coming:
    name: str
    size: int
    part: Path
    file: BinaryIO
    got: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class Intake:
    """Puts files together out of their pieces, in uploads/ of the output folder.

    A page says `begin` (name, size), then sends `piece` after `piece`, each once the one before was answered for.
    """

    def __init__(self, directory: Path) -> None:
        """directory: the output folder."""
        self.folder = directory / FOLDER
        self._coming: dict[str, _Coming] = {}

    def hear(self, message: Mapping[str, Any], buffers: Sequence[Any]) -> tuple[dict[str, Any], Path | None]:
        """(what to answer, the file once it is whole).

        Raises:
            InputError: too large, out of order, or it cannot be kept.
        """
        id = str(message.get("id"))
        try:
            if message.get("type") == "begin":
                self._begin(id, str(message.get("name", "")), int(message.get("size", -1)))
                return {"id": id, "got": 0}, None
            if id not in self._coming:
                raise InputError("upload: expected the beginning of a file first; drop it again")
            coming = self._coming[id]
            data = bytes(buffers[0]) if buffers else b""
            if message.get("at") != coming.got or not data or coming.got + len(data) > coming.size:
                raise InputError(f"upload of {coming.name!r}: a piece is missing or came twice; drop the file again")
            coming.file.write(data)
            coming.digest.update(data)
            coming.got += len(data)
            whole = self._finish(id) if coming.got == coming.size else None
            return {"id": id, "got": coming.got}, whole
        except OSError as error:
            self.forget(id)
            raise InputError(
                f"upload: {self.folder} cannot be written ({error.strerror}); free some space or check its rights"
            ) from None
        except InputError:
            self.forget(id)
            raise

    def forget(self, id: str) -> None:
        """Let go of a file that did not come to its end."""
        if coming := self._coming.pop(id, None):
            coming.file.close()
            with suppress(OSError):
                coming.part.unlink(missing_ok=True)

    def _begin(self, id: str, name: str, size: int) -> None:
        if not 0 < size <= MAX_FILE_BYTES:
            what = "an empty file" if size == 0 else f"{size / 2**20:.0f} MiB"
            raise InputError(f"upload: expected a file of at most {MAX_FILE_BYTES // 2**20} MiB, got {what}; use a smaller copy, "
                             "or enter its path")  # fmt: skip
        self.forget(id)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{secrets.token_hex(8)}.part"
        self._coming[id] = _Coming(safe_name(name), size, part, part.open("xb"))

    def _finish(self, id: str) -> Path:
        coming = self._coming.pop(id)
        coming.file.close()
        # In a folder of its own: two pictures may bear one name, and the same one need not be kept twice.
        final = self.folder / coming.digest.hexdigest()[:16] / coming.name
        final.parent.mkdir(exist_ok=True)
        coming.part.replace(final)
        return final


def safe_name(name: str) -> str:
    """The last part of a name from outside, without what a file system or a terminal could take for more than letters."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(letter if letter.isprintable() else "_" for letter in last).strip().lstrip(".") or "file"
    stem, dot, suffix = plain.rpartition(".")
    suffix = (dot + suffix)[:12] if stem else ""
    stem = (stem or plain).encode()[: NAME_BYTES_MAX - len(suffix.encode())].decode(errors="ignore")
    return stem + suffix


def is_clip(path: Path) -> bool:
    """Whether a file is a clip, by its content: any video, and a GIF that carries settings. All else may be a picture."""
    with path.open("rb") as file:
        head = file.read(64)
    if _VIDEO.match(head):
        return True
    if head.startswith(b"GIF8"):
        with suppress(ClipError):
            return "params" in video.read_settings(path)
    return False
