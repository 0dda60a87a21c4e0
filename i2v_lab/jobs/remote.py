"""Remote: makes the clips of jobs on one worker of a Ray cluster, which it keeps from one job to the next."""

from __future__ import annotations

from contextlib import ExitStack

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.cluster import Pool, WorkerState, open_pool
from i2v_lab.errors import Stop
from i2v_lab.jobs.progress import ClipProgress
from i2v_lab.run.task import Task
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep.look import Looks


class Remote:
    """A worker of the cluster in the settings, from the first clip until `close`.

    Two that share a cluster have a worker each; one that finds none free waits for it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pool: Pool | None = None
        self._settings: Settings | None = None
        self._opened = ExitStack()

    def make(self, params: ClipParams, settings: Settings, progress: ClipProgress, *, force: bool, id: str) -> RunRecord:
        """Make a clip, as `run_clip` does.

        Raises:
            InputError: there is no such cluster, or it has no worker for us. Stop: one was asked for before the clip was begun.
        """
        pool = self._pool_for(settings, progress)
        key = Looks(self.store, settings, pool.places).best(params).key(params)
        records: list[RunRecord] = []
        try:
            records += [record for _, record in pool.make([Task(1, params, id=id, force=force, key=key)], _Watch(progress))]
        except Stop:
            if not records:
                raise
        return records[0]

    def rest(self) -> None:
        """Call this several times a minute between two clips: the worker is kept."""
        if self._pool:
            self._pool.rest()

    def close(self) -> None:
        """Give the worker back."""
        self._pool = None
        self._opened.close()

    def _pool_for(self, settings: Settings, progress: ClipProgress) -> Pool:
        """The pool of one worker; another one where the settings are not those of the job before (the format of the file, say)."""
        if self._pool is None or settings != self._settings:
            self.close()
            one = settings.model_copy(update={"cluster": settings.cluster.model_copy(update={"workers": 1})})
            self._pool, self._settings = self._opened.enter_context(open_pool(self.store, one, progress.waiting)), settings
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
