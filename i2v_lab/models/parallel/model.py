"""SharedModel: a family's model on several devices, as a VideoModel in the process of the run."""

from __future__ import annotations

from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.sound import FramesWithSound
from i2v_lab.clip.video import Frames
from i2v_lab.models.parallel.group import Group
from i2v_lab.models.parallel.rules import devices_of

GIB = 2**30


class SharedModel:
    """The model is in processes of its own, one a device; after an error or a Stop they are started again for the next clip.

    Attributes:
        name, fingerprint, device, dtype, tier: see VideoModel. devices: of its processes.
        measured: the most memory that a process took for the last clip, by the names of a record's fields.
        held: bytes that the process that holds the most of its device's memory has of it.
    """

    def __init__(self, model: str, identity: tuple[str, str, str, str], count: int) -> None:
        """
        Args:
            model: as ClipParams has it. identity: name, fingerprint, device and dtype.
        """
        self.name, self.fingerprint, self.device, self.dtype = identity
        self.devices = devices_of(self.device, count) if self.device.startswith("cuda") else (self.device,) * count
        self.model, self.tier = model, 0
        self.measured: dict[str, float | None] = {}
        self.held = 0
        self._group: Group | None = None

    def load(self, progress: Progress, tier: int) -> None:
        """Start the processes, and load the model in each.

        Raises:
            ModelError, OutOfMemory: see VideoModel. RunError: a process ended.
        """
        self.tier, self._group = tier, Group(self.devices)
        progress.stage("load")
        self._group.ask("ready", progress)
        self._group.ask("loaded", progress, self.model, self.dtype, tier)

    def use_tier(self, number: int) -> None:
        """See VideoModel.use_tier."""
        self.tier = number

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        """See VideoModel.generate.

        Raises:
            RunError: a process ended.
        """
        if self._group is None or not self._group.alive:
            self.held = 0
            self.load(progress, self.tier)
        assert self._group  # noqa: S101 - just started
        made = self._group.ask("made", progress, self.model, self.dtype, self.tier, params.model_dump_json(), image)
        memory: list[dict[str, Any]] = [used for _, _, used in made]
        self.held = max(used.pop("held") for used in memory)
        self.measured = {"ram_rise_gib": None} | {name: max(used[name] for used in memory) / GIB for name in memory[0]}
        frames, sound, _ = made[0]
        if sound is None:
            return frames
        heard = frames.view(FramesWithSound)
        heard.sound = sound
        return heard
