"""What the checks share: the models to try, clips made the way that all clips are made, and what each took."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from i2v_lab import models
from i2v_lab.clip.levers import kept_as
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Listeners, Progress
from i2v_lab.clip.record import RunRecord
from i2v_lab.clip.video import Frames
from i2v_lab.devices.gpus import module_of
from i2v_lab.devices.hardware import GIB
from i2v_lab.devices.meter import trim
from i2v_lab.errors import I2VLabError, ModelError, Stop
from i2v_lab.models.base import VideoModel
from i2v_lab.models.memory.ladder import free
from i2v_lab.models.memory.tiers import NETWORKS, bytes_of
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.stock.cost_spec import CONFIGS
from i2v_lab.models.stock.watch import networks
from i2v_lab.run.make import make
from i2v_lab.settings import Settings
from i2v_lab.verify.networks import SMALL, random_model
from i2v_lab.verify.result import NotHere

FIRST = ("i2vgen-xl", "wan2.2-ti2v-5b", "wan2.1-i2v-480p")
"""The families that are tried first: our own pipeline, one of 5 billion parameters, one of 14."""
PROMPT, SEED, STEPS = "a boat sails by", 5, 3
SMALL_CLIPS: dict[str, dict[str, Any]] = {
    "i2vgen-xl": {"resolution": "64x320", "num_frames": 3},  # wide enough for tiles
    "wan2.2-ti2v-5b": {"resolution": "64x96", "num_frames": 9},
    "svd": {"resolution": "64x64", "num_frames": 3},
}
OVER = "the time was over"


@dataclass
class Clip:
    """A clip as it was made.

    Attributes:
        record: of the run; its status says how it ended. frames: None where there are none.
        allocated, reserved: bytes at the highest point: of tensors, and of what torch's allocator held. On a CPU, tensors alone.
        driver: bytes that the driver said are in use on the device when the model had worked; None without a GPU that says so.
        refused: whether the family cannot make it here: nothing was begun.
    """

    record: RunRecord
    frames: Frames | None = None
    allocated: int | None = None
    reserved: int | None = None
    driver: int | None = None
    refused: bool = False

    def whole(self) -> Frames:
        """Its frames. I2VLabError, with the reason, where there are none."""
        if self.refused or self.record.status == "stopped":
            raise NotHere(self.record.reason if self.refused else OVER)
        if self.frames is None or self.record.status != "done":
            raise I2VLabError(f"{self.record.status}: {self.record.reason}")
        return self.frames

    @property
    def seconds(self) -> dict[str, float]:
        """Of the stages that the model works in."""
        return {name: value for name, value in self.record.seconds.items() if name in ("encode", "denoise", "decode")}


class Subject:
    """A model to try: with the weights that are here, or with random ones.

    Attributes:
        family: the class. name: of the family. weights: "real", "random" or "none" (the family needs none).
    """

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.asked = bench, name
        self.family, checkpoint = models.find(name)
        self.name = self.family.name
        self.weights = "none" if not checkpoint and self.name == "closed-form" else "random"
        asked_for = bench.full or not models.is_family(name)  # of a family's real weights a CPU makes no clip in minutes
        if self.weights == "random" and asked_for and models.open(name, bench.device).identity_here is not None:
            self.weights = "real"
        if self.weights == "random" and not bench.can(self.name):
            raise ModelError(f"{self.name}: its weights are not here, and no {'configs' if bench.full else 'small network'} of it "
                             f"to make random ones by; choose {', '.join(SMALL)}, or give a checkpoint's folder")  # fmt: skip
        self._model: VideoModel | None = None

    def params(self, **fields: Any) -> ClipParams:
        """A clip of this family that is quick to make: small on a CPU, otherwise as its preset "quick"; three steps."""
        own = (
            SMALL_CLIPS.get(self.name, {"resolution": "64x96", "num_frames": 4})
            if not self.bench.full
            else dict(self.family.presets.get("quick") or self.family.presets["standard"])
        )
        words = {"prompt": PROMPT} if "prompt" in self.family.reads else {}
        return models.resolve(ClipParams(**{
            "model": self.asked, "image": "sample:coffee", **own, "seed": SEED, "num_inference_steps": STEPS, **words, **fields
        }))  # fmt: skip

    def model(self, tier: int = 0, quantization: str = "") -> VideoModel:
        """The model, made or loaded at the first call, for a tier; made again for another quantization. "": as it is."""
        if self._model is not None and quantization not in ("", getattr(self._model, "quantization", "none")):
            self.drop()
        quantization = quantization or "none"
        if self._model is None:
            self.bench.drop()  # two rarely fit
            if self.weights == "random":
                self._model = random_model(self.name, self.bench.device, full=self.bench.full, tier=tier, quantization=quantization)
            else:
                self._model = models.open(self.asked, self.bench.device, quantization=quantization).load(tier=tier)
        return self._model

    def drop(self) -> None:
        """Let go of the model."""
        self._model = None
        models.unload()


@dataclass
class Bench:
    """One call of `verify`.

    Attributes:
        device: "cpu", "cuda:0". full: whether networks are of the real size.
        folder: where clips are written; they are deleted at once. until: when the time is over, by time.monotonic().
        baseline: bytes in use on the device before the first model, with what the driver needs itself; None on a CPU.
        screen: hears the stages. made: every clip that ended well, by (family, tier).
    """

    device: str
    full: bool
    folder: Path
    until: float
    screen: Progress = field(default_factory=Progress)
    made: list[tuple[Subject, Clip]] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = Settings(device=self.device)
        self.baseline = _begun(self.device)

    def add(self, name: str) -> Subject:
        """A model to try."""
        self.subjects.append(Subject(self, name))
        return self.subjects[-1]

    def can(self, name: str) -> bool:
        """Whether a family can be tried here without weights: on a CPU those that a small network is known of."""
        return name in SMALL or name == "closed-form" or (self.full and (CONFIGS / f"{name}.json").is_file())

    def drop(self) -> None:
        """Let go of all models, and give their memory back."""
        for subject in self.subjects:
            subject.drop()
        free()

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.until

    def clip(
        self, subject: Subject, *, tier: int | None = None, listener: Progress | None = None, track: bool = False, **fields: Any
    ) -> Clip:  # fmt: skip
        """Make a clip, the way that all clips are made.

        Args:
            tier: of the memory ladder to begin on. listener: hears its stages too. fields: of ClipParams.
            track: whether to follow the tensors on a CPU, which takes time.
        """
        params = subject.params(**fields)
        model = subject.model(tier or 0, kept_as(params))
        if tier is not None and tier != model.tier:
            model.use_tier(tier)  # before memory is measured: the weights of the tier before are on the device still
        if self.device != "cpu":
            free()  # what the allocator kept of the clip before would count as what this one needs
        found = Clip(RunRecord(id="none", status="failed"))
        with _watched(model, found, track=track):
            made = make(params, self.folder, model, settings=self.settings, tier=tier,
                        progress=Listeners(self.screen, Deadline(self.until), listener or Progress()))  # fmt: skip
        if made.interrupted:
            raise KeyboardInterrupt
        if made.clip:
            made.clip.unlink(missing_ok=True)
        found.record, found.refused = made.record, made.refused
        if (allocated := made.record.peak_vram_allocated_gib) is not None:
            found.allocated, found.reserved = round(allocated * GIB), round((made.record.peak_vram_reserved_gib or 0) * GIB)
        if made.record.status == "done":
            self.made.append((subject, found))
        return found

    def held(self) -> int:
        """Bytes that tensors take on the device now; 0 on a CPU."""
        module = module_of(self.device)
        if module is None:
            return 0
        return int(module.current_allocated_memory() if self.device == "mps" else module.memory_allocated(self.device))


def first_clip(bench: Bench, subject: Subject, **how: Any) -> Callable[[], Clip]:
    """A clip on the first tier of a subject, made when it is asked for, once; `how` is as in `Bench.clip`."""
    return cache(lambda: bench.clip(subject, tier=subject.family.tiers(bench.device)[0], **how))


class Deadline(Progress):
    """Ends a clip half a minute after the time is over."""

    def __init__(self, until: float) -> None:
        self.until = until + 30

    def _raise_if_over(self, *heard: Any, **more: Any) -> None:
        if time.monotonic() > self.until:
            raise Stop(OVER)

    step = pulse = waiting = _raise_if_over


@contextmanager
def _watched(model: VideoModel, found: Clip, *, track: bool) -> Iterator[None]:
    """Inside, what the model makes is put into `found`; with `track` the memory that its tensors take on a CPU."""
    true = model.generate

    def generate(*given: Any) -> Frames:
        weights = networks_of(model)
        if model.device != "cpu" or not weights or not track:
            found.frames = true(*given)
            found.driver = driver_bytes(model.device)
            return found.frames
        tensors = [tensor for network in weights for tensor in (*network.parameters(), *network.buffers())]
        with Tracker(tensors) as tracked:
            found.frames = true(*given)
        found.allocated = tracked.peak + sum(map(bytes_of, weights))
        return found.frames

    model.__dict__["generate"] = generate
    try:
        yield
    finally:
        del model.__dict__["generate"]


def networks_of(model: Any) -> list[Any]:
    """The networks of a model; none of one that has no weights."""
    if hasattr(model, "pipe"):
        return list(networks(model.pipe).values())
    return [getattr(model, name) for name in NETWORKS if hasattr(model, name)]


def driver_bytes(device: str) -> int | None:
    """Bytes in use on a device, of all processes, as its driver says; None where it does not."""
    module = module_of(device)
    if module is None or not hasattr(module, "mem_get_info"):
        return int(module.driver_allocated_memory()) if module is not None else None
    left, total = module.mem_get_info(device)
    return int(total - left)


def _begun(device: str) -> int | None:
    """Wake the device: what is in use on it then, in bytes; None on a CPU."""
    if device == "cpu":
        return None
    import torch

    torch.zeros(1, device=device)
    return driver_bytes(device)


def apart(one: Frames, other: Frames) -> dict[str, Any]:
    """How far two clips are from each other, in grey levels of 255."""
    far = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return {
        "equal": bool(not far.any()),
        "mean_levels": float(far.mean()),
        "max_levels": int(far.max()),
        "share": float((far > 0).mean()),
    }


def collect() -> None:
    """Give back what nothing refers to, to the system too."""
    gc.collect()
    free()
    trim()
