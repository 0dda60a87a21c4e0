"""Task: a clip that is asked for, as one who makes many takes it; and the one who makes them here, one after another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.publish import disk_full, free_bytes
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.errors import Stop
from i2v_lab.run.clip import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store


def anywhere(place: Any) -> bool:
    """A clip that fits on any place of a cluster."""
    return True


@dataclass(frozen=True)
class Task:
    """A clip that is asked for: a cell of a sweep, a row of a batch, a job.

    Attributes:
        number: by which it is known to the one who asked. label: what sets it apart, for screens.
        params: of the clip; None: there can be none, and `reason` says why.
        id: of its run. sweep, force, tier: as for `run_clip`.
        key: of the clip; "" where it is not known yet.
        bytes: that must be free on the disk.
        fits: whether it fits on a place of a cluster.
    """

    number: int
    params: ClipParams | None
    label: str = ""
    reason: str = ""
    id: str = field(default_factory=new_id)
    sweep: str = ""
    force: bool = False
    tier: int | None = None
    key: str = ""
    bytes: float = 0.0
    fits: Callable[[Any], bool] = field(default=anywhere, compare=False, repr=False)


class Watch(Protocol):
    """Who listens to one who makes many clips."""

    @property
    def stop(self) -> Any:
        """A SweepStop: `check(between_cells=...)` raises Stop, `after` says when it is to be."""

    def cell(self, number: int, label: str) -> None:
        """A clip is begun. It may raise Stop: then it is not."""

    def workers(self, states: Any) -> None:
        """What each worker of a cluster is doing. It may raise Stop."""


class Maker(Protocol):
    """One who makes clips: here, or on a cluster."""

    def make(self, tasks: Iterable[Task], watch: Any) -> Generator[tuple[Task, RunRecord], None, None]:
        """Make clips: their records, as they end.

        Raises:
            Stop: it ended early; the records of clips that were cut short are yielded before.
        """


class Here:
    """Makes clips in this process, one after another."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings

    def make(self, tasks: Iterable[Task], watch: Any) -> Generator[tuple[Task, RunRecord], None, None]:
        """As Maker.

        Args:
            watch: a Watch that hears the stages and steps of each clip too.
        """
        for task in tasks:
            watch.cell(task.number, task.label)
            room_for(task, self.store)
            if task.params is None:
                record = refuse(task, self.store, task.reason)
            else:
                record = run_clip(task.params, None, self.store, progress=watch, settings=self.settings, force=task.force,
                                  tier=task.tier, sweep=task.sweep, id=task.id)  # fmt: skip
            yield task, record
            if record.status == "stopped":
                raise Stop(record.reason)


def refuse(task: Task, store: Store, reason: str, **fields: Any) -> RunRecord:
    """The record, kept, of a clip that could not be made: it failed, if `fields` do not say otherwise."""
    known = {"status": "failed", "params": task.params, "sweep": task.sweep, "key": task.key, "finished": datetime.now(UTC)}
    record = RunRecord(**{"id": task.id, "reason": reason, **known, **fields})
    store.save(record)
    return record


def room_for(task: Task, store: Store) -> None:
    """Raises Stop where the disk is too full for the clip."""
    if task.bytes and free_bytes(store.directory) < task.bytes:
        raise Stop(disk_full(store.directory, task.bytes))
