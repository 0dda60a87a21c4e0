"""What the command line shows in a terminal of 80 columns, and what a program reads: all of it, unbroken."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from conftest import environment
from rich.cells import cell_len
from sweeps import TINY
from warm import Warm

from i2v_lab.cli.tables import lay_out
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.store import Store

PROMPT = "a red boat drifts over the lake while the camera slowly pans left and leaves fall; 镜头缓缓向左平移，树叶飘落在水面上"


def sent(*words: object, cwd: Path, columns: int = 80) -> str:
    """All that a command sends to a terminal."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with Warm([str(word) for word in words], cwd=cwd, env=environment(cwd, TERM="xterm"), stdin=subprocess.DEVNULL, stdout=terminal,
              stderr=terminal, text=True):  # fmt: skip
        os.close(terminal)
        shown = b""
        while block := _read(controller):
            shown += block
    os.close(controller)
    assert b"Traceback" not in shown
    return shown.decode()


def screen(*words: object, cwd: Path, columns: int = 80) -> list[str]:
    """The lines of a terminal after a command has ended; those that the terminal itself had to break are longer than it."""
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", sent(*words, cwd=cwd, columns=columns).replace("\r\n", "\n")).split("\n")
    return [line.rpartition("\r")[2] for line in lines]  # what a bar has left there


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65536)
    except OSError:  # EIO: the other end was closed
        return b""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with results: a run that is done, with all that people ask for, and one that failed."""
    store = Store(tmp_path / "results")
    store.clips.mkdir(parents=True)
    (store.clips / "boat.mp4").write_bytes(b"-")
    params = ClipParams(image="/home/me/photo of a lake.jpg", prompt=PROMPT, seed=2**31 - 1, resolution="704x1280", num_frames=121)
    common = {"params": params, "model_name": "closed-form", "device": "cpu", "device_name": "a CPU", "seconds": {"total": 12.5}}
    store.save_many([
        RunRecord(id=new_id(), status="done", clip="clips/boat.mp4", peak_ram_gib=1.5, predicted_peak_gib=1.0, **common),
        RunRecord(id="20261122T181530.123456-ab12cd34", status="failed", reason="the model failed: " + "try another dtype, " * 9, **common),
    ])  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps({
        "name": "s", "base": TINY, "axes": {"prompt": [PROMPT, "zoom in"], "guidance_scale": [1, 2], "resolution": ["64x64", "64x96"]},
    }))  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("words", [
    (), ("--help",), ("generate", "--help"), ("runs",), ("models",), ("plan", "sample:coffee", "zoom in", "--resolution", "512p"),
    ("plan", "sample:cat", "--vram", "8,12,16,24,80"), ("plan", "--accuracy"), ("plan", "s.yaml", "--vram", "8,12,16,24,80"), ("plan", "s.yaml"),
    ("sweep", "s.yaml", "--dry-run"), ("show", "20261122T181530.123456-ab12cd34"), ("generate", "nowhere.jpg", "zoom in"),
], ids=" ".join)  # fmt: skip
def test_nothing_is_cut_or_broken_at_80_columns(words, results):
    lines = screen(*words, cwd=results)
    assert len(lines) > 1
    assert [line for line in lines if cell_len(line) > 80] == []
    assert not [line for line in lines if "…" in line or ("..." in line and not re.search(r"\]\.\.\.|usage", line.lower()))]


def test_the_runs_say_what_was_asked_for(results, i2v_lab):
    said = " ".join(" ".join(screen("runs", cwd=results)).split())
    piped = i2v_lab("runs").stdout.splitlines()
    assert PROMPT.replace(" ", "") in said.replace(" ", "")
    assert len(piped) == 3  # the heads, and a line a run
    for text in (
        "photo of a lake.jpg",
        "2147483647",
        "704x1280",
        "121",
        "12.5",
        "clips/boat.mp4",
        "failed 20261122T181530.123456-ab12cd34",
    ):
        assert text in said
        assert any(text in line for line in piped)
    assert all(PROMPT in line for line in piped[1:])
    wide = screen("runs", cwd=results, columns=600)
    assert [line for line in wide if line] == piped


def test_a_program_reads_every_cell_of_a_long_plan(results, i2v_lab):
    (results / "long.yaml").write_text(json.dumps({"name": "long", "base": TINY, "axes": {"seed": "0..59"}}))
    piped = i2v_lab("sweep", "long.yaml", "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in piped[-60:]] == [str(number) for number in range(1, 61)]
    assert "... and 20 more cells" in screen("sweep", "long.yaml", "--dry-run", cwd=results)[-2]


def test_how_a_table_gives_way():
    heads, rows = ["name", "value", "text"], [["一", 1, "words " * 10], ["two", 12.5, "-"]]
    assert lay_out(heads, rows, None) == ["name  value  text", "一        1  " + "words " * 9 + "words", "two    12.5  -"]
    narrow = "words words words words words"
    assert lay_out(heads, rows, 42) == ["name  value  text", f"一        1  {narrow}", f"             {narrow}", "two    12.5  -"]
    many = [[f"column {number}", *(f"{number}.{row}" for row in range(2))] for number in range(9)]
    shown = lay_out([column[0] for column in many], [[column[row] for column in many] for row in (1, 2)], 40)
    assert max(map(len, shown)) <= 40
    assert [line.split()[0] for line in shown if line] == ["column", "0.0", "0.1"] * 3
    assert sum(line.count(".0") for line in shown) == 9 + 2  # the first column begins each part


def test_alone_it_says_how_to_begin(inside):
    done = inside("--help")
    alone = inside()
    assert (alone.stdout + alone.stderr).split() == done.stdout.split()
    lines = [line.strip() for line in done.stdout.splitlines()]
    begin = lines[lines.index("Begin with:") + 1 : lines.index("Options:")]
    assert [line for line in begin if line.startswith("i2v-lab")][0:1] == [line for line in begin if line][0:1]
    assert any(line.startswith('i2v-lab generate photo.jpg "zoom in"') for line in begin)
    assert "Make many clips, one after another; a row that fails is recorded and passed over." in " ".join(lines)


def test_the_version(inside):
    done = inside("--version")
    assert (done.returncode, re.fullmatch(r"i2v-lab \d+\.\d+\.\d+\n", done.stdout) is not None) == (0, True)


def test_a_plan_shows_what_it_does_while_it_works_and_a_program_sees_nothing_of_it(results, inside):
    assert "predicting closed-form 256p: the first time takes some seconds" in sent(
        "plan", "sample:cat", "--resolution", "256p", cwd=results
    )
    assert "predicting" not in inside("plan", "sample:cat", "--resolution", "256p").stderr
