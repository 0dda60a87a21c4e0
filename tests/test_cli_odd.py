"""What is odd in what is given: empty options, names and locales that are no text, devices that are not here, what a clip carries."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from commands import FAKE, answer, complaint
from conftest import finish, start

from i2v_lab.clip import video


def clip_that_says(folder: Path, settings: dict[str, object], stem: str = "clip") -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    return video.write(frames, folder, stem=stem, fps=Fraction(8), settings=settings).path


def test_what_a_clip_carries_is_strict_ascii_json_for_a_program(inside, tmp_path):
    clip = clip_that_says(tmp_path, {"params": {"prompt": "a\x9b31m\u202eb"}, "record": {"n": 12345.5, "x": 12345.5}})
    clip.write_bytes(clip.read_bytes().replace(b"12345.5", b"NaN    ", 1).replace(b"12345.5", b"1e99999", 1))
    done = inside("show", clip, "--json")
    assert done.returncode == 0 and done.stdout.isascii()
    assert json.loads(done.stdout, parse_constant=pytest.fail)["record"] == {"n": None, "x": None}
    assert json.loads(done.stdout)["params"] == {"prompt": "a\x9b31m\u202eb"}
    shown = inside("show", clip).stdout
    assert all(line.isprintable() for line in shown.splitlines())


def test_show_and_again_take_several_clips_and_go_on_after_one_that_is_none(i2v_lab, inside, tmp_path):
    first, second = (
        answer(i2v_lab("generate", "--image", "sample:cat", *FAKE, "--seed", seed, "--json"))["clip"] for seed in (1, 2)
    )
    done = inside("show", first, "none.mp4", second, "--json")
    assert (done.returncode, [json.loads(line)["params"]["seed"] for line in done.stdout.splitlines()]) == (2, [1, 2])
    assert done.stderr == "error: none.mp4: there is no such file; expected an MP4, WebM or GIF\n"
    done = i2v_lab("again", first, "none.mp4", second, "--json", "--output-dir", "other")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, [(record["params"]["seed"], record["frames_equal"]) for record in said]) == (2, [(1, True), (2, True)])


@pytest.mark.parametrize("words", [
    ("generate", "--image", "sample:cat", *FAKE, "--output-dir", ""), ("runs", "--output-dir", ""), ("doctor", "--output-dir", ""),
    ("sweep", "--axis", "seed=1", "--output-dir", ""), ("measure", "x.mp4", "--output-dir", ""), ("plan", "--output-dir", ""),
    ("again", "x.mp4", "--output-dir", ""), ("batch", "x.csv", "--output-dir", ""), ("serve", "--output-dir", ""),
    ("generate", "--image", "sample:cat", *FAKE, "--device", ""),
])  # fmt: skip
def test_an_empty_option_is_an_error_and_not_the_current_folder(words, inside, tmp_path):
    assert f"{words[-2]}: expected a value, got an empty text" in complaint(inside(*words), code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_here_is_an_error_and_for_a_model_of_the_cpu_a_warning(i2v_lab, inside, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    cuda, small = ("--device", "cuda:0"), ("--model", "i2vgen-xl", "--resolution", "256p")
    done = i2v_lab("generate", "sample:cat", *small, *cuda)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        "error: device: expected a device of CUDA as cuda:0, got a machine where torch sees none; use --device cpu"
    )
    assert "--vram 12" in complaint(inside("plan", "sample:cat", *small, *cuda), code=2)
    sweep = ("sweep", "--name", "x", "--base", "image=sample:cat", "--axis", "seed=1,2", *cuda, "--no-report")
    assert "got a machine where torch sees none" in complaint(inside(*sweep, "--base", "model=i2vgen-xl"), code=2)
    assert not (tmp_path / "results").exists()
    unused = "closed-form runs on the CPU alone, so device cuda:0 is not used"
    done = i2v_lab(
        "generate", "sample:cat", "zoom in", "--resolution", "64x64", "--num-frames", 2, "--num-inference-steps", 1, *cuda
    )
    assert done.returncode == 0
    assert f"note: {unused}" in done.stderr.splitlines()
    assert f"warning: {unused}" in inside("plan", "sample:cat", *cuda).stderr.splitlines()


def test_a_locale_that_cannot_hold_the_prompt_is_named(tmp_path):
    env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = finish(start("generate", "--image", "sample:cat", *FAKE, "--prompt", "猫", cwd=tmp_path, env=env, cold=True))
    assert "prompt: expected text in ascii, the encoding of the locale C" in complaint(done, code=2)
    assert "LC_ALL=C.UTF-8" in done.stderr


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text_works_or_is_refused_in_one_line(i2v_lab, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    made = answer(i2v_lab("generate", "--image", "sample:cat", *FAKE, "--json", "--output-dir", folder))
    assert Path(made["clip"]).is_file()
    sweep = (
        "sweep",
        "--name",
        "x",
        "--base",
        "image=sample:cat",
        "--base",
        "model=fake",
        "--base",
        "resolution=64x64",
        "--base",
        "num_frames=3",
    )
    assert "--no-report" in complaint(i2v_lab(*sweep, "--axis", "seed=1,2", "--output-dir", folder), code=2)
    done = i2v_lab(*sweep, "--axis", "seed=1,2", "--no-report", "--output-dir", folder, "--json")
    assert (json.loads(done.stdout)["counts"], done.stderr) == ({"done": 2}, "")
    for words in (("runs",), ("runs", "--json"), ("doctor",), ("measure", "--missing")):
        done = i2v_lab(*words, "--output-dir", folder)
        assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "utf-8" in complaint(i2v_lab("runs", "--csv", "--output-dir", folder), code=1)
    for words in (
        ("show", folder / "x.mp4"),
        ("batch", folder / "x.csv"),
        ("sweep", folder / "x.yaml"),
        ("plan", folder / "x.yaml"),
    ):
        assert "caf\\udce9" in complaint(i2v_lab(*words), code=2)
