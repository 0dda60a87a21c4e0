"""run_clip: make a clip and keep it. Notebooks, the command line, the server, sweeps and workers all call it."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.errors import InputError, printable
from i2v_lab.metrics.fill import fill_in
from i2v_lab.models.base import VideoModel
from i2v_lab.run.make import carried_record, clip_stem, make, portable
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def run_clip(
    params: ClipParams,
    model: VideoModel | None = None,
    store: Store | None = None,
    *,
    progress: Progress | None = None,
    settings: Settings | None = None,
    force: bool = False,
    tier: int | None = None,
    sweep: str = "",
    id: str = "",
) -> RunRecord:
    """Make a clip, write it, measure it and record it, whatever happens once it has begun.

    What is refused before that (a picture that cannot be opened, say) leaves no run, unless it is the cell of a sweep.

    Args:
        params: the clip.
        model: loaded; None loads what `params.model` names (and keeps it for the next call).
        store: where the clip and its record go; None: the output folder of the settings.
        progress: receives stages and steps, and may raise Stop.
        settings: format, prefix, device; None reads config.yaml and the environment.
        force: make it even where a clip of the same key exists. Otherwise that record is returned; at another fps its frames are used.
        tier: the tier of the memory ladder to begin on, whatever the plan says; None: the first on which it says that the clip fits.
            Where it fits on none, nothing is begun. A run that runs out of memory all the same goes on up.
        sweep: the sweep that it belongs to.
        id: of this run, from `new_id`; "" makes one. A record with another id that comes back is that of a clip made before.

    Returns:
        The record. Its status is done, or says what went wrong: failed (also where it was refused), out_of_memory or stopped, with
        `reason`. It has metrics, unless a Stop came while they were computed or the log says why not: see `metrics.fill`.

    Raises:
        StoreError: the record could not be written. KeyboardInterrupt: after it was recorded as stopped.
    """
    settings = settings or load_settings()
    kept = store or Store(settings.output.directory)
    id = id or new_id()

    def known(record: RunRecord) -> RunRecord | None:
        return None if force else made_before(record, kept, settings)

    def began(record: RunRecord, picture: Picture) -> None:
        kept.save(record)  # "running": a process that dies from here on, of a model too large say, leaves a trace
        kept.keep_picture(picture.path, picture.sha256)

    with ExitStack() as turns:  # held until it is measured
        made = make(params, kept.clips, model, progress=progress, settings=settings, tier=tier, sweep=sweep, id=id, known=known,
                    began=began, history=kept, turns=turns)  # fmt: skip
        record = made.record
        if made.refused and not sweep:
            return record
        if record.id == id:
            record = kept.adopt(record, made.clip)
        how = record.status if record.id == id else "made this clip before:"
        log.info("run %s: %s %s", record.id, how, record.reason or record.clip)
        if made.interrupted:
            raise KeyboardInterrupt
        return fill_in(record, kept, progress)


def made_before(record: RunRecord, store: Store, settings: Settings) -> RunRecord | None:
    """The record of this very clip; or of its frames at another fps, kept as a clip of this run."""
    assert record.params  # noqa: S101 - a run has them
    ending = f".{settings.output.format}"
    found = store.find_done(record.key, ending, record.params.fps)
    if found is None and (source := store.find_done(record.key, ending)):
        found = store.adopt(*_retimed(record, source, store, settings))
    return found


def _retimed(record: RunRecord, source: RunRecord, store: Store, settings: Settings) -> tuple[RunRecord, Path]:
    """The frames of a clip made before, at the fps of `record`: (its record, the file)."""
    assert record.params  # noqa: S101 - a run has them
    began = time.perf_counter()
    kept = _without_sound(source.notes)
    carried = {
        "params": portable(record.params),
        "record": carried_record(source.model_copy(update={"id": record.id, "notes": kept})),
    }
    info, same = video.retime(
        store.directory / source.clip, store.clips, stem=clip_stem(settings), fps=record.params.fps, settings=carried
    )  # fmt: skip
    seconds = time.perf_counter() - began
    how = "with other timestamps" if same else "encoded again"
    fields = {
        "id": record.id, "params": record.params, "sweep": record.sweep, "created": record.created, "finished": datetime.now(UTC),
        "host": record.host, "pid": record.pid, "retimed_from": source.retimed_from or source.id, "clip": "", "metrics": {},
        "file_bytes": info.file_bytes, "seconds": {"write": seconds, "total": seconds}, "seconds_per_step": None,
        "first_of_shape": None, "ram_rise_gib": None,
        "notes": (*kept, f"the coded pictures of run {source.id}, {how}"),
    }  # fmt: skip
    return source.model_copy(update=fields), info.path


def _without_sound(notes: tuple[str, ...]) -> tuple[str, ...]:
    """The notes of a clip for its pictures at another rate, which are written without its sound."""
    left = "its sound is left out: it was made for another frame rate"
    return tuple(left if note.startswith("with sound") else note for note in notes)


def runs(store: Store | str | os.PathLike[str] | None = None, **only: Any) -> pd.DataFrame:
    """The table of runs as a DataFrame, one row a run; `only` as in Store.runs (sweep, status).

    Args:
        store: a Store, or its output folder: `runs("../results")`. Without it: the output folder in the settings.

    Raises:
        InputError: there is no such folder.
    """
    if isinstance(store, (str, os.PathLike)):
        if not Path(store).is_dir():
            raise InputError(f"runs: {printable(store)}: expected an output folder, such as ../results; there is no such folder")
        store = Store(Path(store))
    return (store or Store(load_settings().output.directory)).runs(**only)
