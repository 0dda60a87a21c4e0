"""Commands that end early, many at once, a full disk; the screen and the log."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from commands import FAKE, answer, records
from conftest import environment, finish, start
from PIL import Image
from warm import Warm

from i2v_lab.clip import video
from i2v_lab.store import Store


def test_a_terminal_shows_bars_and_the_answer_stays_clean(photograph, tmp_path):
    controller, terminal = pty.openpty()
    words = ("generate", "--image", str(photograph), *FAKE)
    with Warm(
        words, cwd=tmp_path, env=environment(tmp_path, TERM="xterm", COLUMNS="100"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=terminal, text=True,
    ) as process:  # fmt: skip
        os.close(terminal)
        screen = b""
        while block := _read(controller):
            screen += block
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    os.close(controller)
    assert process.returncode == 0
    (clip,) = lines
    assert video.probe(clip).frames == 3
    for stage in (b"load", b"encode", b"denoise", b"decode", b"write"):
        assert stage + b" " in screen
    assert "━".encode() in screen
    assert b"50/50" in screen


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65536)
    except OSError:  # EIO: the other end was closed
        return b""


def test_each_start_that_makes_something_writes_a_log_of_its_own(i2v_lab, photograph, tmp_path):
    for _ in range(2):
        quiet = i2v_lab("generate", "--image", photograph, *FAKE, "--json")
        assert quiet.stderr == ""
    i2v_lab("runs")
    first, second = sorted((tmp_path / "logs").iterdir(), key=lambda log: log.stat().st_mtime_ns)
    for log in (first, second):
        datetime.strptime(log.name.split("_", 1)[1].rsplit("_", 1)[0], "%Y%m%d_%H%M%S")
        assert f"start: generate --image {photograph}" in log.read_text()
    assert ": done clips/" in first.read_text()
    assert "made this clip before" in second.read_text()


def test_logs_that_cannot_be_written_do_not_stop_the_clip(i2v_lab, photograph, tmp_path):
    (tmp_path / "logs").write_text("a file, not a folder")
    done = i2v_lab("generate", "--image", photograph, *FAKE)
    assert done.returncode == 0
    assert Path(done.stdout.strip()).is_file()
    assert "no log is written" in done.stderr
    failed = i2v_lab("generate", "--image", "none.jpg", *FAKE)
    assert [line.partition(":")[0] for line in failed.stderr.splitlines()] == ["no log is written", "error"]


LONG = ("--prompt", "zoom in", "--resolution", "256p", "--num-inference-steps", "1000", "--scheduler", "heun", "--json")


def long_run(photograph: Path, folder: Path) -> subprocess.Popen[str]:
    """A clip that takes long, begun: its record says running."""
    process = start("generate", "--image", photograph, *LONG, cwd=folder)
    store, deadline = Store(folder / "results"), time.monotonic() + 60
    while not store.records(status="running"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()
        time.sleep(0.02)  # between two looks
    return process


def test_ctrl_c_stops_the_run_and_it_is_recorded(photograph, tmp_path):
    with long_run(photograph, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    record = answer(subprocess.CompletedProcess([], process.returncode, out, err), code=130)
    assert (record["status"], record["reason"]) == ("stopped", "stopped by Ctrl-C")
    assert "stopping after this step" in err
    assert list((tmp_path / "results").glob("clips/*")) == []
    assert [run["status"] for run in records(tmp_path / "results")] == ["stopped"]


def test_after_a_kill_the_next_command_records_the_failure(photograph, tmp_path):
    with long_run(photograph, tmp_path) as process:
        process.kill()
    (record,) = records(tmp_path / "results")
    assert record["status"] == "failed"
    assert record["reason"] == "the process ended before the clip was done"
    assert list((tmp_path / "results").glob("clips/*")) == []


@pytest.mark.slow
def test_eight_processes_make_eight_clips_in_one_folder(photograph, tmp_path):
    processes = [start("generate", "--image", photograph, *FAKE, "--seed", seed, "--json", cwd=tmp_path) for seed in range(8)]
    said = [answer(finish(process)) for process in processes]
    assert len({record["clip"] for record in said}) == 8
    assert [video.probe(record["clip"]).frames for record in said] == [3] * 8
    rows = {row["id"]: row for row in records(tmp_path / "results")}
    assert len(rows) == 8
    assert all({**rows[record["id"]], "made_before": False} == record for record in said)
    assert len(list((tmp_path / "results" / "pictures").iterdir())) == 1
    assert len(list((tmp_path / "results" / "clips").iterdir())) == 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("mount"), reason="there is no mount command")
@pytest.mark.parametrize(("room", "logs"), [(200_000, "logs"), pytest.param(0, "disk/logs", marks=pytest.mark.slow)])
def test_a_full_disk_is_one_clear_line_and_a_failed_run(room, logs, i2v_lab, small_disk, tmp_path):
    noise = tmp_path / "noise.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)).save(noise, quality=40)
    env = {"I2V_LAB_OUTPUT__DIRECTORY": "disk/results", "I2V_LAB_LOG__DIRECTORY": logs}
    assert i2v_lab("generate", "--image", noise, *FAKE, env=env).returncode == 0
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - room)))
    large = ("generate", "--image", noise, "--model", "fake", "--resolution", "1024p", "--num-frames", "4")
    failed = i2v_lab(*large, env=env)
    lines = [line for line in failed.stderr.splitlines() if not line.startswith("advice: ")]
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "full" in lines[-1]
    assert "free some space" in lines[-1]
    assert [line for line in lines[:-1] if not line.startswith("no log is written")] == []
    before, record = records(small_disk / "results")
    assert record["status"] == "failed"
    assert f"failed: {record['reason']}" == lines[-1]
    assert [str(path) for path in (small_disk / "results" / "clips").iterdir()] == [before["clip"]]
    ballast.unlink()
    assert i2v_lab(*large, env=env).returncode == 0
