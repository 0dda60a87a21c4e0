"""The command line as people start it: real processes in an empty folder, what they answer and what they leave behind."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer.main
from conftest import environment, start
from PIL import Image

from i2v_lab import cli
from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.store import Store

FAKE = ("--model", "fake", "--resolution", "64x96", "--num-frames", "3")
needs_ffprobe = pytest.mark.skipif(
    not shutil.which("ffprobe"), reason="ffprobe is not on the PATH (Debian: apt-get install ffmpeg)"
)


def answer(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    """The one JSON object on standard output."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def complaint(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on standard error, where there is nothing on standard output."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def records(folder: Path, *only: str) -> list[dict[str, Any]]:
    """The runs that another process reads from the record, without the metrics, which come a moment after the clip."""
    with start("runs", "--json", "--output-dir", folder, *only, cwd=folder.parent) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return [{**json.loads(line), "metrics": {}} for line in out.splitlines()]


# The help


def test_every_field_of_clip_params_is_an_option_with_unit_range_and_default():
    command: Any = typer.main.get_command(cli.app)
    options = {option.opts[0]: option.help for option in command.commands["generate"].params}
    for name, about in ClipParams.model_json_schema()["properties"].items():
        help = options[f"--{name.replace('_', '-')}"]
        assert help.startswith(about["description"])
        if about.get("unit"):
            assert f"({about['unit']})" in help
        if about.get("default", "") != "":
            assert f"[default: {about['default']}]" in help
        for choice in about.get("enum", ()):
            assert choice in help
    assert ", 2 to 256 (frames) [default: 16]" in options["--num-frames"]
    assert ", 1 to 120 (frames/s) [default: 8]" in options["--fps"]
    assert ", 0 to 50 [default: 9.0]" in options["--guidance-scale"]
    assert "0 or more [default: 0]" in options["--seed"]
    assert options["--image"].endswith("[required]")


def test_the_module_is_the_command_and_its_help_loads_nothing_heavy(tmp_path):
    script = Path(sys.executable).with_name("i2v-lab")
    said = subprocess.run([script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "i2v_lab", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == said.stdout
    for command in ("generate", "batch", "runs", "show", "again", "models", "doctor"):
        assert f"\n  {command} " in said.stdout
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "i2v_lab" in loaded
    assert not loaded & {"torch", "pandas", "diffusers", "cv2", "numpy", "matplotlib"}
    assert list(tmp_path.iterdir()) == []


# generate


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> list[tuple[dict[str, Any], str]]:
    """The same clip of a photograph by two processes, each in a folder of its own: (the answer, standard error)."""
    words = ("--image", photograph, "--prompt", "zoom in slowly", "--resolution", "256p", "--num-inference-steps", "4")
    begun = [
        start("generate", *words, "--num-frames", "7", "--fps", "24000/1001", "--json", cwd=tmp_path_factory.mktemp(name))
        for name in ("one", "two")
    ]
    made = []
    for process in begun:
        with process:
            out, err = process.communicate(timeout=120)
        made.append((answer(subprocess.CompletedProcess([], process.returncode, out, err)), err))
    return made


def ffprobe(clip: str | Path) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", clip]
    stream: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"][0]
    return stream


@needs_ffprobe
def test_ffprobe_finds_the_clip_that_was_asked_for(two):
    stream = ffprobe(two[0][0]["clip"])
    assert (stream["codec_name"], stream["pix_fmt"]) == ("h264", "yuv420p")
    assert (stream["width"], stream["height"]) == (256, 256)
    assert stream["nb_read_frames"] == "7"
    assert stream["r_frame_rate"] == stream["avg_frame_rate"] == "24000/1001"


def test_two_processes_make_equal_frames(two):
    (one, _), (other, _) = two
    assert one["frames_sha256"] == other["frames_sha256"]
    assert one["clip"] != other["clip"]
    assert one["key"] == other["key"]


def test_the_answer_says_what_came_of_it_and_what_it_cost(two, photograph):
    record, err = two[0]
    assert (record["status"], record["reason"], record["made_before"]) == ("done", "", False)
    assert Path(record["clip"]).is_absolute()
    assert len(record["frames_sha256"]) == 64
    assert list(record["seconds"]) == ["load", "encode", "denoise", "decode", "write", "total"]
    assert all(value > 0 for value in record["seconds"].values())
    assert 0.05 < record["peak_ram_gib"] < 8
    params = ClipParams(**record["params"])
    assert params == ClipParams(
        image=str(photograph), prompt="zoom in slowly", resolution="256p", num_inference_steps=4, num_frames=7, fps="24000/1001"
    )
    assert all(line.startswith("advice: ") for line in err.splitlines())  # and no bars


@needs_ffprobe
def test_an_odd_size_is_padded_by_one_row_and_column_and_it_is_said(i2v_lab, photograph):
    done = i2v_lab("generate", "--image", photograph, "--model", "fake", "--resolution", "65x99")
    assert done.returncode == 0
    (clip,) = done.stdout.splitlines()
    assert "note: padded by 1 row and 1 column" in done.stderr
    stream = ffprobe(clip)
    assert (stream["height"], stream["width"], stream["avg_frame_rate"]) == (66, 100, "8/1")


def test_the_second_time_the_clip_is_there_and_force_makes_it_anew(i2v_lab, photograph):
    words = ("generate", "--image", photograph, *FAKE)
    first = answer(i2v_lab(*words, "--json"))
    second = i2v_lab(*words)
    assert second.stdout.splitlines() == [first["clip"]]
    assert "made before" in second.stderr
    again = answer(i2v_lab(*words, "--json"))
    assert {**again, "metrics": {}} == {**first, "made_before": True}
    third = answer(i2v_lab(*words, "--json", "--force"))
    assert third["made_before"] is False
    assert third["clip"] != first["clip"]
    assert third["frames_sha256"] == first["frames_sha256"]


def test_a_missing_picture_is_a_failed_run_and_one_line(i2v_lab, tmp_path):
    record = answer(i2v_lab("generate", "--image", "none.jpg", *FAKE, "--json"), code=1)
    assert (record["status"], record["clip"]) == ("failed", "")
    assert "none.jpg" in record["reason"]
    assert complaint(i2v_lab("generate", "--image", "none.jpg", *FAKE), code=1) == f"failed: {record['reason']}"
    assert [run["status"] for run in records(tmp_path / "results")] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--image", "x", "--num-frames", "0", "--seed", "-1", "--fps", "abc"), ["num_frames", "seed", "fps"]),
        (("--num-frames", "many", "--guidance-scale", "nan"), ["image: missing", "num_frames", "guidance_scale"]),
        (("--image", "x", "--preset", "best"), ["preset: expected quick"]),
        (("--image", "x", "--format", "avi"), ["output.format"]),
        (("--image", "x", "--prefix", "../x"), ["output.prefix"]),
        (("--image", "x", "--device", "tpu"), ["device"]),
    ],
)
def test_options_that_are_wrong_are_one_line_that_names_them_all(words, named, inside, tmp_path):
    line = complaint(inside("generate", *words, "--json"), code=2)
    assert line.startswith("error: ")
    assert all(name in line for name in named)
    assert not (tmp_path / "results").exists()


def test_a_prompt_with_markup_and_colours_is_taken_as_it_is_and_shown_harmless(i2v_lab, inside, photograph):
    prompt = "[bold]zoom[/bold] :smile: \x1b[31m in"
    record = answer(i2v_lab("generate", "--image", photograph, "--prompt", prompt, *FAKE, "--json"))
    assert record["params"]["prompt"] == prompt
    for words in (("show", record["clip"]), ("runs",)):
        done = i2v_lab(*words, env={"COLUMNS": "160"})
        assert done.returncode == 0
        assert r"[bold]zoom[/bold] :smile: \x1b[31m in" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr
    assert "unicode" in complaint(inside("generate", "--image", os.fsdecode(b"caf\xe9.jpg"), *FAKE), code=2)


# again, show


def test_a_clip_in_an_empty_folder_is_made_again(i2v_lab, inside, two, photograph, tmp_path):
    record, _ = two[0]
    clip = Path(shutil.copy(record["clip"], tmp_path))
    line = complaint(inside("again", clip.name), code=2)
    assert "--image" in line
    assert record["image_sha256"][:16] in line
    assert "got another" in complaint(inside("again", clip.name, "--image", "sample:cat"), code=2)
    done = i2v_lab("again", clip.name, "--image", photograph, "--json")
    again = answer(done)
    assert again["frames_sha256"] == record["frames_sha256"]
    assert again["frames_equal"] is True
    assert "frames are equal" in done.stderr
    assert Path(again["clip"]).is_relative_to(tmp_path / "results")


def test_with_the_store_the_picture_is_found_by_its_hash(i2v_lab, photograph, tmp_path):
    picture = tmp_path / "moved away.jpg"
    shutil.copy(photograph, picture)
    record = answer(i2v_lab("generate", "--image", picture, *FAKE, "--json"))
    picture.unlink()
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(record["clip"], alone / "clip.mp4")
    again = i2v_lab("again", "clip.mp4", "--output-dir", tmp_path / "results", cwd=alone)
    assert again.returncode == 0
    assert "frames are equal" in again.stderr
    assert again.stdout.strip() != record["clip"]


def test_settings_in_a_clip_that_make_no_sense_are_one_line(inside, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    carried = {"image": "../../etc/passwd", "num_frames": 10**9, "\x1b[2Jname": "[red]", "self": 1, "prompt": "x" * 10**6}
    settings = {"params": carried, "record": {"image_sha256": "0" * 64}}
    clip = video.write(frames, tmp_path, stem="odd", fps=Fraction(8), settings=settings).path
    line = complaint(inside("again", clip), code=2)
    assert all(name in line for name in ("num_frames", "prompt", "self: unknown", r"\x1b[2Jname"))
    assert "\x1b" not in line
    assert len(line) < 2500
    picture = tmp_path / "holiday.jpg"
    Image.fromarray(frames[0]).save(picture)
    assert "carries no settings" in complaint(
        inside("again", video.write(frames, tmp_path, stem="x", fps=Fraction(8)).path), code=2
    )
    assert "holiday.jpg" in complaint(inside("show", picture), code=2)
    assert "no such file" in complaint(inside("show", "none.mp4"), code=2)


def test_show_answers_with_what_is_inside(inside, two, tmp_path):
    record, _ = two[0]
    assert answer(inside("show", record["clip"], "--json")) == video.read_settings(record["clip"])
    shown = inside("show", record["clip"]).stdout.splitlines()
    assert "prompt: zoom in slowly" in shown
    assert "fps: 24000/1001" in shown
    assert f"frames_sha256: {record['frames_sha256']}" in shown


# batch


def rows_csv(photograph: Path) -> str:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([
        ["image", "model", "resolution", "num_frames", "seed", "prompt"],
        [photograph, "fake", "64x64", "3", "1", "zoom in,\nslowly\u2028now"],
        [photograph, "fake", "64x64", "1000", "2", ""],
        ["none.jpg", "fake", "64x64", "3", "3", ""],
        [photograph, "fake", "64x64", "3", "4", "", "one too many"],
        [photograph, "fake", "64x64", "", "1", "last"],
    ])  # fmt: skip
    return table.getvalue()


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a batch with good and bad rows, and how it ended."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "clips.csv").write_bytes(b"\xef\xbb\xbf" + rows_csv(photograph).encode())
    with start("batch", "clips.csv", "--json", cwd=folder) as process:
        out, err = process.communicate(timeout=60)
    return folder, subprocess.CompletedProcess([], process.returncode, out, err)


def test_bad_rows_are_recorded_and_passed_over(batch):
    folder, done = batch
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["status"] for record in said] == ["done", "failed", "failed", "failed", "done"]
    assert said[0]["params"]["prompt"] == "zoom in,\nslowly\u2028now"
    assert said[1]["params"] is None
    assert "num_frames" in said[1]["reason"]
    assert "none.jpg" in said[2]["reason"]
    assert "more columns than the header" in said[3]["reason"]
    assert said[4]["params"]["num_frames"] == 16  # an empty cell is the default
    assert [{**record, "made_before": False} for record in records(folder / "results")] == said


def test_jsonl_a_line_a_clip(i2v_lab, photograph, tmp_path):
    row = {"image": str(photograph), "resolution": "64x64", "num_frames": 3, "prompt": "a\u2028b"}
    lines = [json.dumps(row, ensure_ascii=False), "", "{broken", "[1]", json.dumps({**row, "steps": 3}), "[" * 100_000,
             json.dumps({**row, "seed": 2**200, "self": 1})]  # fmt: skip
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    (tmp_path / "config.yaml").write_text("model: fake\noutput:\n  prefix: many_\n")
    done = i2v_lab("batch", "clips.jsonl", "--json")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [record["status"] for record in said] == ["done", *["failed"] * 5]
    assert said[0]["params"]["model"] == "fake"
    assert said[0]["params"]["prompt"] == "a\u2028b"
    assert Path(said[0]["clip"]).name.startswith("many_")
    for record, expected in zip(
        said[1:], ["line 3 is not JSON", "line 4: expected an object", "steps: unknown", "line 6", "self"], strict=True
    ):
        assert expected in record["reason"]
        assert "Traceback" not in record["reason"]
    (tmp_path / "good.jsonl").write_text(lines[0])
    assert answer(i2v_lab("batch", "good.jsonl", "--json"))["made_before"] is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [("image,steps,guidance\nx,3,4\n", "'steps', 'guidance'"), ("", "at least one row"), ("image\n", "at least one row"),
     ("seed,seed\n1,2\n", "'seed' twice"), (None, "expected a CSV or JSONL file")],
)  # fmt: skip
def test_a_table_that_is_none_is_one_line_before_anything_runs(text, expected, inside, tmp_path):
    if text is not None:
        (tmp_path / "clips.csv").write_text(text)
    assert expected in complaint(inside("batch", "clips.csv", "--json"), code=2)
    assert not (tmp_path / "results" / "clips").exists() or not list((tmp_path / "results" / "clips").iterdir())


# runs


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_runs_can_be_read(width, batch, i2v_lab):
    folder, done = batch
    said = [json.loads(line) for line in done.stdout.splitlines()]
    shown = i2v_lab("runs", cwd=folder, env={"COLUMNS": str(width)})
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= width
    words = " ".join(shown.stdout.split())
    for record in said:
        if record["clip"]:
            (line,) = [line for line in shown.stdout.splitlines() if Path(record["clip"]).name in line]
            assert line.split()[2:4] == ["64x64", str(record["params"]["num_frames"])]
        else:
            assert record["reason"].split(";")[-1].strip() in words
    assert ("zoom in" in words) == (width == 160)
    newest = i2v_lab("runs", "--limit", "1", cwd=folder).stdout.splitlines()
    assert len(newest) == 2
    assert Path(said[-1]["clip"]).name in newest[1]


def test_pandas_reads_the_csv_of_runs(batch, i2v_lab, inside):
    folder, done = batch
    said = [json.loads(line) for line in done.stdout.splitlines()]
    table = pd.read_csv(io.StringIO(i2v_lab("runs", "--csv", cwd=folder).stdout))
    assert table["id"].tolist() == [record["id"] for record in said]
    assert table["clip"].fillna("").tolist() == [record["clip"] for record in said]
    assert table["seed"].dropna().tolist() == [1, 3, 1]
    only = pd.read_csv(io.StringIO(i2v_lab("runs", "--csv", "--status", "done", cwd=folder).stdout))
    assert only["status"].tolist() == ["done", "done"]
    assert [record["status"] for record in records(folder / "results", "--status", "failed")] == ["failed"] * 3
    assert "--status" in complaint(inside("runs", "--status", "good"), code=2)


def test_no_runs_yet_is_said_and_a_reader_who_leaves_is_no_error(batch, i2v_lab, tmp_path):
    assert "no such runs" in complaint(i2v_lab("runs"), code=0)
    store = Store(tmp_path / "results")
    one = Store(batch[0] / "results").records()[0]
    store.save_many(one.model_copy(update={"id": f"{number:06}"}) for number in range(2000))
    with start("runs", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["id"] == "000000"
        process.stdout.close()
        assert process.stderr.read() == ""


# models, doctor


def test_models_lists_families_with_licences(inside):
    found = {row["model"]: row for row in json.loads(inside("models", "--json").stdout)}
    assert set(found) == {"closed-form", "i2vgen-xl"}
    assert found["closed-form"]["licence"] == "Apache-2.0"
    assert "quick" in found["i2vgen-xl"]["presets"]
    text = inside("models").stdout
    assert all(row["licence"] in text and row["about"] in text for row in found.values())


def test_doctor_finds_what_is_there_and_what_is_not(i2v_lab, inside, tmp_path):
    done = i2v_lab("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    assert {"Python", "packages", "device", "memory", "FFmpeg", "output folder", "checkpoints"} == set(checks)
    assert "libx264" in checks["FFmpeg"]["found"]
    assert "torch " in checks["packages"]["found"]
    assert all(check["remedy"] for check in checks.values() if check["state"] != "ok")
    assert list(tmp_path.iterdir()) == []  # it looks and changes nothing
    (tmp_path / "file").write_text("")
    done = inside("doctor", "--output-dir", "file/results")
    assert done.returncode == 1
    assert "missing  output folder: file/results cannot be written" in done.stdout
    assert "--output-dir" in done.stdout


# Settings


def test_settings_come_from_the_file_the_environment_and_the_options_in_this_order(i2v_lab, photograph, tmp_path):
    (tmp_path / "config.yaml").write_text("model: fake\noutput:\n  directory: from_file\n  format: webm\n  prefix: f_\n")
    words = ("generate", "--image", photograph, "--resolution", "64x64", "--num-frames", "2")

    def made(*more: str, **env: str) -> Path:
        return Path(i2v_lab(*words, *more, env=env).stdout.strip()).relative_to(tmp_path)

    clip = made()
    assert (clip.parts[0], clip.name[:2], clip.suffix) == ("from_file", "f_", ".webm")
    assert video.probe(tmp_path / clip).codec == "vp9"
    clip = made(I2V_LAB_OUTPUT__DIRECTORY="from_env", I2V_LAB_OUTPUT__FORMAT="gif")
    assert (clip.parts[0], clip.name[:2], clip.suffix) == ("from_env", "f_", ".gif")
    clip = made("--output-dir", "given", "--format", "mp4", "--prefix", "", I2V_LAB_OUTPUT__DIRECTORY="from_env")
    assert (clip.parts[0], clip.name[:2], clip.suffix) == ("given", "20", ".mp4")


@pytest.mark.parametrize(
    ("config", "env", "named"),
    [
        ("output:\n  fromat: gif\n", {}, ["config.yaml", "output.fromat", "format"]),
        ("output:\n  format: avi\n", {}, ["config.yaml", "output.format", "avi"]),
        ("output: [", {}, ["config.yaml", "line"]),
        ("", {"I2V_LAB_OUTPUT__DIR": "x"}, ["I2V_LAB_OUTPUT__DIR", "I2V_LAB_OUTPUT__DIRECTORY"]),
    ],
)
def test_a_bad_setting_is_named(config, env, named, inside, tmp_path):
    (tmp_path / "config.yaml").write_text(config)
    line = complaint(inside("generate", "--image", "x.jpg", env=env), code=2)
    assert all(name in line for name in named)


# The screen and the log


def test_a_terminal_shows_bars_and_the_answer_stays_clean(photograph, tmp_path):
    controller, terminal = pty.openpty()
    words = ("generate", "--image", str(photograph), *FAKE)
    with subprocess.Popen(
        [sys.executable, "-m", "i2v_lab", *words], cwd=tmp_path, env=environment(tmp_path, TERM="xterm", COLUMNS="100"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal, text=True,
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
    assert [line.partition(":")[0] for line in failed.stderr.splitlines()] == ["no log is written", "failed"]


# Ends before the end, many at once, a full disk

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
    assert list((tmp_path / "results" / "clips").iterdir()) == []
    assert [run["status"] for run in records(tmp_path / "results")] == ["stopped"]


def test_after_a_kill_the_next_command_records_the_failure(photograph, tmp_path):
    with long_run(photograph, tmp_path) as process:
        process.kill()
    (record,) = records(tmp_path / "results")
    assert record["status"] == "failed"
    assert record["reason"] == "the process ended before the clip was done"
    assert list((tmp_path / "results" / "clips").iterdir()) == []


def test_eight_processes_make_eight_clips_in_one_folder(photograph, tmp_path):
    processes = [start("generate", "--image", photograph, *FAKE, "--seed", seed, "--json", cwd=tmp_path) for seed in range(8)]
    said = []
    for process in processes:
        with process:
            out, err = process.communicate(timeout=120)
        said.append(answer(subprocess.CompletedProcess([], process.returncode, out, err)))
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
        subprocess.run(["umount", "--lazy", folder], check=True)  # what measures clips may still look at it


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("mount"), reason="there is no mount command")
@pytest.mark.parametrize(("room", "logs"), [(200_000, "logs"), (0, "disk/logs")])
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
