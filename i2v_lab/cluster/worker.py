"""The actor that makes clips on one device. Ray calls its methods, two at a time."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.errors import I2VLabError, Stop

TALK = "talk"  # the group of the methods that answer while a clip is made


class Ear(Progress):
    """Where a clip stands: stage, step, steps, and what it waits for. It ends the clip once that is asked."""

    def __init__(self) -> None:
        self.id, self.unwanted = "", {"": ""}
        self.at: tuple[str, int, int | None, str] = ("", 0, None, "")

    def stage(self, name: str, total: int | None = None) -> None:
        self.at = (name, 0, total, "")
        self.pulse()

    def step(self, preview: Preview | None = None) -> None:
        name, step, total, _ = self.at
        self.at = (name, step + 1, total, "")
        self.pulse()

    def pulse(self) -> None:
        if reason := self.unwanted.get(self.id):
            raise Stop(reason)

    def waiting(self, line: str) -> None:
        self.at = (*self.at[:3], line)
        self.pulse()


class Worker:
    """Makes clips on its device, and keeps the model. Its store is thrown away: clips and records go back as they are.

    `where` and `stop` are called while `make` works.
    """

    def __init__(self, settings: dict[str, Any], threads: int, scratch: str) -> None:
        """Args:
        settings: of the one who asks, as JSON has them; the output folder is not used.
        threads: of torch; 0: as many as this machine has cores.
        scratch: where its files are; "": with other temporary files.
        """
        threads = threads or os.cpu_count() or 1
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported; Ray had set 1
        import torch

        from i2v_lab.clip.publish import temporary_folder
        from i2v_lab.settings import Settings
        from i2v_lab.store import Store

        torch.set_num_threads(threads)
        self._open = ExitStack()  # what a worker that was killed leaves here, the next one clears away
        folder = self._open.enter_context(temporary_folder(Path(scratch or tempfile.gettempdir()), "i2v-lab-worker"))
        self.store = Store(folder)
        self.settings = Settings.model_validate({**settings, "output": {**settings["output"], "directory": folder}, "cluster": {}})
        self.ear = Ear()

    def where(self) -> tuple[str, int, int | None, str]:
        """Stage, step, steps, and what it waits for."""
        return self.ear.at

    def stop(self, id: str, reason: str) -> None:
        """End the clip of this run within a step, also where it has not come here yet."""
        self.ear.unwanted = {id: reason}

    def about(self) -> dict[str, Any]:
        """What a Place has."""
        import ray

        from i2v_lab.cost import Budget
        from i2v_lab.devices.gpus import default_device
        from i2v_lab.devices.hardware import machine, versions
        from i2v_lab.models.parallel import name_of

        device = default_device() if self.settings.device == "auto" else self.settings.device
        each = self.settings.parallel
        name = name_of(str(machine(device)["device_name"]), each)
        return {"host": socket.gethostname(), "pid": os.getpid(), "device": device, "device_name": name, "versions": versions(),
                "bytes": Budget.of_each(device, each).bytes, "node": ray.get_runtime_context().get_node_id()}  # fmt: skip

    def identify(self, model: str, dtype: str) -> Any:
        """What a model is here, or why it is none, as text."""
        from i2v_lab import models

        try:
            return models.open(model, self.settings.device, dtype).identity_here
        except I2VLabError as error:
            return str(error)

    def make(self, params: str, fields: dict[str, Any], picture: bytes | None, name: str) -> tuple[str, bytes]:
        """Make a clip and measure it. Nothing is raised for what a clip is like.

        Args:
            params: as JSON. fields: id, sweep and tier, as for `run_clip`.
            picture: the bytes of the picture; None: it is one of the samples. name: of its file.

        Returns:
            The record as JSON, and the bytes of the clip's file.
        """
        from i2v_lab.devices.turns import lent
        from i2v_lab.metrics.fill import fill_in
        from i2v_lab.run import make

        clip, self.ear.id, self.ear.at = ClipParams.model_validate_json(params), fields["id"], ("", 0, None, "")
        with tempfile.TemporaryDirectory(dir=self.store.directory) as folder, ExitStack() as turns:
            if picture is not None:
                image = Path(folder) / name
                image.write_bytes(picture)
                clip = clip.replace(image=str(image))
            if self.settings.device == "cpu":
                turns.enter_context(lent(("cpu",)))
            made = make(clip, Path(folder), progress=self.ear, settings=self.settings, history=self.store, turns=turns, **fields)
            record, data = made.record, b""
            if made.clip:
                data = made.clip.read_bytes()
                record = record.model_copy(update={"clip": made.clip.relative_to(self.store.directory).as_posix()})
                record = fill_in(record, self.store, self.ear, self.ear.waiting)
            self.store.save(record)
        return record.model_dump_json(), data
