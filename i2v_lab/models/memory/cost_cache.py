"""Results of runs on fake tensors, kept on disk: a small JSON file each, in the user's cache folder."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from i2v_lab.errors import ModelError
from i2v_lab.portable import cache_folder, write_whole

log = logging.getLogger(__name__)

_memory: dict[str, Mapping[str, int]] = {}
_known_only: ContextVar[bool] = ContextVar("known_only", default=False)


def kept(key: Sequence[Any], run: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
    """The result that was kept under this key, {what: number, 0 or more}; the first time, that of `run`.

    Args:
        key: everything that the result depends on, as JSON takes it.

    Raises:
        ModelError: nothing was kept, inside `known_only`.
    """
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    if name not in _memory:
        found = _read(name)
        if found is None and _known_only.get():
            raise ModelError("it was not predicted before: i2v-lab plan does that")
        _memory[name] = found or _write(name, run())
    return _memory[name]


@contextmanager
def known_only() -> Iterator[None]:
    """Answer from what was kept alone: within milliseconds."""
    token = _known_only.set(True)
    try:
        yield
    finally:
        _known_only.reset(token)


def forget() -> None:
    """Forget what this process keeps; what is on disk stays."""
    _memory.clear()


@functools.cache
def code_of(files: tuple[str | Path, ...]) -> str:
    """A hash of the code that is run, and the versions of the libraries that it runs through."""
    versions = [importlib.metadata.version(package).encode() for package in ("torch", "diffusers", "transformers")]
    return hashlib.sha256(b"".join([*(Path(file).read_bytes() for file in files), *versions])).hexdigest()


def _read(name: str) -> Mapping[str, int] | None:
    place = cache_folder("costs")
    with suppress(OSError, ValueError, AttributeError):  # not there, or damaged: it is run again
        if place:
            found = json.loads((place / f"{name}.json").read_text("utf-8"))
            if found and all(isinstance(value, int) and value >= 0 for value in found.values()):
                return dict(found)
    return None


def _write(name: str, found: Mapping[str, int]) -> Mapping[str, int]:
    if place := cache_folder("costs"):
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(place / f"{name}.json", json.dumps(dict(found)))
        except OSError as error:
            log.info("%s was not kept: %s", name, error)  # it will be run again, no more
    return found
