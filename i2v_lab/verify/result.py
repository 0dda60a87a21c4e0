"""What a check found, and the whole report: a table for people, and a JSON that can be sent to others.

The JSON's fields are listed in docs/gpu.md. It holds no path, no user name and no host name: what goes in passes through `clean`.
"""

from __future__ import annotations

import getpass
import json
import math
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA = "i2v_lab.verify/1"
Status = Literal["passed", "failed", "not run"]

# A path of two parts or more, of any system; `models/x` alone may be a hub id.
_PATH = re.compile(
    r"""(?:(?<![\w.~/\\])~?(?:/[^\s/'"<>:;,()]+){2,}/?)|(?:(?<!\w)~/[^\s'"<>:;,()]+)|(?:\b[A-Za-z]:\\[^\s'"<>;,()]+)"""
)


@dataclass(frozen=True)
class Result:
    """What one check found.

    Attributes:
        name: of the check, such as "tiers i2vgen-xl".
        status: passed, failed, or not run.
        line: what was found, in a sentence; or why it was not run.
        figures: by name; the unit is at the end of the name: _gib, _s, _levels (grey levels of 255).
    """

    name: str
    status: Status
    line: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class NotHere(Exception):
    """Raised by a check that does not apply to this machine or this model: the text says why."""


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        device: what the device is. versions: of what a clip depends on. pinned: {package: version} of those that are not the pinned one.
        minutes: that it had. seconds: that it took.
        results: in the order in which they were made. predictions: of presets, by what was measured.
    """

    device: Mapping[str, Any]
    versions: Mapping[str, str]
    pinned: Mapping[str, str]
    minutes: float
    seconds: float
    results: Sequence[Result]
    predictions: Sequence[Mapping[str, Any]]

    @property
    def failed(self) -> list[Result]:
        """The checks that failed."""
        return [result for result in self.results if result.status == "failed"]

    def plain(self) -> dict[str, Any]:
        """As JSON has it, without anything that says whose machine it is."""
        whole = {"schema": SCHEMA, **asdict(self), "seconds": round(self.seconds, 1)}
        found: dict[str, Any] = clean(json.loads(json.dumps(whole, default=str)))
        return found


def clean(value: Any) -> Any:
    """A JSON value in whose texts paths, the user's name and the host's are replaced by <path>, <user>, <host>."""
    if isinstance(value, dict):
        return {clean(name): clean(part) for name, part in value.items()}
    if isinstance(value, list):
        return [clean(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if not isinstance(value, str):
        return value
    places, names = _known()
    for place in places:
        value = value.replace(place, "<path>")
    value = _PATH.sub("<path>", value)
    for name, word in names:
        value = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", word, value)
    return value


def _known() -> tuple[list[str], list[tuple[str, str]]]:
    """What must not be in the JSON: folders, which may have spaces in them; names, and what is in their place. The longest first."""
    places, host, user = [], socket.gethostname(), ""
    with suppress(OSError, RuntimeError):
        places = [place for place in (str(Path.home()), str(Path.cwd())) if len(place) > 1]
    with suppress(OSError, KeyError, ImportError):
        user = getpass.getuser()
    names = {(host, "<host>"), (host.partition(".")[0], "<host>"), (user, "<user>")}
    return sorted(places, key=len, reverse=True), sorted((pair for pair in names if pair[0]), key=lambda pair: -len(pair[0]))
