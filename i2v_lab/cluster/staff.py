"""Staff: the workers of a pool: begun, counted, shared with others, lost and replaced. All that is said to Ray is said here."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from i2v_lab.cluster.place import Place, WorkerState
from i2v_lab.cluster.share import ASK_SECONDS, NAME, Share, Wish
from i2v_lab.cluster.worker import TALK, Worker
from i2v_lab.devices.hardware import versions
from i2v_lab.errors import InputError, ModelError
from i2v_lab.models import Identity
from i2v_lab.run.task import Task
from i2v_lab.settings import Settings

log = logging.getLogger(__name__)

COUNT_SECONDS = 2.0  # between two looks at the nodes of the cluster
OTHERS_SECONDS = 60.0  # that the first worker waits for the others
FETCH_SECONDS = 120.0  # for a clip to come over the network
SILENT_SHOWN = 10.0  # seconds without an answer of a worker that are shown
STARTS = 3  # workers that may end one after another before they begin
AT = tuple[str, int, int | None, str]


def engine() -> Any:
    """Ray; it takes seconds to import, and need not be installed."""
    import ray

    return ray


@dataclass(eq=False)
class Seat:
    """A worker, as this process knows it.

    Attributes:
        actor: of Ray. born: what it says of itself, under way.
        place: once it has said so.
        task: what it makes. result: of that, under way.
        at: where that stands. asked: an answer about that, under way. heard: when the last came, or the task began.
        loaded: the model and dtype that it has in memory.
    """

    actor: Any
    born: Any
    place: Place | None = None
    task: Task | None = None
    result: Any = None
    at: AT = ("", 0, None, "")
    asked: Any = None
    heard: float = 0.0
    loaded: tuple[str, str] = ("", "")

    @property
    def where(self) -> str:
        return f"{self.place.host}:{self.place.pid}" if self.place else "a new worker"

    @property
    def silent(self) -> float:
        """Seconds since it said where its clip stands."""
        return time.monotonic() - self.heard

    def talk(self, method: str, *args: Any) -> Any:
        """Call a method that answers while a clip is made."""
        return getattr(self.actor, method).options(concurrency_group=TALK).remote(*args)

    def begin(self, task: Task, load: tuple[str, str], picture: Any, name: str) -> None:
        assert task.params  # noqa: S101 - what is no clip needs no worker
        self.task, self.loaded, self.at, self.heard, self.asked = task, load, ("", 0, None, ""), time.monotonic(), None
        fields = {"id": task.id, "sweep": task.sweep, "tier": task.tier}
        self.result = self.actor.make.remote(task.params.model_dump_json(), fields, picture, name)

    def take(self) -> tuple[str, bytes] | str | BaseException:
        """What came of its task, which is over: record and clip; how the worker died; or an error in it."""
        ray = engine()
        ref, self.task, self.result, self.asked = self.result, None, None, None
        try:
            text, data = ray.get(ref, timeout=FETCH_SECONDS)
            return str(text), bytes(data)
        except ray.exceptions.RayTaskError as error:
            return error.cause if isinstance(error.cause, Exception) else error
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            return f"{type(error).__name__} on {self.where}"

    def state(self) -> WorkerState:
        where = (self.place.host, self.place.pid, self.place.device_name) if self.place else ("", 0, "")
        if not self.task:
            return WorkerState(*where)
        stage, step, steps, note = self.at
        if self.silent > SILENT_SHOWN:
            note = f"no answer for {self.silent:.0f} s"
        return WorkerState(*where, self.task.number, self.task.label, stage, step, steps, note)


class Staff:
    """The workers of a pool.

    Attributes:
        scratch: a folder for what the workers leave behind, on a cluster of our own; None: it is shared with others.
        seats: the workers, those that begin among them.
    """

    def __init__(self, settings: Settings, scratch: Path | None) -> None:
        self.settings, self.scratch = settings, scratch
        self.seats: list[Seat] = []
        self._ray = engine()
        self._me = uuid.uuid4().hex
        self._failed: list[str] = []  # how workers ended before they began, since the last that did
        self._counted = self._asked = -1000.0
        self._total, self._most, self._allowed, self._on_gpu = 0, 0, 1, False
        self._memory: dict[str, float] = {}  # of a worker on a node, by Ray's say
        self._workers_on_node = 1  # workers
        self._devices_each = self.settings.parallel  # devices of each worker
        self._share: Any = None
        self._is_shared = self.scratch is not None  # what is allowed is known
        self._answer: Any = None

    @property
    def places(self) -> list[Place]:
        """The places of the workers that are there."""
        return [seat.place for seat in self.seats if seat.place]

    def gather(self, waiting: Callable[[str], None]) -> None:
        """Wait until the workers are there: the first of them for as long as it takes, the others a minute more.

        Raises:
            InputError: none can be started, their versions are others, or no machine has as many devices as a worker needs.
        """
        first = 0.0
        while True:
            self._count()
            self.fill(self._total or 1)
            self.check()
            there = len(self.places)
            now = time.monotonic()
            first = first or (now if there else 0.0)
            all_there = self._is_shared and there >= min(self._allowed, self._total)
            if there and (all_there or now - first > OTHERS_SECONDS):
                return
            waiting(f"waiting for the workers of the cluster: {there} of {self._total} are there")
            self.wait(0.1)

    def check(self) -> None:
        """Raise InputError where no machine has as many devices as a worker needs."""
        if self._devices_each > 1 and not self._most:
            raise InputError(f"parallel: expected a machine of the cluster with {self._devices_each} {'GPUs' if self._on_gpu else 'CPUs'}, got "
                             "none; use fewer")  # fmt: skip

    def fill(self, wanted: int) -> None:
        """Begin workers, hear from those that begin, and give those up that others should have.

        Args:
            wanted: how many clips wait or are being made; 0: keep one worker, as long as nobody else wants its device.
        """
        self._count()
        self._divide(wanted)
        allowed = min(self._allowed, self._total)
        while len(self.seats) < min(allowed, wanted):
            self.seats.append(self._hire())
        spare = sorted((seat for seat in self.seats if not seat.task), key=lambda seat: seat.place is not None)
        for seat in spare[: max(0, len(self.seats) - allowed)]:
            self.let_go(seat)
        for seat in [seat for seat in self.seats if seat.place is None]:
            self._admit(seat)

    def wait(self, seconds: float) -> list[Seat]:
        """The workers whose clip is over, as soon as there is one."""
        refs = {seat.result: seat for seat in self.seats if seat.task}
        born = [seat.born for seat in self.seats if seat.place is None]
        if not refs and not born:
            time.sleep(seconds)
            return []
        ready = self._ray.wait([*refs, *born], num_returns=1, timeout=seconds)[0]
        return [refs[ref] for ref in ready if ref in refs]

    def look(self) -> None:
        """Hear where each clip stands, and whether the workers without one live; one that does not answer is not waited for."""
        for seat in [seat for seat in self.seats if seat.place]:
            if seat.asked is None:
                seat.asked = seat.talk("where")
            elif self._ray.wait([seat.asked], timeout=0)[0]:
                asked, seat.asked = seat.asked, None
                try:
                    seat.at, seat.heard = self._ray.get(asked), time.monotonic()
                except self._ray.exceptions.RayError:
                    if not seat.task:  # otherwise its clip will say so
                        self.let_go(seat)

    def let_go(self, seat: Seat) -> None:
        """End a worker, whatever it does. One that is only unreachable must not keep its device."""
        self.seats.remove(seat)
        seat.task = None
        try:
            self._ray.kill(seat.actor)
        except (self._ray.exceptions.RayError, ValueError) as error:
            log.info("a worker could not be ended: %s", error)

    def send(self, data: bytes) -> Any:
        """Bytes that workers may read, sent once."""
        return self._ray.put(data)

    def close(self) -> None:
        """End all workers, and leave their devices to others."""
        for seat in list(self.seats):
            self.let_go(seat)
        if self._share is not None:
            try:
                self._share.ask.remote(self._me, Wish(0), 0)
            except self._ray.exceptions.RayError as error:
                log.info("the share of the cluster could not be given back: %s", error)

    def _count(self) -> None:
        """How many workers there can be, by the nodes that are there now."""
        if time.monotonic() - self._counted < COUNT_SECONDS:
            return
        self._counted = time.monotonic()
        nodes = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        # All devices of a worker are those of one machine.
        gpus = sum(int(known.get("GPU", 0)) // self._devices_each for known in nodes.values())
        cpus = [count for known in nodes.values() if (count := int(known.get("CPU", 0)) // self._devices_each)]
        self._on_gpu = any(known.get("GPU", 0) >= 1 for known in nodes.values()) and self.settings.device != "cpu"
        self._most = gpus if self._on_gpu else sum(cpus)
        asked = self.settings.cluster.workers
        self._total = min(self._most, asked) if asked else gpus if self._on_gpu else len(cpus)
        on_node = -(-self._total // max(len(cpus), 1))
        self._memory = {node: known.get("memory", 0.0) / max(on_node, 1) for node, known in nodes.items()}
        self._workers_on_node = max(on_node, 1)

    def _divide(self, wanted: int) -> None:
        """How many of them are for this process, where others use the cluster too."""
        if self.scratch:
            self._allowed = self._total
            return
        if self._share is None:
            shared = self._ray.remote(Share)
            self._share = shared.options(name=NAME, get_if_exists=True, num_cpus=0).remote()
        if self._answer is None:
            if time.monotonic() - self._asked < ASK_SECONDS:
                return
            each = self._devices_each
            wish = Wish(min(max(wanted, 1), self._total) * each, each, idle=not wanted)
            self._asked, self._answer = time.monotonic(), self._share.ask.remote(self._me, wish, self._most * each)
        if self._ray.wait([self._answer], timeout=0)[0]:
            try:
                self._allowed = self._ray.get(self._answer) // self._devices_each
                self._is_shared = True
            except self._ray.exceptions.RayError:
                self._share = None  # the sweep that began it has ended: begin another
            self._answer = None

    def _hire(self) -> Seat:
        plain = self.settings.model_dump(mode="json") | {"device": "auto" if self._on_gpu else "cpu"}
        need: dict[str, Any] = {"num_cpus": self._devices_each, "scheduling_strategy": "SPREAD"}
        if self._on_gpu:
            need = {"num_gpus": self._devices_each, "num_cpus": 0}
        worker = self._ray.remote(max_restarts=0, concurrency_groups={TALK: 1})(Worker)
        actor = worker.options(**need).remote(plain, 0 if self._on_gpu else self._threads(), str(self.scratch or ""))
        return Seat(actor, actor.about.remote())

    def _threads(self) -> int:
        """Of torch, in a worker on a CPU: as here, for they may decide pixels."""
        if self.settings.cluster.threads:
            return self.settings.cluster.threads
        import torch

        return torch.get_num_threads()

    def _admit(self, seat: Seat) -> None:
        """Hear what a worker says of itself, once it does, and refuse one of other versions.

        Raises:
            InputError: there is no other.
        """
        if not self._ray.wait([seat.born], timeout=0)[0]:
            return
        try:
            about = self._ray.get(seat.born)
        except self._ray.exceptions.RayError as error:
            self.let_go(seat)
            self._failed.append(f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}")
            log.warning("a worker ended before it began: %s", self._failed[-1])
            if len(self._failed) >= STARTS:
                raise InputError(f"cluster: its workers end before they begin: {self._failed[-1]}; is i2v_lab installed on all its machines?"
                                 ) from None  # fmt: skip
            return
        self._failed.clear()
        if other := other_versions(about["versions"]):
            raise InputError(f"cluster: expected the same versions on all machines, got on {about['host']} {other}")
        if about["device"] == "cpu":
            node = about["node"]
            about["bytes"] = int(min(about["bytes"] / self._workers_on_node, self._memory.get(node) or about["bytes"]))
        seat.place = Place(**about, identify=lambda model, dtype: self._identify(seat, model, dtype))

    def _identify(self, seat: Seat, model: str, dtype: str) -> Identity | None:
        """What a model is on the place of a worker; None where the worker is gone.

        Raises:
            ModelError: it is none there.
        """
        try:
            found = self._ray.get(seat.talk("identify", model, dtype))
        except self._ray.exceptions.RayError:
            if seat in self.seats and not seat.task:
                self.let_go(seat)
            return None
        if isinstance(found, str):
            raise ModelError(found)
        return cast(Identity, found)


def other_versions(there: dict[str, str]) -> str:
    """What differs from here, by name."""
    here = versions()
    names = [name for name in dict.fromkeys([*here, *there]) if here.get(name) != there.get(name)]
    return ", ".join(f"{name} {there.get(name, 'none')} (here {here.get(name, 'none')})" for name in names)
