"""Where converted networks are kept: a folder each in the user's cache, written under another name and renamed when it is whole.

openvino/
    KEY/                 one checkpoint at one size, in one number format, by one version of the libraries
        inputs.npz       what the networks were given in a short run of the model; int8 alone
        unet-0c1d2e3f4a5b/
            model.xml    model.bin    manifest.json
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from i2v_lab.errors import ModelError
from i2v_lab.portable import cache_folder, replace

MANIFEST = "manifest.json"
OLD = 24 * 3600  # seconds after which a folder that is not whole is taken for one that a killed process left


def folder() -> Path:
    """The folder of all converted networks; it need not be there.

    Raises:
        ModelError: the user has no home.
    """
    if place := cache_folder("openvino"):
        return place
    raise ModelError("backend: expected a folder to keep converted networks in, got a user without a home; set XDG_CACHE_HOME")


def size() -> int:
    """Bytes of all converted networks."""
    found = 0
    if (place := cache_folder("openvino")) and place.is_dir():
        for path in place.rglob("*"):
            with suppress(OSError):  # another process removed it
                found += path.stat().st_size if path.is_file() else 0
    return found


def clear() -> int:
    """Remove all converted networks; those that a process has open stay open. Returns the bytes that they took."""
    found = size()
    if place := cache_folder("openvino"):
        shutil.rmtree(place, ignore_errors=True)
    return found


def whole(place: Path) -> Mapping[str, Any] | None:
    """The manifest of a folder of a network; None where there is none, or where a file of it is missing or cut."""
    try:
        manifest = json.loads((place / MANIFEST).read_text("utf-8"))
        sizes = {name: (place / name).stat().st_size for name in manifest["bytes"]}
        return dict(manifest) if sizes == manifest["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(place: Path, write: Callable[[Path], Mapping[str, Any]]) -> None:
    """Have a folder written, and give it its name when it is whole. Where `write` fails or is stopped, nothing is left.

    Args:
        place: the folder's name to be; what is there is replaced.
        write: writes files into the folder that it is given, and returns what the manifest says of them.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    _tidy(place.parent)
    part = place.parent / f".{place.name}-{secrets.token_hex(4)}.part"
    part.mkdir()
    try:
        manifest = {**write(part), "bytes": {path.name: path.stat().st_size for path in sorted(part.iterdir())}}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        if whole(place) is None:  # else another process was first
            shutil.rmtree(place, ignore_errors=True)
            with suppress(OSError):  # the same, a moment ago
                replace(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _tidy(parent: Path) -> None:
    for left in parent.glob(".*.part"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - OLD:
                shutil.rmtree(left, ignore_errors=True)
