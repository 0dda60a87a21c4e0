"""How far predicted memory is from what runs here took; and the runs of `i2v-lab verify`, kept beside the user's own in the output folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from i2v_lab.clip.record import RunRecord
from i2v_lab.devices.hardware import GIB
from i2v_lab.errors import I2VLabError
from i2v_lab.models.base import StageCost
from i2v_lab.portable import write_whole
from i2v_lab.store import Store

FOLDER, MARGINS = "measured", "margins.json"
RUNS_CORRECTING = 50  # newest runs whose measured memory corrects a forecast on a GPU
CORRECTION = (0.5, 2.0)  # beyond these a measurement is not believed
RANDOM = ", full, random weights"  # the end of the fingerprint of a network of the real size with random weights
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
        write_whole(directory / FOLDER / MARGINS, json.dumps({**_margins(directory), **margins}))


def margin_bytes(directory: Path, device_name: str, total: int) -> int | None:
    """What to leave free on a device, by what was measured there; None where nothing was."""
    found = _margins(directory).get(device_name)
    return min(int(found * GIB), int(MOST * total)) if isinstance(found, int | float) and found > 0 else None


def _margins(directory: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((directory / FOLDER / MARGINS).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def correction(
    stores: Iterable[Store], model_name: str, device_name: str, fingerprint: str | None,
    cost: Callable[[RunRecord], Sequence[StageCost]],
) -> tuple[float, int]:  # fmt: skip
    """(the median of measured over predicted memory of the newest runs of a model on a GPU, how many they were); (1, 0) without any.

    What was predicted is computed again: the figure in a record was corrected by the runs before it. A run that went up
    the ladder shows the memory of the try that failed, and one of another checkpoint is not of this model's configs.

    Args:
        fingerprint: of a loaded model; None: of any. cost: of a run, as it is predicted now.
    """
    ratios = []
    for record in (one for store in stores for one in store.records(status="done", limit=RUNS_CORRECTING)):
        measured, same = record.peak_vram_allocated_gib, (record.model_name, record.device_name) == (model_name, device_name)
        if not measured or not same or climbed(record) or not _alike(record, fingerprint):
            continue
        with suppress(I2VLabError):  # what this version does not make any more
            ratios.append(measured * GIB / max(stage.total for stage in cost(record)))
    return (min(max(median(ratios), CORRECTION[0]), CORRECTION[1]), len(ratios)) if ratios else (1.0, 0)


def _alike(record: RunRecord, fingerprint: str | None) -> bool:
    """Whether a run was of this model's configs: of the same checkpoint, or of random weights by the published ones."""
    return fingerprint in (None, record.model_fingerprint) or record.model_fingerprint.endswith(RANDOM)


def climbed(record: RunRecord) -> bool:
    """Whether a run ran out of memory on the tier of its prediction: then the measured peak is of both attempts."""
    return record.requested_tier is not None and record.actual_tier != record.requested_tier
