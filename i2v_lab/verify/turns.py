"""Clips in other processes: the same one again, and two that are asked for at once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.video import Frames
from i2v_lab.devices.turns import turn
from i2v_lab.errors import I2VLabError
from i2v_lab.verify.bench import Bench, Subject, apart
from i2v_lab.verify.result import Result

GRACE = 120  # seconds beyond the end of the time in which another process may still answer


class Child:
    """Another process that makes one clip of a subject. It ends with the block."""

    def __init__(self, bench: Bench, subject: Subject, tier: int) -> None:
        self.frames = bench.folder / f"frames-{id(self)}.npy"
        self.errors = (bench.folder / f"errors-{id(self)}.txt").open("w+", encoding="utf-8")
        order = {
            "name": subject.asked, "weights": subject.weights, "device": bench.device, "full": bench.full, "tier": tier,
            "params": subject.params().plain(), "folder": str(bench.folder), "frames": str(self.frames), "threads": torch.get_num_threads(),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "i2v_lab.verify.turns"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.close()
        self.heard: dict[str, Any] = {}
        self.timer = threading.Timer(max(0.0, bench.until - time.monotonic()) + GRACE, self.process.kill)
        self.timer.daemon = True
        self.timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.errors.close()

    def wait_for(self, event: str) -> Any:
        """What it says of an event, once it happens. I2VLabError, with the reason, where it ends before."""
        assert self.process.stdout  # noqa: S101
        while event not in self.heard:
            line = self.process.stdout.readline()
            if not line:
                self.errors.seek(0)
                raise I2VLabError(f"the other process ended: {(self.errors.read().strip().splitlines() or ['no reason'])[-1]}")
            self.heard |= json.loads(line)
            if problem := self.heard.get("problem"):
                raise I2VLabError(f"the other process: {problem}")
        return self.heard[event]

    def result(self) -> Frames:
        """Its frames."""
        self.wait_for("ended")
        found: Frames = np.load(self.frames)
        return found


def turns(bench: Bench, subject: Subject) -> Result:
    """8. Two clips asked for at once by two processes: both wait while this one has the device, then one works after the other."""
    tier = subject.family.tiers(bench.device)[0]
    if bench.device != "cpu":
        bench.drop()
    with Child(bench, subject, tier) as one, Child(bench, subject, tier) as other:
        with turn(("cpu" if subject.weights == "none" else bench.device,), "i2v-lab verify", lambda line: None):
            for child in (one, other):
                child.wait_for("waits")
        equal = apart(one.result(), other.result())["equal"]
        spans = sorted((child.wait_for("began"), child.wait_for("computed")) for child in (one, other))
    figures = {
        "first_s": spans[0][1] - spans[0][0],
        "second_s": spans[1][1] - spans[1][0],
        "gap_s": spans[1][0] - spans[0][1],
        "equal": equal,
    }
    if figures["gap_s"] < 0:
        return Result("two at once", "failed", f"two processes worked at the same time, for {-figures['gap_s']:.1f} s", figures)
    line = f"they waited, then took turns; their frames are {'equal' if equal else 'not equal'}"
    return Result("two at once", "passed" if equal else "failed", line, figures)


class _Teller(Progress):
    """Tells the process that asked, a line of JSON each, what happens; times are seconds of time.monotonic()."""

    def __init__(self) -> None:
        self.waits = False

    def waiting(self, line: str) -> None:
        if not self.waits:
            self.waits = True
            tell(waits=True)

    def stage(self, name: str, total: int | None = None) -> None:
        if name == "encode":
            tell(began=time.monotonic())
        elif name == "write":  # it has the turn still
            tell(computed=time.monotonic())


def tell(**what: Any) -> None:
    """A line for the process that asked."""
    print(json.dumps(what), flush=True)


def _child(order: dict[str, Any]) -> None:
    torch.set_num_threads(order["threads"])
    bench = Bench(order["device"], order["full"], Path(order["folder"]), time.monotonic() + 3600, screen=_Teller())
    subject = bench.add(order["name"])
    subject.weights = order["weights"]
    fields = {name: value for name, value in ClipParams(**order["params"]).given().items() if name != "model"}
    clip = bench.clip(subject, tier=order["tier"], **fields)
    try:
        frames = clip.whole()
    except I2VLabError as error:
        tell(problem=str(error))
        return
    np.save(order["frames"], frames)
    tell(ended=True)


if __name__ == "__main__":
    _child(json.loads(sys.stdin.readline()))
