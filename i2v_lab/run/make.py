"""make: params to a clip and its record, without a store, in any process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from i2v_lab import models
from i2v_lab.clip import video
from i2v_lab.clip.key import clip_key, frames_sha256
from i2v_lab.clip.levers import BACKENDS, LEVERS, kept_as
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Listeners, Progress
from i2v_lab.clip.publish import disk_full, is_full
from i2v_lab.clip.record import RunRecord, Status, new_id
from i2v_lab.clip.sound import CODECS, Sound, sound_of
from i2v_lab.clip.video import Frames
from i2v_lab.cost import Forecaster
from i2v_lab.devices.gpus import gpu
from i2v_lab.devices.hardware import cpu_capability, machine, versions
from i2v_lab.devices.meter import Meter
from i2v_lab.devices.turns import turn
from i2v_lab.errors import BadFrames, I2VLabError, ModelError, OutOfMemory, ParamsError, PictureError, Stop, WriteError
from i2v_lab.models.base import VideoModel
from i2v_lab.models.memory.ladder import climb, is_out_of_memory
from i2v_lab.models.memory.tiers import TIERS
from i2v_lab.models.openvino import library as openvino
from i2v_lab.models.parallel import devices_of, key_change, name_of
from i2v_lab.models.stock import lora
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store

log = logging.getLogger(__name__)
_SHAPES: set[tuple[Any, ...]] = set()  # of clips that this process has begun to compute
_NO_MEMORY = "the machine ran out of memory; choose a smaller resolution or fewer frames"


@dataclass(frozen=True)
class Made:
    """What `make` came to.

    Attributes:
        record: how it ended; its `clip` is "" until a store adopts it.
        clip: the clip's file; None where there is none.
        interrupted: whether KeyboardInterrupt ended it.
        refused: whether it failed before it began: nothing was loaded.
    """

    record: RunRecord
    clip: Path | None = None
    interrupted: bool = False
    refused: bool = False


def make(
    params: ClipParams,
    folder: Path,
    model: VideoModel | None = None,
    *,
    progress: Progress | None = None,
    settings: Settings | None = None,
    tier: int | None = None,
    sweep: str = "",
    id: str = "",
    known: Callable[[RunRecord], RunRecord | None] = lambda record: None,
    began: Callable[[RunRecord, Picture], None] = lambda record, picture: None,
    history: Store | None = None,
    turns: ExitStack | None = None,
) -> Made:
    """Make a clip and its record, without a store: in this process or another one, on this machine or another one.

    It takes the device's turn, and waits while another process has it; a thread that has the turn already goes on.

    Args: as `run_clip`, and
        folder: where the clip is written.
        known: called with the record once its key is known: a record that it returns is the answer, and nothing is made.
        began: called before anything is loaded.
        history: whose runs correct the prediction of memory; None: by the configs alone.
        turns: holds the device's turn, until the caller closes it; None: the turn ends with this call.

    Returns:
        What it came to; no error of the run is raised. What `known` and `began` raise that is no I2VLabError is.
    """
    settings = settings or load_settings()
    meter = Meter(settings.device)
    record = RunRecord(id=id or new_id(), status="running", params=params, sweep=sweep, requested_tier=tier)
    run = _Run(params, settings, meter, Listeners(meter, progress or Progress()), record)
    interrupted = False
    try:
        with ExitStack() as own, meter:
            run.prepare(model)
            if found := known(run.record):
                return Made(found)
            with meter.paused():
                waited = (turns or own).enter_context(turn(run.devices, "a clip", run.progress.waiting))
            if waited:
                run.progress.stage("load")  # screens showed the wait
            run.choose_tier(history)
            if found := known(run.record):  # on a tier that changes pixels it is another clip; or it was made meanwhile
                return Made(found)
            run.begun = True
            began(run.record, run.picture)
            run.write(run.generate(), folder)
    except I2VLabError as error:
        run.end(error)
    except KeyboardInterrupt:
        run.end(Stop("interrupted"))
        interrupted = True
    except Exception as error:
        # A fault of ours or of a library: one clip's, not the sweep's. The traceback is in the log.
        log.exception("unexpected error in run %s", run.record.id)
        run.end(_told(error, folder))
    refused = not run.begun and run.record.status == "failed"
    return Made(run.record.model_copy(update=meter.record_fields() | run.elsewhere), run.clip, interrupted, refused)


def _told(error: Exception, folder: Path) -> I2VLabError:
    """What a user is told of an error that nobody expected."""
    if is_out_of_memory(error):
        return OutOfMemory(_NO_MEMORY)
    if is_full(error):
        return WriteError(disk_full(folder))
    return I2VLabError(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}; the log has the details")


class _Run:
    """One run while it goes on: its record grows from step to step."""

    picture: Picture
    handle: models.Handle

    def __init__(self, params: ClipParams, settings: Settings, meter: Meter, progress: Progress, record: RunRecord) -> None:
        self.params, self.settings, self.meter, self.progress = params, settings, meter, progress
        self.record = record
        self.clip: Path | None = None
        self.begun = False
        self.elsewhere: dict[str, float | None] = {}  # fields of the record that other processes measured
        self.full: list[int] = []  # tiers of the memory ladder that it ran out of memory on

    def _update(self, **fields: Any) -> None:
        self.record = self.record.model_copy(update=fields)

    def _note(self, *notes: str) -> None:
        self._update(notes=(*self.record.notes, *notes))

    def prepare(self, model: VideoModel | None) -> None:
        """Open and check, and learn the clip's key. What fails fast comes first."""
        self.progress.stage("load")  # of the picture, of the family's module (torch), of the model
        video.check_format(self.settings.output.format, self.params.fps)
        settings, params = self.settings, self.params
        self.handle = models.open(model or params.model, settings.device, params.dtype, kept_as(params), settings.parallel)
        unused = check_device(self.handle.family, self.settings.device)
        self.picture = open_picture(self.params.image)
        self._update(image_sha256=self.picture.sha256, notes=(*self.picture.notes, *([unused] if unused else [])))
        params = self.params = models.resolve(self.params, lambda: self.picture, self.handle.family)
        self._update(params=params)
        self.handle.check(params)
        _check_not_flat(self.picture.crop(params.height, params.width))
        _check_count(self.devices)
        tier = self.record.requested_tier
        if tier is not None and tier not in self.handle.tiers:
            known, possible = self.handle.identity, ", ".join(map(str, self.handle.tiers))
            raise ParamsError(
                f"tier: expected one of {possible} for {known.name} on {known.device}, got {tier} ({TIERS[tier].name})"
            )
        openvino.check_here(params, self.handle.identity.device)
        self._identify(self.handle.identity)

    @property
    def devices(self) -> tuple[str, ...]:
        """Those that it computes on."""
        return devices_of(self.handle.identity.device, self.handle.parallel)

    def choose_tier(self, history: Store | None) -> None:
        """Predict the memory, and begin on the first tier where it fits, unless one was asked for.

        Raises:
            OutOfMemory: it fits on no tier.
        """
        asked, tiers = self.record.requested_tier, self.handle.tiers
        plan = self._predict(history, asked)
        if asked is None:
            if plan is not None and plan.tier is None:
                raise OutOfMemory(f"{plan.sentence()}; with tier {tiers[-1]} given it is tried all the same")
            self._update(requested_tier=tiers[0] if plan is None else int(plan.tier))
        self._identify(self.handle.identity)

    def _predict(self, history: Store | None, tier: int | None) -> Any:
        """The plan, of one tier or of all; None where there can be none: a fault of ours there must not cost the clip."""
        known = self.handle.identity
        try:
            count, model = self.handle.parallel, self.handle.loaded
            held = getattr(model, "held", 0)
            forecaster = Forecaster(device=known.device, store=history, parallel=count, held=held)
            plan = forecaster.plan(
                self.params, model if count == 1 else None, dtype=known.dtype, tier=tier, advise=tier is None, timed=False
            )
        except Exception as error:
            log.exception("the memory of run %s could not be predicted", self.record.id)
            first = self.handle.tiers[0] if tier is None else tier
            self._note(f"its memory could not be predicted ({type(error).__name__}), so it began on tier {first}")
            return None
        self._update(predicted_peak_gib=plan.peak_gib)
        return plan

    def _identify(self, model: VideoModel | models.Identity) -> None:
        self.meter.device = model.device
        tier = self.record.requested_tier if self.record.actual_tier is None else self.record.actual_tier
        count = self.handle.parallel
        changes = {**self.handle.family.pixel_changes(tier or 0, self.params), **key_change(count)}
        params = models.by_content(self.params)
        assert params  # noqa: S101 - files that are not here are fetched
        self._update(
            key=clip_key(params, self.picture.sha256, model, changes),
            model_name=model.name,
            model_fingerprint=model.fingerprint,
            device=model.device,
            device_name=name_of(str(machine(model.device)["device_name"]), count),
            parallel=count,
            cpu_capability=cpu_capability(),
            dtype=model.dtype,
            versions=versions() | self._more_versions(model.device),
        )

    def _more_versions(self, device: str) -> dict[str, str]:
        """What else this clip's pixels depend on, recorded with the versions, which `again` compares: threads of the CPU, OpenVINO."""
        backend = self.params.backend in BACKENDS
        if device != "cpu" or not (self.handle.family.threads or backend):
            return {}
        import torch

        return {"CPU threads": str(torch.get_num_threads())} | (openvino.versions("openvino", "nncf") if backend else {})

    def generate(self) -> Frames:
        """The frames, made on the first tier that does not run out of memory."""
        tiers = [tier for tier in self.handle.tiers if tier >= (self.record.requested_tier or 0)]
        # Where the weights did not fit, only a tier that leaves them in the machine's memory is worth a try.
        frames = climb(tiers, self._generate, self._ran_out, lambda tier: bool(self.handle.loaded) or TIERS[tier].cuda_only)
        tier = self.record.actual_tier or 0
        if self.full:
            word = "tier" if len(self.full) == 1 else "tiers"
            self._note(f"ran out of memory on {word} {', '.join(map(str, self.full))}, made on tier {tier}")
        self._note(*getattr(self.handle.loaded, "remarks", ()))
        for what, how in self.handle.family.pixel_changes(tier, self.params).items():
            self._note(f"{what} {how} (tier {tier}): pixels differ a little from those of the clip on lower tiers")
        if self.handle.parallel > 1:
            self._note(f"made on {' and '.join(self.devices)} by {self.handle.parallel} processes, which shared the {self.handle.family.shares} "
                       "of each step: pixels differ a little from those of one device")  # fmt: skip
        _check_frames(frames, self.params)
        self._update(frames_sha256=frames_sha256(frames))
        return frames

    def _generate(self, tier: int) -> Frames:
        """The frames, made on one tier of the memory ladder; the model is loaded for it if it is not yet."""
        self._update(actual_tier=tier)
        model = self.handle.load(self.progress, tier)
        self._identify(model)
        model.use_tier(tier)
        params = self.params
        shape = (model.name, model.fingerprint, model.device, model.dtype, tier, params.resolution, params.num_frames,
                 params.scheduler, params.guidance_scale > 1, *(getattr(params, name) for name in LEVERS))  # fmt: skip
        self._update(first_of_shape=shape not in _SHAPES)
        _SHAPES.add(shape)
        frames = model.generate(self.picture, params, self.progress)
        self.elsewhere = getattr(model, "measured", {})
        return frames

    def _ran_out(self, tier: int, why: str) -> None:
        self.full.append(tier)
        log.warning("run %s ran out of memory on tier %d (%s): %s", self.record.id, tier, TIERS[tier].name, why)

    def write(self, frames: Frames, folder: Path) -> None:
        """Write the clip, with its settings and its record inside."""
        self.progress.stage("write", len(frames))
        sound = self._sound(frames)
        seconds = {name: round(value, 4) for name, value in self.meter.seconds.items()}
        info = video.write(
            _ticked(frames, self.progress),
            folder,
            stem=clip_stem(self.settings),
            fps=self.params.fps,
            format=self.settings.output.format,
            settings={"params": portable(self.params), "record": {**carried_record(self.record), "seconds": seconds}},
            sound=sound,
        )
        rows, columns = info.padded
        if rows or columns:
            self._note(f"padded by {rows} row and {columns} column: {info.codec} holds even sizes")
        self.clip = info.path
        self._update(
            status="done", finished=datetime.now(UTC), file_bytes=info.file_bytes, padded_rows=rows, padded_columns=columns
        )

    def _sound(self, frames: Frames) -> Sound | None:
        """The sound that goes into the clip; a note says what became of it."""
        sound, format = sound_of(frames), self.settings.output.format
        if sound is None:
            return None
        if format not in CODECS:
            self._note(f"its sound is left out: a {format.upper()} has none; choose mp4 or webm")
        elif sound.fps != self.params.fps:
            self._note(f"its sound is left out: it was made for {sound.fps} frames/s (condition_fps), and the clip plays at "
                       f"{self.params.fps}; for a clip with sound give both the same value, and --force")  # fmt: skip
        else:
            self._note(f"with sound: {sound}, {CODECS[format]}")
            return sound
        return None

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
               "seconds", "sweep", "retimed_from"}  # fmt: skip


def carried_record(record: RunRecord) -> dict[str, Any]:
    """The record as a clip carries it."""
    return record.model_dump(mode="json", exclude=_NOT_INSIDE)


def clip_stem(settings: Settings) -> str:
    """What the name of a clip begins with."""
    return f"{settings.output.prefix}{datetime.now():%Y%m%d_%H%M%S}"


def portable(params: ClipParams) -> dict[str, Any]:
    """The params as a clip carries them: of the path of a picture, checkpoint or LoRA, the last part alone."""
    plain = params.plain()
    if not params.image.startswith("sample:"):
        plain["image"] = Path(params.image).name
    family, colon, file = params.model.partition(":")
    if colon and models.is_family(family):
        plain["model"] = f"{family}:{Path(file).name}"
    elif Path(params.model).is_absolute() or ".." in Path(params.model).parts:
        plain["model"] = Path(params.model).name
    if params.lora:
        plain["lora"] = lora.portable(params.lora)
    return plain


def check_device(family: type[VideoModel], device: str) -> str:
    """A note where a family runs on the CPU though the settings name another device; "" otherwise.

    Raises:
        ModelError: the settings name a device that is not here. It is raised also for a clip that was made before.
    """
    if device in ("auto", "cpu"):
        return ""
    if getattr(family, "device", "") == "cpu":
        return f"{family.name} runs on the CPU alone, so device {device} is not used"
    if gpu(device) is None:
        kind = {"cuda": "CUDA", "xpu": "Intel XPU", "mps": "Apple MPS"}[device.partition(":")[0]]
        raise ModelError(f"device: expected a device of {kind} as {device}, got a machine where torch sees none; use --device cpu or "
                         "auto, or fix the driver")  # fmt: skip
    return ""


def _check_count(devices: Sequence[str]) -> None:
    missing = [name for name in devices[1:] if gpu(name) is None]
    if missing:
        raise ModelError(
            f"parallel: expected the CUDA devices {', '.join(devices)}, got a machine without {', '.join(missing)}; use fewer"
        )


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


def _ticked(frames: Frames, progress: Progress) -> Iterator[Any]:
    for frame in frames:
        yield frame
        progress.step()
