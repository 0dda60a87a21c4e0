"""Metrics in the records of runs: each clip is measured after it is made, while nothing else computes on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable

from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord
from i2v_lab.devices.turns import turn
from i2v_lab.errors import I2VLabError, Stop
from i2v_lab.metrics import measure_run
from i2v_lab.store import Store

log = logging.getLogger(__name__)

NEWEST = "noise_frames"  # the metric that was added or changed last: clips without it are measured again


def later(line: str) -> None:
    """Another process computes on the CPU: the clip is measured another time."""
    raise Stop(line)


def fill_in(record: RunRecord, store: Store, progress: Progress | None = None, waiting: Callable[[str], None] = later) -> RunRecord:
    """Measure the clip of a run, and save its record with the metrics. Never raises for what a clip is like.

    Args:
        progress: hears a stage "measure", and may raise Stop: then the clip has no metrics yet.
        waiting: called while another process computes on the CPU, as for `turn`.

    Returns:
        The record, with metrics unless the clip could not be measured now: then the log says why. A run without a clip, or
        with all metrics, is returned as it is.
    """
    if record.status != "done" or NEWEST in record.metrics or not record.clip:
        return record
    progress = progress or Progress()
    try:
        with turn(("cpu",), "a clip", waiting):
            progress.stage("measure")
            values = measure_run(record, store, progress).values
        store.set_metrics(record.id, values)
        return record.model_copy(update={"metrics": values})
    except (I2VLabError, MemoryError, OSError) as error:
        log.warning("run %s was not measured: %s", record.id, error)
    except Exception:  # a fault of ours or of a library must not cost a clip that is made
        log.exception("unexpected error: run %s was not measured", record.id)
    return record


def missing(store: Store) -> list[RunRecord]:
    """The runs that are done and lack metrics, though their clip is there: not measured, or by an older version."""
    without = store.records(status="done", lacking=NEWEST)
    return [record for record in without if record.clip and (store.directory / record.clip).is_file()]
