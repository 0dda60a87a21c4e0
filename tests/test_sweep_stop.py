"""A sweep that is stopped, killed or has to wait loses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import environment
from sweeps import TINY, StopAt, hashes, tiny

from i2v_lab.clip import video
from i2v_lab.devices.turns import turn
from i2v_lab.errors import Stop
from i2v_lab.report.sweep_display import SweepDisplay, run_in_cell
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import (
    SweepProgress,
    SweepStatus,
    SweepStop,
    ask_to_stop,
    run_batch,
    run_sweep,
)
from i2v_lab.sweep.stop import stop_on_signals

ROOT = Path(__file__).parent.parent


def test_stop_after_this_cell_leaves_no_half_cell(store: Store, settings: Settings) -> None:
    sweep = tiny(axes={"seed": "1..4 step 1"})
    result = run_sweep(sweep, store, settings=settings, progress=StopAt(3, before=True))
    assert (result.stopped, result.counts) == ("enough", {"done": 2, "planned": 2})
    stop = SweepStop()
    result = run_sweep(sweep, store, settings=settings, stop=stop, on_cell=lambda cell, record: stop.ask("cell"))
    assert result.counts == {"done": 3, "planned": 1}
    folder = result.folder
    result = run_sweep(sweep.changed(axes={"seed": "1..9 step 1"}), store, settings=settings,
                       on_cell=lambda cell, record: ask_to_stop(store.directory / "sweeps" / store.find_sweeps("tiny")[0].id, "cell"))  # fmt: skip
    assert (result.ran, result.counts["done"]) == (1, 4)
    assert not (result.folder / "stop").exists() and result.folder != folder


def test_a_stop_that_was_asked_of_an_earlier_process_does_not_count(store: Store, settings: Settings) -> None:
    sweep = tiny(axes={"seed": "1..2 step 1"})
    folder = run_sweep(sweep, store, settings=settings, retry="none").folder
    ask_to_stop(folder, "step")
    os.utime(folder / "stop", (0, 0))
    assert run_sweep(sweep, store, settings=settings).counts == {"done": 2}
    assert not (folder / "stop").exists()


# Killed, and started again

SCRIPT = """
import sys
from pathlib import Path
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import SweepProgress, load_sweep, run_sweep

class Tell(SweepProgress):  # every event is a line; with "ask", each waits for an answer
    def updated(self, status):
        print(status.cell, status.stage or status.note, status.step, flush=True)
        if sys.argv[3] == "ask" and status.stage == "denoise" and not status.over:
            sys.stdin.readline()

result = run_sweep(load_sweep(sys.argv[1]), Store(Path(sys.argv[2])), settings=Settings(), progress=Tell())
print("result", result.counts, flush=True)
"""


def start(file: Path, results: Path, mode: str = "tell") -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-W", "error", "-c", SCRIPT, str(file), str(results), mode], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(results.parent), cwd=results.parent)  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_six_instants_a_sweep_loses_nothing(tmp_path: Path) -> None:
    sweep = tiny(axes={"seed": "1..4 step 1", "num_frames": "2..4 step 1"})
    file = tmp_path / "tiny.yaml"
    file.write_text(sweep.to_yaml())
    chance = random.Random(20)  # noqa: S311
    results = tmp_path / "killed"
    for _ in range(6):
        process = start(file, results)
        assert process.stdout
        for _ in range(chance.randint(1, 18)):
            assert not process.stdout.readline().startswith("result"), "the sweep was over before it was killed: kill it sooner"
        kill(process)
    with start(file, results) as process:
        last = process.communicate()[0].splitlines()[-1]
    assert last == "result {'done': 12}"

    store = Store(results)
    records = store.records(status="done")
    assert Counter(record.key for record in records).most_common(1)[0][1] == 1
    assert len(records) == len(store.runs(sweep="tiny")) == 12
    assert {record.status for record in store.records()} <= {"done", "failed"}
    for record in records:
        assert record.params
        assert video.read(store.directory / record.clip).shape[0] == record.params.num_frames
    for clip in store.clips.glob("[!.]*"):  # what has a clip's name is a clip
        assert video.probe(clip).frames >= 2
    undisturbed = Store(tmp_path / "undisturbed")
    run_sweep(sweep, undisturbed, settings=Settings())
    assert hashes(store, "tiny") == hashes(undisturbed, "tiny")


@pytest.mark.slow
def test_two_sweeps_on_one_device_take_turns_and_a_dead_one_keeps_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(tiny(name=name, base={**TINY, "prompt": name}).to_yaml())
    results = tmp_path / "results"
    one = start(tmp_path / "one.yaml", results, "ask")
    assert one.stdout
    while "denoise" not in one.stdout.readline():
        pass
    with start(tmp_path / "two.yaml", results) as two:
        assert two.stdout
        assert f"waiting for the sweep one of process {one.pid} on cpu" in two.stdout.readline()
        kill(one)
        assert two.communicate()[0].splitlines()[-1] == "result {'done': 1}"

    with start(tmp_path / "one.yaml", results, "ask") as one:
        assert one.stdout and one.stdin
        while "denoise" not in one.stdout.readline():
            pass
        with start(tmp_path / "one.yaml", results) as other:  # the same sweep: it finds the work done
            assert other.stdout
            assert "waiting" in other.stdout.readline()
            one.communicate("\n" * 20)
            assert other.communicate()[0].splitlines()[-1] == "result {'done': 1}"
    assert len(Store(results).records(status="done")) == 2


def test_interrupting_the_kernel_ends_a_sweep_after_the_step_and_the_cell_as_usual(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: SweepDisplay, status: SweepStatus) -> None:
        if (status.stage, status.step) == ("denoise", 1):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SweepDisplay, "updated", interrupt)
    before = signal.getsignal(signal.SIGINT)
    result = run_in_cell(tiny(), store, settings=settings)
    assert result.counts["stopped"] == 1
    assert [record.reason for record in store.records(status="stopped")] == ["the kernel was interrupted"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_three_times_ends_a_sweep_at_once(store: Store, settings: Settings) -> None:
    class Impatient(SweepProgress):
        def updated(self, status: SweepStatus) -> None:
            if status.stage == "denoise":
                for _ in range(3):
                    signal.raise_signal(signal.SIGINT)

    stop, said = SweepStop(), list[str]()
    with pytest.raises(KeyboardInterrupt), stop_on_signals(stop.ask, say=said.append):
        run_sweep(tiny(), store, settings=settings, progress=Impatient(), stop=stop)
    assert said == [
        "stopping after this cell; once more stops after this step",
        "stopping after this step; once more stops at once",
    ]
    assert [(record.status, record.reason) for record in store.records()] == [("stopped", "interrupted")]
    assert run_sweep(tiny(), store, settings=settings).complete


def test_one_stop_ends_a_batch_too(store: Store, settings: Settings) -> None:
    stop = SweepStop()
    made = []
    for record, found in run_batch(
        [TINY, {**TINY, "num_frames": "many"}, "line 3 is not JSON", TINY, TINY], store, settings, stop=stop
    ):
        made.append((record.status, found))
        if len(made) == 4:
            stop.ask("cell")
    assert made == [("done", False), ("failed", False), ("failed", False), ("done", True)]
    assert [record.reason for record in store.records(status="failed")][-1] == "line 3 is not JSON"


def test_waiting_for_a_turn_can_be_stopped(store: Store, settings: Settings) -> None:
    class Impatient(SweepProgress):
        def updated(self, status: SweepStatus) -> None:
            if status.note.startswith("waiting"):
                raise Stop("did not wait")

    with turn(("cpu",), "first", lambda text: None), ThreadPoolExecutor(1) as other:  # a thread that has the turn would go on
        result = other.submit(run_sweep, tiny(), store, settings=settings, progress=Impatient()).result()
    assert (result.stopped, result.counts) == ("did not wait", {"planned": 1})
    assert run_sweep(tiny(), store, settings=settings).complete
