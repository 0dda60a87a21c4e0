"""What `i2v-lab verify` measured on this machine: runs that forecasts learn from, kept beside the user's own in the output folder."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from i2v_lab.clip.record import RunRecord
from i2v_lab.devices.hardware import GIB
from i2v_lab.portable import replace
from i2v_lab.store import Store

FOLDER, MARGINS = "measured", "margins.json"
MOST = 0.5  # of a device's memory: a margin beyond that is of other programs


def measured_store(directory: Path) -> Store | None:
    """The store of verify's runs in an output folder; None where verify kept none there."""
    return Store(directory / FOLDER) if (directory / FOLDER).is_dir() else None


def keep(directory: Path, records: Iterable[RunRecord], margins: Mapping[str, float]) -> None:
    """Keep runs, whose clips are gone.

    Args:
        directory: the output folder.
        margins: {name of a device: GiB that its driver gave beside what tensors took, at most}.
    """
    store = Store(directory / FOLDER)
    store.save_many(record.model_copy(update={"clip": "", "sweep": ""}) for record in records)
    if margins:
        place = directory / FOLDER / MARGINS
        part = place.with_name(f".{secrets.token_hex(4)}.part")
        part.write_text(json.dumps({**_margins(directory), **margins}), "utf-8")
        replace(part, place)


def margin_bytes(directory: Path, device_name: str, total: int) -> int | None:
    """What to leave free on a device, by what was measured there; None where nothing was."""
    found = _margins(directory).get(device_name)
    return min(int(found * GIB), int(MOST * total)) if isinstance(found, int | float) and found > 0 else None


def _margins(directory: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((directory / FOLDER / MARGINS).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
