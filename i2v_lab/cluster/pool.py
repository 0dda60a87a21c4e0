"""Pool: clips on the workers of a Ray cluster. This process alone writes the store; clips and records come back as they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.publish import partial_file, publish, writing
from i2v_lab.clip.record import RunRecord
from i2v_lab.cluster.place import Place, WorkerState
from i2v_lab.cluster.staff import Seat, Staff
from i2v_lab.errors import I2VLabError, Stop, WriteError
from i2v_lab.metrics.fill import fill_in
from i2v_lab.run.clip import made_before
from i2v_lab.run.make import clip_stem
from i2v_lab.run.task import Task, Watch, refuse, room_for
from i2v_lab.settings import Settings
from i2v_lab.store import Store

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1  # between two looks where nothing ends
SILENT_SECONDS = 15.0  # that a stop waits for a worker that does not answer
TRIES = 2  # of a clip whose worker died
Ended = list[tuple[Task, RunRecord]]


class Pool:
    """Makes clips on workers, one on each device. It is a Maker.

    Attributes:
        store: where clips and records go.
        queue: tasks that no worker has begun.
        stopping: why nothing more is begun; "" while it goes on.
    """

    def __init__(self, store: Store, settings: Settings, scratch: Path | None = None) -> None:
        """Args:
        scratch: as of Staff.
        """
        self.store, self.settings = store, settings
        self.staff = Staff(settings, scratch)
        self.queue: list[Task] = []
        self.stopping = ""
        self._deaths: dict[str, list[str]] = {}  # {run: how its workers ended}
        self._pictures: dict[str, tuple[Any, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End all workers. Clips that they were making are recorded as stopped."""
        self.abandon()
        self.staff.close()

    def open(self, waiting: Callable[[str], None]) -> None:
        """Wait until the workers are there; see `open_pool`."""
        self.staff.gather(waiting)

    @property
    def places(self) -> list[Place]:
        """The devices of the workers that are there."""
        return self.staff.places

    @property
    def busy(self) -> bool:
        """Whether something waits or is being made."""
        return bool(self.queue or self._running)

    def states(self) -> tuple[WorkerState, ...]:
        """What each worker is doing."""
        return tuple(seat.state() for seat in self.staff.seats if seat.place)

    def ask(self, *tasks: Task) -> None:
        """Have clips made, by and by; `step` says when."""
        self.queue += tasks

    def step(self, seconds: float = POLL_SECONDS, begin: Callable[[Task], None] = lambda task: None) -> Ended:
        """Give waiting tasks to workers, and wait up to `seconds` for some to end. Call it again and again while the pool is busy.

        Args:
            begin: called with each task before a worker has it. Stop raised by it empties the queue.

        Returns:
            The tasks that ended, and their records, which are kept in the store.

        Raises:
            InputError: no worker can be started. StoreError: a record cannot be written.
        """
        self.staff.fill(len(self.queue) + len(self._running))
        ended = self._dispatch(begin)
        back = [self._result(seat, begin, ended) for seat in self.staff.wait(seconds)]
        self.staff.look()
        return ended + [one for one in back if one]

    def ready(self) -> bool:
        """Ask for a worker without waiting for it. Returns whether there is one; call it several times a second.

        Raises:
            InputError: there can be none.
        """
        self.staff.fill(1)
        self.staff.check()
        return bool(self.places)

    def rest(self) -> None:
        """Keep the worker that is there while nothing is asked, as long as no one else wants its device."""
        self.staff.fill(0)
        self.staff.look()

    def stop(self, reason: str, *ids: str) -> None:
        """End runs within a step; without ids all, and nothing more is begun. Their records come by `step`."""
        if not ids:
            self.stopping = self.stopping or reason
            self.queue.clear()
        for seat in self._running:
            if seat.task and (not ids or seat.task.id in ids):
                seat.talk("stop", seat.task.id, reason)

    def abandon(self) -> None:
        """End at once: workers that make something are killed, and their runs are recorded as stopped."""
        self.queue.clear()
        for seat in self._running:
            if seat.task:
                with suppress(I2VLabError):
                    refuse(seat.task, self.store, self.stopping or "interrupted", status="stopped")
            self.staff.let_go(seat)

    def make(self, tasks: Iterable[Task], watch: Watch) -> Generator[tuple[Task, RunRecord], None, None]:
        """As Maker; the clips end in any order."""
        self.stopping = ""
        self._pictures.clear()  # their files may have changed
        self.ask(*tasks)
        try:
            while self.busy:
                self._check(watch)
                yield from self.step(begin=lambda task: watch.cell(task.number, task.label))
        finally:
            self.abandon()
        if self.stopping:
            raise Stop(self.stopping)

    def _check(self, watch: Watch) -> None:
        """Hear whether to stop, after these clips or after this step."""
        try:
            watch.workers(self.states())
            watch.stop.check(between_cells=True)
        except Stop as reason:
            if watch.stop.after == "cell":
                self.stopping = self.stopping or str(reason)
                self.queue.clear()
            else:
                self.stop(str(reason))
        for seat in self._running if self.stopping else ():
            if seat.task and seat.silent > SILENT_SECONDS:  # its machine hangs: the others have ended
                refuse(seat.task, self.store, self.stopping, status="stopped")
                self.staff.let_go(seat)

    @property
    def _running(self) -> list[Seat]:
        return [seat for seat in self.staff.seats if seat.task]

    def _dispatch(self, begin: Callable[[Task], None]) -> Ended:
        """Give each worker that has nothing to do a task. Returns those that need no worker."""
        ended: Ended = []
        free = [seat for seat in self.staff.seats if seat.place and not seat.task]
        while free and self.queue:
            # The smallest device chooses first: what it cannot hold is left for the others.
            seat = min(free, key=lambda one: one.place.bytes if one.place else 0)
            task = self._choose(seat)
            if task is None:
                free.remove(seat)
                continue
            self.queue.remove(task)
            try:
                if task.id not in self._deaths:
                    begin(task)
                    room_for(task, self.store)
            except Stop as reason:
                self.stopping = self.stopping or str(reason)
                self.queue.clear()
                break
            if record := self._begin(seat, task):
                ended.append((task, record))
            else:
                free.remove(seat)
        return ended

    def _choose(self, seat: Seat) -> Task | None:
        """What no lesser device can hold comes first, then what needs no other model, then the order of the tasks."""
        place = seat.place
        assert place  # noqa: S101 - it is there
        lesser = {one.kind: one for one in self.places if one.bytes < place.bytes}.values()
        making = {one.task.key for one in self._running if one.task and one.task.key}  # the same clip: it will be there

        def rank(at: int) -> tuple[bool, bool, int]:
            task = self.queue[at]
            return any(task.fits(one) for one in lesser), _load(task) != seat.loaded, at

        can = (at for at, task in enumerate(self.queue) if task.key not in making and task.fits(place))
        return None if (best := min(can, key=rank, default=None)) is None else self.queue[best]

    def _begin(self, seat: Seat, task: Task) -> RunRecord | None:
        """Have a worker begin; or the record of a clip that needs none."""
        if task.params is None:
            return refuse(task, self.store, task.reason)
        record = RunRecord(id=task.id, status="running", params=task.params, sweep=task.sweep, key=task.key)
        try:
            if found := self._known(record, task):
                return found
            picture, name = self._picture(task.params.image)
        except I2VLabError as error:
            return refuse(task, self.store, str(error))
        self.store.save(record)  # as of this process: if it is killed, the run has ended
        seat.begin(task, _load(task), picture, name)
        return None

    def _known(self, record: RunRecord, task: Task) -> RunRecord | None:
        """The record of a clip that is there already; its frames at another rate are measured here."""
        if task.force or not task.key or not (found := made_before(record, self.store, self.settings)):
            return None
        return fill_in(found, self.store) if found.id == record.id else found

    def _picture(self, image: str) -> tuple[Any, str]:
        """The bytes of a picture, sent to the cluster once, and the name of its file; None of a sample."""
        if image.startswith("sample:"):
            return None, ""
        if image not in self._pictures:
            picture = open_picture(image)
            kept = self.store.keep_picture(picture.path, picture.sha256)
            self._pictures[image] = (self.staff.send(kept.read_bytes()), picture.path.name)
        return self._pictures[image]

    def _result(self, seat: Seat, begin: Callable[[Task], None], ended: Ended) -> tuple[Task, RunRecord] | None:
        """What came of a worker's task. The worker has its next one before the clip is written."""
        task = seat.task
        assert task  # noqa: S101 - it had one
        found = seat.take()
        if isinstance(found, str):  # the worker is gone
            self.staff.let_go(seat)
            return self._lost(task, found)
        if isinstance(found, BaseException):
            return task, refuse(
                task, self.store, f"unexpected {type(found).__name__} on {seat.where}: {' '.join(str(found).split())[:500]}"
            )
        self.staff.fill(len(self.queue) + len(self._running))
        ended += self._dispatch(begin)
        return task, self.keep(task, *found)

    def _lost(self, task: Task, how: str) -> tuple[Task, RunRecord] | None:
        """A worker died: its task is made again on another, once."""
        log.warning("run %s: its worker is gone: %s", task.id, how)
        deaths = self._deaths.setdefault(task.id, [])
        deaths.append(how)
        if self.stopping:
            return task, refuse(task, self.store, self.stopping, status="stopped")
        if len(deaths) < TRIES:
            self.queue.insert(0, task)
            return None
        return task, refuse(task, self.store, f"its workers died: {'; '.join(deaths)}")

    def keep(self, task: Task, text: str, data: bytes) -> RunRecord:
        """The clip and its record become this store's. Of what a worker says no name or place is used."""
        asked = task.params
        assert asked  # noqa: S101 - a worker had it
        try:
            record = RunRecord.model_validate_json(text)
        except ValidationError:
            return refuse(task, self.store, "the worker sent a record that cannot be read")
        own = {name: getattr(asked, name) for name in ("image", "model", "lora")}
        notes = [f"made again: its first worker died ({how})" for how in self._deaths.pop(task.id, [])]
        fields = {"id": task.id, "sweep": task.sweep, "clip": "", "params": (record.params or asked).replace(**own),
                  "notes": (*record.notes, *notes)}  # fmt: skip
        record = record.model_copy(update=fields)
        clip: Path | None = None
        if record.status == "done":
            stem, format = clip_stem(self.settings), self.settings.output.format
            try:
                with partial_file(self.store.clips, stem, format) as part, writing(self.store.clips):
                    with part.open("wb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                    clip = publish(part, self.store.clips, stem, format)
            except WriteError as error:
                return refuse(task, self.store, str(error))
        return self.store.adopt(record, clip)


def _load(task: Task) -> tuple[str, str]:
    """What has to be loaded for a task."""
    return (task.params.model, task.params.dtype) if task.params else ("", "")
