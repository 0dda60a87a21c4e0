"""A comment inside a GIF: the one place that a GIF has for a clip's settings. FFmpeg writes none."""

from __future__ import annotations

from pathlib import Path
from typing import IO


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def insert(path: Path, comment: str) -> None:
    """Put a comment extension, in blocks of up to 255 bytes, right behind the global colour table, instead of older ones."""
    data, text = path.read_bytes(), comment.encode("ascii")
    place = end = 13 + _table_bytes(data[10])
    kept = bytearray()  # the other extensions before the first frame
    while data[end] == ord("!") and data[end + 1] != 0xF9:
        start, end = end, end + 2
        while data[end]:
            end += data[end] + 1
        end += 1
        if data[start + 1] != 0xFE:
            kept += data[start:end]
    blocks = (text[at : at + 255] for at in range(0, len(text), 255))
    body = b"".join(bytes([len(block)]) + block for block in blocks)
    path.write_bytes(data[:place] + b"!\xfe" + body + b"\0" + kept + data[end:])


def read(file: IO[bytes], limit: int) -> str | None:
    """The first comment before the first frame, up to about `limit` bytes; None where there is none.

    Our own reader: Pillow's time grows with the square of the length.
    """
    file.seek(10)
    flags = file.read(1)
    file.seek(13 + _table_bytes(flags[0] if flags else 0))
    while file.read(1) == b"!":
        label, body = file.read(1), bytearray()
        while (size := file.read(1)) and size != b"\0" and len(body) <= limit:
            body += file.read(size[0])
        if label == b"\xfe":
            return body.decode("utf-8", "replace")
    return None
