"""Signals at every stage of every command, full disks, many commands at once, and folders that are set against us.

Stages are observed, not waited for: a command is at its stage when its records, its files or its open locks say so.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import requests
from conftest import environment, finish, start
from filelock import FileLock

from i2v_lab.devices.turns import lock_folder
from i2v_lab.store import Store

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BASE = {"image": "sample:cat", "prompt": "zoom in", "resolution": "64x64", "num_frames": "4"}
LONG = {**BASE, "num_frames": "8", "num_inference_steps": "1000", "scheduler": "heun"}
PATIENCE = 120.0  # seconds until something that should happen counts as not happening


def until(process: subprocess.Popen[str], true: Callable[[], object]) -> bool:
    """Look until the stage is reached; False where the process ended before."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks
    return True


def options(fields: dict[str, str]) -> list[str]:
    return [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", value)]


def bases(fields: dict[str, str]) -> list[str]:
    return [word for name, value in fields.items() for word in ("--base", f"{name}={value}")]


def command(name: str, folder: Path) -> list[str]:
    """The words of a command whose clips take a second or so."""
    if name == "generate":
        return ["generate", *options(LONG)]
    if name == "batch":
        (folder / "rows.jsonl").write_text("".join(json.dumps({**LONG, "seed": seed}) + "\n" for seed in range(3)))
        return ["batch", "rows.jsonl"]
    if name == "again":
        return ["again", str(next((folder / "made" / "clips").iterdir()))]
    if name == "plan":
        return ["plan", *options(BASE)]
    if name == "serve":
        with socket.create_server(("127.0.0.1", 0)) as found:
            return ["serve", "--no-token", "--port", str(found.getsockname()[1])]
    report = [] if name == "sweep" else ["--no-report"]
    return ["sweep", "--name", "x", *bases(LONG), "--axis", "seed=1..3 step 1", *report] if "sweep" in name else [name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a clip that `again` takes a second for."""
    folder = tmp_path_factory.mktemp("made")
    done = finish(start("generate", *options(LONG), "--output-dir", "made", cwd=folder))
    assert done.returncode == 0, done.stderr
    return folder / "made"


@contextmanager
def cpu_taken() -> Iterator[Path]:
    """Nobody gets the turn of the CPU. Yields the file that those who wait read, which holds up the first of them."""
    holder = lock_folder() / "cpu.json"
    with FileLock(lock_folder() / "cpu.lock"):
        holder.unlink(missing_ok=True)
        os.mkfifo(holder)
        try:
            yield holder
        finally:
            holder.unlink(missing_ok=True)


def somebody_waits(holder: Path) -> bool:
    """Whether a command reads who has the CPU; it goes on waiting."""
    try:
        number = os.open(holder, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    holder.unlink()
    os.close(number)
    return True


def hears_sigterm(process: subprocess.Popen[str]) -> bool:
    """Whether its own code has begun: Python itself does not handle SIGTERM."""
    with suppress(OSError):
        caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
    return False


def check_left(folder: Path, process: subprocess.Popen[str]) -> list[str]:
    """Nothing is left but finished clips with their records. Returns how the runs ended."""
    deadline = time.monotonic() + 20
    while left := [
        other for other in psutil.process_iter(["cwd", "pid"]) if other.info["cwd"] == str(folder) and other.pid != os.getpid()
    ]:
        assert time.monotonic() < deadline, [other.cmdline() for other in left]
        psutil.wait_procs(left, timeout=0.2)
    store = Store(folder / "results")
    records = store.records()
    clips = {path.name for path in (folder / "results" / "clips").glob("*")}
    assert clips == {Path(record.clip).name for record in records if record.clip}
    hidden = [path for path in folder.rglob(".*") if not path.name.endswith((".lock", ".git"))]
    assert hidden == []
    assert [path for path in folder.rglob("*") if path.is_socket() or path.name.startswith("kernel")] == []
    assert list((folder / "tmp").iterdir()) == []
    return sorted(record.status for record in records)


STAGES = [
    *[(name, "begun") for name in ("generate", "batch", "again", "sweep", "plan", "doctor", "models", "serve")],
    *[(name, stage) for name in ("generate", "batch", "again", "sweep", "sweep alone") for stage in ("waits", "runs")],
    *[("generate", "answered"), ("again", "answered"), ("batch", "answered"), ("sweep", "reports"), ("serve", "serves"),
      ("sweep", "answered")],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_signal_ends_a_command_well_at_any_stage(
    name: str, stage: str, number: signal.Signals, made: Path, tmp_path: Path
) -> None:
    if name == "again":
        shutil.copytree(made, tmp_path / "made")
    (tmp_path / "tmp").mkdir()
    words, results = command(name, tmp_path), tmp_path / "results"
    before = set((tmp_path / "made").rglob("*"))
    with cpu_taken() if stage == "waits" else nullcontext(tmp_path) as holder:
        process = start(*words, cwd=tmp_path, cold=stage == "begun" or name == "serve", env={"TMPDIR": str(tmp_path / "tmp")})
        with process:
            assert process.stdout is not None and process.stderr is not None
            seen: dict[str, Callable[[], object]] = {
                "begun": lambda: hears_sigterm(process),
                "waits": lambda: somebody_waits(holder),
                "runs": lambda: results.is_dir() and Store(results).records(status="running"),
                "reports": lambda: list(results.glob("sweeps/*/.report*.ipynb")),
                "serves": lambda: _answers(words[-1]),
                "answered": lambda: process.stdout and process.stdout.readline(),  # type: ignore[dict-item]
            }
            reached = until(process, seen[stage])
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err + out and "unexpected" not in err + out and "Exception ignored" not in err, err
    assert (
        process.returncode == (0 if stage == "answered" and name != "batch" else 130) or not reached or name in ("serve", "batch")
    ), err
    statuses = check_left(tmp_path, process)
    assert set((tmp_path / "made").rglob("*")) == before
    if stage in ("begun", "waits"):
        assert statuses in ([], ["stopped"])
        assert len(err.splitlines()) <= 3
    if stage == "runs" and reached:
        after_cell = number == signal.SIGINT and "sweep" in name
        assert statuses in ([["done"], ["stopped"]][not after_cell], ["done"], ["done", "stopped"])
    if stage in ("answered", "reports"):
        assert "done" in statuses


def _answers(port: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/api/health", timeout=5).ok
    return False


# Full disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of a given size; called again, it gets another size."""
    folder = tmp_path / "disk"

    def mount(size: str) -> Path:
        fresh = not folder.exists()
        folder.mkdir(exist_ok=True)
        given = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs"] if fresh else ["mount", "-o", f"remount,size={size}"]
        done = subprocess.run([*given, folder], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


LARGE = {"image": "sample:cat", "prompt": "zoom in", "model": "fake", "resolution": "256x256", "num_frames": "16"}


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(not shutil.which("mount"), reason="there is no mount command")
@pytest.mark.parametrize("size", ["100k", "400k", "800k", "1500k"])
@pytest.mark.parametrize("name", ["generate", "batch", "sweep", "sweep alone"])
def test_a_disk_that_fills_up_costs_nothing_that_was_finished(
    name: str, size: str, disk: Callable[[str], Path], tmp_path: Path, i2v_lab: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = disk(size)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({**LARGE, "seed": seed}) + "\n" for seed in range(6)))
    words = {"generate": ["generate", *options(LARGE)], "batch": ["batch", "rows.jsonl"]}.get(
        name, ["sweep", "--name", "x", *bases(LARGE), "--axis", "seed=1..6 step 1", *([] if name == "sweep" else ["--no-report"])]
    )
    env = {"I2V_LAB_LOG__DIRECTORY": str(tmp_path / "logs"), "I2V_LAB_OUTPUT__DIRECTORY": str(folder / "results")}
    first = i2v_lab(*words, env=env)
    said = first.stdout + first.stderr
    assert "Traceback" not in said and "unexpected" not in said and "whole MP4" not in said, said
    if first.returncode:
        assert first.returncode == 1
        assert "full" in first.stderr and str(folder) in first.stderr
    kept = {path: path.read_bytes() for path in (folder / "results" / "clips").glob("*")}
    disk("200m")
    again = i2v_lab(*words, env=env)
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    store = Store(folder / "results")
    records = store.records(status="done")
    assert {path.name for path in (folder / "results" / "clips").iterdir()} == {Path(record.clip).name for record in records}
    assert len({record.key for record in records}) == len(records) == (1 if name == "generate" else 6)


# Many at once


@pytest.mark.slow
def test_ten_sweeps_from_one_folder_take_turns_and_all_finish(tmp_path: Path) -> None:
    words = ["sweep", "--name", "x", *bases(BASE), "--axis", "seed=1..3 step 1"]
    processes = [start(*words, "--output-dir", f"r{number}", cwd=tmp_path) for number in range(10)]
    ended = [finish(process, 600) for process in processes]
    assert [(done.returncode, done.stderr) for done in ended] == [(0, "x: 3 done\n")] * 10
    spans = []
    for number in range(10):
        records = Store(tmp_path / f"r{number}").records()
        assert [record.status for record in records] == ["done"] * 3
        assert len(list((tmp_path / f"r{number}").glob("sweeps/*/report.html"))) == 1
        spans.append((min(record.created for record in records), max(record.finished or record.created for record in records)))
    assert {path.name for path in tmp_path.iterdir()} - {"config"} == {"logs", *(f"r{number}" for number in range(10))}
    spans.sort()
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))  # one sweep after the other


@pytest.mark.slow
def test_a_sweep_that_is_started_twice_at_once_makes_each_cell_once(tmp_path: Path) -> None:
    words = ["sweep", "--name", "x", *bases(BASE), "--axis", "seed=1..6 step 1"]
    ended = [finish(process, 600) for process in [start(*words, cwd=tmp_path) for _ in range(2)]]
    assert [(done.returncode, done.stderr) for done in ended] == [(0, "x: 6 done\n")] * 2
    assert [record.status for record in Store(tmp_path / "results").records()] == ["done"] * 6
    (folder,) = (tmp_path / "results" / "sweeps").iterdir()
    assert json.loads((folder / "report.ipynb").read_text())["cells"]
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(not shutil.which("mount"), reason="there is no mount command")
def test_a_sweep_runs_in_a_folder_that_cannot_be_written_to(disk: Callable[[str], Path], tmp_path: Path) -> None:
    folder = disk("1m")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    words = ["sweep", "--name", "x", *bases(BASE), "--axis", "seed=1,2", "--output-dir", str(tmp_path / "results")]
    done = finish(start(*words, cwd=folder), 300)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (0, ["x: 2 done"])
    assert done.stderr.startswith("no log is written: ")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_hundred_kills_lose_no_cell_and_make_none_twice(tmp_path: Path) -> None:
    chance, kills, sweeps = random.Random(7), 0, 0  # noqa: S311 - instants, no secrets
    while kills < 100:
        sweeps += 1
        name = f"s{sweeps}"
        words = ["sweep", "--no-report", "--name", name, *bases(BASE), "--axis", "seed=1..24 step 1", "--output-dir", name]
        for _ in range(20):
            process = start(*words, cwd=tmp_path)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.1, 2.5))
            alive = process.poll() is None
            process.kill()
            process.communicate()
            kills += alive
            if not alive:
                break
        done = finish(start(*words, cwd=tmp_path), 600)
        assert (done.returncode, done.stderr) == (0, f"{name}: 24 done\n")
        made = Store(tmp_path / name).records(status="done")
        assert len(made) == len({record.key for record in made}) == 24
        clips = {path.name for path in (tmp_path / name / "clips").iterdir() if not path.name.startswith(".")}
        assert clips == {Path(record.clip).name for record in made}
    print(f"{kills} kills of {sweeps} sweeps: 24 of 24 cells each, none twice")


# A folder that is set against us

POISON = (
    "torch",
    "numpy",
    "i2v_lab",
    "ipykernel_launcher",
    "ipykernel",
    "multiprocessing",
    "json",
    "jupyter_client",
    "pandas",
    "PIL",
    "yaml",
)


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ("generate", *options(BASE)), ("sweep", "--name", "x", *bases(BASE), "--axis", "seed=1,2"), ("batch", "rows.jsonl"), ("plan", *options(BASE)),
    ("doctor",), ("models",), ("runs",), ("measure", "--missing"), ("again", "clip.mp4"), ("show", "clip.mp4"), ("serve", "--no-token"),
], ids=lambda words: words[0])  # fmt: skip
def test_no_file_of_the_current_folder_is_taken_for_a_package(words: tuple[str, ...], made: Path, tmp_path: Path) -> None:
    shutil.copy(next((made / "clips").iterdir()), tmp_path / "clip.mp4")
    (tmp_path / "rows.jsonl").write_text(json.dumps(BASE) + "\n")
    for name in POISON:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise SystemExit(99)\n")
    script = Path(sys.executable).with_name("i2v-lab")
    env = environment(tmp_path)
    if words[0] != "serve":
        done = subprocess.run([script, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    else:
        _serve_and_make_a_clip(script, words, tmp_path, env)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def _serve_and_make_a_clip(script: Path, words: tuple[str, ...], folder: Path, env: dict[str, str]) -> None:
    """The worker and the studio's kernel are started in the folder too."""
    port = command("serve", folder)[-1]
    with subprocess.Popen(
        [script, *words, "--port", port], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert until(process, lambda: _answers(port))  # type: ignore[arg-type]
            page = requests.get(f"http://127.0.0.1:{port}/", timeout=120)
            assert page.ok, page.text[-2000:]
            job = requests.post(f"http://127.0.0.1:{port}/api/clips", json={**BASE, "num_frames": 4}, timeout=60).json()
            assert until(process, lambda: Store(folder / "results").records(status="done")), job  # type: ignore[arg-type]
        finally:
            process.terminate()
            process.communicate(timeout=120)
