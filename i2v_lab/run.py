"""run_clip: the one way from params to a recorded clip. Notebooks, the command line and sweeps all call it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from i2v_lab import models
from i2v_lab.clip import video
from i2v_lab.clip.key import clip_key, frames_sha256
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Listeners, Progress
from i2v_lab.clip.record import RunRecord, Status, new_id
from i2v_lab.clip.video import Frames
from i2v_lab.cost import Forecaster
from i2v_lab.devices.hardware import machine, versions
from i2v_lab.devices.meter import Meter
from i2v_lab.errors import BadFrames, ClipError, I2VLabError, ModelError, OutOfMemory, ParamsError, PictureError, Stop, StoreError
from i2v_lab.metrics.side import measure_later
from i2v_lab.models.base import VideoModel
from i2v_lab.models.memory.ladder import climb, is_out_of_memory
from i2v_lab.models.memory.tiers import TIERS, changes_pixels, pixel_changes
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["clip_key", "frames_sha256", "portable", "restore", "run_clip", "runs"]

log = logging.getLogger(__name__)
_NO_MEMORY = "the machine ran out of memory; choose a smaller resolution or fewer frames"


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
    """Make a clip, write it, measure it and record it, whatever happens.

    Args:
        params: the clip.
        model: loaded; None loads what `params.model` names (and keeps it for the next call).
        store: where the clip and its record go; None: the output folder of the settings.
        progress: hears stages and steps, and may raise Stop.
        settings: format, prefix, device; None reads config.yaml and the environment.
        force: make it even where a finished clip of the same key exists. Otherwise that one's record is returned.
        tier: the tier of the memory ladder to begin on, whatever the plan says; None: the first on which the plan says that
            it fits, and where it fits on none nothing is begun. A run that runs out of memory all the same goes on up.
        sweep: the sweep that it belongs to.
        id: of this run, from `new_id`, for a caller who must know it before; "" makes one. A record with another id that
            comes back is that of a clip made before.

    Returns:
        The record. Its status is done, or says what went wrong: failed, out_of_memory or stopped, with `reason`.
        Metrics come into it a moment later, in the store: the clip is measured on the side (`metrics.side.wait` waits).

    Raises:
        StoreError: the record could not be written. KeyboardInterrupt: after it was recorded as stopped.
    """
    settings = settings or load_settings()
    store = store or Store(settings.output.directory)
    meter = Meter(settings.device)
    run = _Run(params, store, settings, meter, Listeners(meter, progress or Progress()), RunRecord(
        id=id or new_id(), status="running", params=params, sweep=sweep, requested_tier=tier
    ))  # fmt: skip
    try:
        with meter:
            found = run.prepare(model, force)
            if found:
                log.info("run %s made this clip before: %s", found.id, found.clip)
                return found
            run.make()
    except I2VLabError as error:
        run.end(error)
    except MemoryError:
        run.end(OutOfMemory(_NO_MEMORY))
    except KeyboardInterrupt:
        run.end(Stop("interrupted"))
        _saved(run.record.model_copy(update=meter.record_fields()), store)
        raise
    except Exception as error:
        # A fault of ours or of a library: one clip's, not the sweep's. The traceback is in the log.
        log.exception("unexpected error in run %s", run.record.id)
        run.end(_unexpected(error))
    return measure_later(_saved(run.record.model_copy(update=meter.record_fields()), store), store)


def _saved(record: RunRecord, store: Store) -> RunRecord:
    log.info("run %s: %s %s", record.id, record.status, record.reason or record.clip)
    try:
        store.save(record)
    except StoreError as error:
        if record.clip:  # it was worth the wait, and carries its settings
            raise StoreError(f"{error}; the clip was made: {store.directory / record.clip}") from error
        raise
    return record


def _unexpected(error: Exception) -> I2VLabError:
    if is_out_of_memory(error):
        return OutOfMemory(_NO_MEMORY)
    return I2VLabError(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}; the log has the details")


class _Run:
    """One run while it goes on: its record grows from step to step."""

    def __init__(
        self, params: ClipParams, store: Store, settings: Settings, meter: Meter, progress: Progress, record: RunRecord
    ) -> None:
        self.params, self.store, self.settings, self.meter, self.progress = params, store, settings, meter, progress
        self.record = record
        self.model: VideoModel | None = None
        self.full: list[int] = []  # tiers of the memory ladder that it ran out of memory on

    def _update(self, **fields: Any) -> None:
        self.record = self.record.model_copy(update=fields)

    def _note(self, *notes: str) -> None:
        self._update(notes=(*self.record.notes, *notes))

    def prepare(self, model: VideoModel | None, force: bool) -> RunRecord | None:
        """Open, check, find the clip if it was made before, and plan. What fails fast comes first."""
        params, device = self.params, self.settings.device
        self.progress.stage("load")  # of the picture, of the family's module (torch), of the model
        video.check_format(self.settings.output.format, params.fps)
        self.picture = open_picture(params.image)
        self._update(image_sha256=self.picture.sha256, notes=self.picture.notes)
        (model or models.find(params.model)[0]).check(params)
        _check_not_flat(self.picture.crop(params.height, params.width))
        known = model or models.identity(params.model, device, params.dtype)
        if known is None:
            models.fetch(params.model)
            known = models.identity(params.model, device, params.dtype)
        if known is None:
            raise ModelError(f"{params.model}: was fetched and is not there; try again")
        self.model = model or models.kept(params.model, device, params.dtype)
        self._identify(known)
        self.tiers = (model or models.find(params.model)[0]).tiers(known.device)
        if self.record.requested_tier is None:
            if found := self._made_before(force):
                return found
            self._update(requested_tier=self._plan(known))
        elif self.record.requested_tier not in self.tiers:
            possible = ", ".join(map(str, self.tiers))
            raise ParamsError(
                f"tier: expected one of {possible} for {known.name} on {known.device}, got {self.record.requested_tier}"
            )
        else:
            self._foretell(known, self.record.requested_tier)
        self._identify(known)  # on a tier that changes pixels the clip is another
        return self._made_before(force)

    def _made_before(self, force: bool) -> RunRecord | None:
        return None if force else self.store.find_done(self.record.key, f".{self.settings.output.format}")

    def _plan(self, known: VideoModel | models.Identity) -> int:
        """The first tier of the memory ladder on which the clip fits; OutOfMemory where it fits on none."""
        plan = self._foretell(known, None)
        if plan is None:
            return self.tiers[0]
        if plan.tier is None:
            raise OutOfMemory(f"{plan.sentence()}; with tier {self.tiers[-1]} given it is tried all the same")
        return int(plan.tier)

    def _foretell(self, known: VideoModel | models.Identity, tier: int | None) -> Any:
        """The plan, of one tier or of all; None where there can be none: a fault of ours there must not cost the clip."""
        try:
            planner = Forecaster(device=known.device, store=self.store)
            plan = planner.plan(self.params, self.model, dtype=known.dtype, tier=tier, advise=tier is None)
        except Exception as error:
            log.exception("the memory of run %s could not be predicted", self.record.id)
            self._note(f"its memory could not be predicted ({type(error).__name__}), so it began on tier {tier or self.tiers[0]}")
            return None
        self._update(predicted_peak_gib=plan.peak_gib)
        return plan

    def _identify(self, model: VideoModel | models.Identity) -> None:
        self.meter.device = model.device
        tier = self.record.requested_tier if self.record.actual_tier is None else self.record.actual_tier
        self._update(
            key=clip_key(self.params, self.picture, model, pixel_changes(tier or 0, self.params.height, self.params.width)),
            model_name=model.name,
            model_fingerprint=model.fingerprint,
            device=model.device,
            device_name=str(machine(model.device)["device_name"]),
            dtype=model.dtype,
            versions=versions(),
        )

    def _generate(self, tier: int) -> Frames:
        """The frames, made on one tier of the memory ladder; the model is loaded for it if it is not yet."""
        self._update(actual_tier=tier)
        if self.model is None:
            self.model = models.load(self.params.model, self.settings.device, self.params.dtype, self.progress, tier)
        self._identify(self.model)
        self.model.use_tier(tier)
        return self.model.generate(self.picture, self.params, self.progress)

    def _ran_out(self, tier: int, why: str) -> None:
        self.full.append(tier)
        log.warning("run %s ran out of memory on tier %d (%s): %s", self.record.id, tier, TIERS[tier].name, why)

    def _tell_tier(self) -> None:
        tier = self.record.actual_tier or 0
        if self.full:
            word = "tier" if len(self.full) == 1 else "tiers"
            self._note(f"ran out of memory on {word} {', '.join(map(str, self.full))}, made on tier {tier}")
        if changes_pixels(tier, self.params.height, self.params.width):
            self._note(f"decoded in tiles (tier {tier}): pixels differ a little from those of the clip on lower tiers")

    def make(self) -> None:
        """Load, generate, check and write."""
        self.store.save(self.record)  # "running": a process that dies from here on, of a model too large say, leaves a trace
        self.store.keep_picture(self.picture.path, self.picture.sha256)
        tiers = [tier for tier in self.tiers if tier >= (self.record.requested_tier or 0)]
        # Where the weights did not fit, only a tier that leaves them in the machine's memory is worth a try.
        frames = climb(tiers, self._generate, self._ran_out, lambda tier: self.model is not None or TIERS[tier].cuda_only)
        self._tell_tier()
        _check_frames(frames, self.params)
        self._update(frames_sha256=frames_sha256(frames))
        self.progress.stage("write", len(frames))
        inside = {**self.record.model_dump(mode="json", exclude=_NOT_INSIDE), **_plain_meter(self.meter)}
        info = video.write(
            _ticked(frames, self.progress),
            self.store.clips,
            stem=f"{self.settings.output.prefix}{datetime.now():%Y%m%d_%H%M%S}",
            fps=self.params.fps,
            format=self.settings.output.format,
            settings={"params": portable(self.params), "record": inside},
        )
        rows, columns = info.padded
        notes = (f"padded by {rows} row and {columns} column: {info.codec} holds even sizes",) if rows or columns else ()
        self._update(
            status="done",
            finished=datetime.now(UTC),
            clip=info.path.relative_to(self.store.directory).as_posix(),
            file_bytes=info.file_bytes,
            padded_rows=rows,
            padded_columns=columns,
        )
        self._note(*notes)

    def end(self, error: I2VLabError) -> None:
        """The run ends without a clip."""
        status: Status = "failed"
        if isinstance(error, Stop):
            status = "stopped"
        elif isinstance(error, OutOfMemory):
            status = "out_of_memory"
        self._update(status=status, reason=str(error), finished=datetime.now(UTC))


# A clip is sent to other people: what it carries names no folder, host or process of this machine.
_NOT_INSIDE = {"params", "host", "pid", "status", "reason", "clip", "file_bytes", "finished", "padded_rows", "padded_columns",
               "seconds", "sweep"}  # fmt: skip


def _plain_meter(meter: Meter) -> dict[str, Any]:
    return {"seconds": {name: round(value, 4) for name, value in meter.seconds.items()}}


def portable(params: ClipParams) -> dict[str, Any]:
    """The params as a clip carries them: of the picture's path, and of a checkpoint's folder, the last part alone."""
    plain = params.plain()
    if not params.image.startswith("sample:"):
        plain["image"] = Path(params.image).name
    if Path(params.model).is_absolute() or ".." in Path(params.model).parts:
        plain["model"] = Path(params.model).name
    return plain


def _check_not_flat(crop: Frames) -> None:
    if crop.min(axis=(0, 1)).tolist() == crop.max(axis=(0, 1)).tolist():
        raise PictureError(
            "the picture is of one colour where the clip is cut from it: nothing in it can move; use another picture"
        )


def _check_frames(frames: Frames, params: ClipParams) -> None:
    expected = (params.num_frames, params.height, params.width, 3)
    if frames.shape != expected or frames.dtype != np.uint8:
        raise BadFrames(f"expected uint8 frames {expected} of the model, got {frames.dtype} {frames.shape}")
    if (frames == frames[:, :1, :1]).all():
        raise BadFrames("every frame is of one colour: the model failed; try another dtype (float32), seed or scheduler")


def _ticked(frames: Frames, progress: Progress) -> Any:
    for frame in frames:
        yield frame
        progress.step()


def restore(
    clip: Path, store: Store | None = None, image: str | None = None, model: str | None = None
) -> tuple[ClipParams, Mapping[str, Any]]:
    """The settings that made a clip, with a picture and a model that are here: (params, the record that the clip carries).

    What stands in a clip is not trusted. The picture is known by its hash, and is looked for in the store, beside the
    clip and in the current folder. Nothing is fetched from a hub id that only the clip names.

    Args:
        image: the picture, instead of looking for it. It must be the same.
        model: the model, instead of the one that the clip names.

    Raises:
        ClipError: not a clip, no settings inside, or such as this version does not take.
        PictureError: the picture is not here, or `image` is another. ModelError: the model is not here.
    """
    inside = video.read_settings(clip)
    record, carried = inside.get("record"), inside.get("params")
    sha256 = record.get("image_sha256") if isinstance(record, dict) else None
    if not isinstance(carried, dict) or not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ClipError(f"{clip}: expected the settings of a clip of i2v_lab, got other metadata")
    try:
        params = ClipParams(**carried)
    except ParamsError as error:
        raise ClipError(f"{clip}: carries settings that this version does not take: {error}") from None
    assert isinstance(record, dict)  # noqa: S101 - it had the hash
    made = store.find_done(str(record.get("key"))) if store else None
    here = model or _model_here(params.model, made.params.model if made and made.params else "")
    return params.replace(model=here, image=_picture_here(clip, params.image, sha256, store, image)), record


def _picture_here(clip: Path, carried: str, sha256: str, store: Store | None, image: str | None) -> str:
    """A picture with this hash."""
    if image is not None:
        if (found := open_picture(image).sha256) != sha256:
            raise PictureError(f"{image}: expected the picture that the clip was made from, sha256 {sha256[:16]}…, "
                               f"got another, {found[:16]}…; name that one")  # fmt: skip
        return image
    # Of the path in the clip only the last part is used.
    name = carried if carried.startswith("sample:") else Path(carried).name
    kept = store.find_picture(sha256) if store else None
    for candidate in (kept, name if carried.startswith("sample:") else clip.parent / name, name):
        with suppress(PictureError):
            if candidate and open_picture(candidate).sha256 == sha256:
                return str(candidate)
    raise PictureError(f"expected the picture with sha256 {sha256[:16]}… that the clip was made from; {name!r} was not found in "
                       "the output folder, beside the clip or in the current folder: name it with --image")  # fmt: skip


def _model_here(carried: str, made_with: str) -> str:
    """The model that a clip names, if it is known without trusting the clip; `made_with` is what the store says."""
    if carried in models.FAMILIES or carried in models.CHECKPOINTS.values():
        return carried
    folder = Path(carried)
    inside = [] if folder.is_absolute() or ".." in folder.parts else [carried]
    for place in (made_with, *inside, str(models.CHECKPOINT_FOLDER / folder.name)):
        if place and (Path(place).expanduser() / "model_index.json").is_file():
            return place
    raise ModelError(f"expected the checkpoint that the clip was made with, {carried!r}, and found none of that name here: "
                     "name its folder or hub id with --model")  # fmt: skip


def runs(store: Store | None = None, **only: Any) -> pd.DataFrame:
    """The table of runs as a DataFrame, one row a run; `only` as in Store.runs (sweep, status).

    Without a store: that of the output folder in the settings.
    """
    return (store or Store(load_settings().output.directory)).runs(**only)
