"""Progress: what listeners are called with, and when a StopSwitch ends a run."""

from __future__ import annotations

import pytest

from i2v_lab.clip.progress import Listeners, Progress, StopSwitch
from i2v_lab.errors import Stop


class Recorder(Progress):
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self.calls.append(("stage", name, total))

    def step(self, preview: object = None) -> None:
        self.calls.append(("step", preview))

    def waiting(self, line: str) -> None:
        self.calls.append(("waiting", line))


def test_listeners_pass_everything_on() -> None:
    one, other = Recorder(), Recorder()
    both = Listeners(one, Progress(), other)
    both.waiting("process 7 has cuda:0")
    both.stage("denoise", 2)
    both.step()
    assert one.calls == other.calls == [("waiting", "process 7 has cuda:0"), ("stage", "denoise", 2), ("step", None)]


@pytest.mark.parametrize("event", [lambda p: p.stage("load"), lambda p: p.step(), lambda p: p.waiting("process 7 has cpu")])
def test_a_stop_switch_ends_the_run_at_any_event(event) -> None:
    switch = StopSwitch()
    event(switch)
    switch.stop("enough")
    with pytest.raises(Stop, match="enough"):
        event(switch)
