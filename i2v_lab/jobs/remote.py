"""Remote: makes the clips of jobs on one worker of a Ray cluster, and keeps it from one job to the next."""

from __future__ import annotations

from contextlib import ExitStack

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.cluster import Pool, WorkerState, open_pool
from i2v_lab.errors import I2VLabError, Stop
from i2v_lab.jobs.progress import ClipProgress
from i2v_lab.run.task import Task
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep.look import Looks


class Remote:
    """A worker of the cluster in the settings, once one is wanted. It is kept until `close`, or until others want its device."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """Args:
        settings: of jobs that have none of their own.
        """
        self.store, self.usual = store, settings
        self._pool: Pool | None = None
        self._settings: Settings | None = None
        self._opened = ExitStack()

    def make(self, params: ClipParams, settings: Settings, progress: ClipProgress, *, force: bool, id: str) -> RunRecord:
        """Make a clip and keep it. Whatever goes wrong with it is in its record, also what the worker refuses.

        Raises:
            I2VLabError: there is no such cluster, or the clip is refused before a worker has it. Stop: before the clip was begun.
        """
        pool = self._pool_for(settings)
        if not pool.places:
            pool.open(progress.waiting)
        key = Looks(self.store, settings, pool.places).best(params).key(params)
        records: list[RunRecord] = []
        try:
            for _, record in pool.make([Task(1, params, id=id, force=force, key=key)], _Watch(progress)):
                records.append(record)  # one by one: a Stop may follow it
        except Stop:
            if not records:
                raise
        return records[0]

    def ready(self) -> bool:
        """Whether there is a worker for the next clip, or it will say why there is none; one is asked for. It does not wait."""
        try:
            return self._pool_for(self._settings or self.usual).ready()
        except I2VLabError:
            return True

    def rest(self) -> None:
        """Call this several times a second between two clips: the worker is kept where nobody else wants its device."""
        if self._pool and self._pool.places:
            self._pool.rest()

    def close(self) -> None:
        """Give the worker back."""
        self._pool = None
        self._opened.close()

    def _pool_for(self, settings: Settings) -> Pool:
        """The pool of one worker; another one where the settings are not those of the job before (the format of the file, say)."""
        if self._pool is None or settings != self._settings:
            self.close()
            one = settings.model_copy(update={"cluster": settings.cluster.model_copy(update={"workers": 1})})
            self._pool, self._settings = self._opened.enter_context(open_pool(self.store, one, None)), settings
        return self._pool


class _Watch:
    """Passes what the worker says of its clip on to the progress of the job, and a stop of the job to the pool. It is a Watch."""

    after = "step"

    def __init__(self, progress: ClipProgress) -> None:
        self.progress, self.stop = progress, self

    def check(self, *, between_cells: bool = False) -> None:
        self.progress.pulse()

    def cell(self, number: int, label: str) -> None:
        self.progress.pulse()

    def workers(self, states: tuple[WorkerState, ...]) -> None:
        for one in states:
            if one.cell:
                self.progress.elsewhere(one)
