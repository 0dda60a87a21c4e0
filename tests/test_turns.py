"""Turns on a device: one thread of one process at a time, whatever the output folder, and again within the same thread."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress, StopSwitch
from i2v_lab.devices.turns import lock_folder, turn
from i2v_lab.errors import Stop
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store

PARAMS = ClipParams(model="fake", image="sample:coffee", prompt="zoom in", resolution="64x64", num_frames=2)


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


def fail(line: str) -> None:
    raise Stop(line)


HOLDER = """
import sys
from i2v_lab.devices.turns import turn
with turn(("cpu",), "another program", print):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held() -> Iterator[subprocess.Popen[str]]:
    """Another process has the CPU's turn."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_thread_that_has_the_turn_may_ask_again() -> None:
    with turn(("cpu",), "a sweep", fail) as first, turn(("cpu", "cuda:0"), "its clip", fail) as second:
        assert (first, second) == (False, False)
    with turn(("cpu", "cuda:0"), "the next", fail) as third:
        assert third is False


def test_another_thread_of_this_process_waits() -> None:
    said: list[str] = []
    with turn(("cpu",), "a sweep", fail):

        def ask() -> None:
            with pytest.raises(Stop), turn(("cpu",), "a clip", lambda line: (said.append(line), fail(line))):  # type: ignore[arg-type]
                pass

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert said
    assert said[0].startswith("waiting for a sweep of process")


def test_another_process_is_waited_for_and_named_until_it_is_killed() -> None:
    with held() as process:
        with pytest.raises(Stop, match=f"waiting for another program of process {process.pid} on cpu"), turn(("cpu",), "x", fail):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with turn(("cpu",), "x", lambda line: None):
            assert (lock_folder() / "cpu.lock").exists()


def test_a_clip_waits_for_its_turn_and_the_wait_is_not_its_time(tmp_path: Path) -> None:
    class Release(Progress):
        lines = 0

        def waiting(self, line: str) -> None:
            self.lines += 1
            if self.lines == 3:
                process.kill()

    with held() as process:
        release = Release()
        record = run_clip(PARAMS, None, Store(tmp_path / "results"), progress=release, settings=Settings())
    assert record.status == "done"
    assert release.lines >= 3
    assert record.seconds["total"] == pytest.approx(sum(record.seconds[s] for s in record.seconds if s != "total"), abs=0.15)


def test_a_clip_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    class Switch(StopSwitch):
        def waiting(self, line: str) -> None:
            self.stop("stopped by hand")
            super().waiting(line)

    with held():
        record = run_clip(PARAMS, None, Store(tmp_path / "results"), progress=Switch(), settings=Settings())
    assert (record.status, record.reason, record.clip) == ("stopped", "stopped by hand", "")
