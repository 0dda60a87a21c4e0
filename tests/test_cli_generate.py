"""`generate`: the clip that was asked for, the answer, wrong options, and the settings it takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from commands import FAKE, answer, complaint, ffprobe, needs_ffprobe, records
from conftest import finish, start

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> list[tuple[dict[str, Any], str]]:
    """The same clip of a photograph by two processes, each in a folder of its own: (the answer, standard error).

    The first is a Python of its own, with other hashes of strings.
    """
    words = (
        "--image",
        photograph,
        "--prompt",
        "zoom in slowly",
        "--resolution",
        "256p",
        "--num-inference-steps",
        "4",
        "--num-frames",
        "7",
    )
    begun = [
        start("generate", *words, "--fps", "24000/1001", "--json", cwd=tmp_path_factory.mktemp("clip"), cold=cold)
        for cold in (True, False)
    ]
    return [(answer(done), done.stderr) for done in map(finish, begun)]


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


def test_the_second_time_the_clip_is_there_and_force_makes_it_again(i2v_lab, photograph):
    words = ("generate", "--image", photograph, *FAKE)
    first = answer(i2v_lab(*words, "--json"))
    second = i2v_lab(*words)
    assert second.stdout.splitlines() == [first["clip"]]
    assert "made before" in second.stderr
    again = answer(i2v_lab(*words, "--json"))
    assert again == {**first, "made_before": True}
    third = answer(i2v_lab(*words, "--json", "--force"))
    assert third["made_before"] is False
    assert third["clip"] != first["clip"]
    assert third["frames_sha256"] == first["frames_sha256"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.jpg", *FAKE), "none.jpg: expected a picture file, got no such file"),
        (("sample:cat", "zoom in", "--resolution", "256p", "--dtype", "float16"), "nearest: float32"),
        (("sample:cat", "--model", "no-such-model"), "expected closed-form, "),
    ],
)
def test_what_cannot_be_begun_is_one_line_and_no_run(words, said, i2v_lab, tmp_path):
    for more in ((), ("--json",)):
        assert said in complaint(i2v_lab("generate", *words, *more), code=2)
    assert records(tmp_path / "results") == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--image", "x", "--num-frames", "0", "--seed", "-2", "--fps", "abc"), ["num_frames", "seed", "fps"]),
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


def test_picture_and_prompt_come_with_and_without_their_names(i2v_lab, inside, photograph):
    named = answer(i2v_lab("generate", "--image", photograph, "--prompt", "zoom in", *FAKE, "--json"))
    plain = answer(i2v_lab("generate", photograph, "zoom in", *FAKE, "--json"))
    assert (plain["id"], plain["made_before"]) == (named["id"], True)
    for words, both in ((("a.jpg", "--image", "b.jpg"), "image: expected one, got two: 'a.jpg' and --image 'b.jpg'"),
                        (("a.jpg", "x", "--prompt", "y"), "prompt: expected one, got two: 'x' and --prompt 'y'")):  # fmt: skip
        for command in ("generate", "plan"):
            assert both in complaint(inside(command, *words), code=2)


def test_a_prompt_with_markup_and_colours_is_taken_as_it_is_and_shown_harmless(i2v_lab, inside, photograph):
    prompt = "[bold]zoom[/bold] :smile: \x1b[31m in"
    record = answer(i2v_lab("generate", "--image", photograph, "--prompt", prompt, *FAKE, "--json"))
    assert record["params"]["prompt"] == prompt
    for words in (("show", record["clip"]), ("runs",)):
        done = i2v_lab(*words, env={"COLUMNS": "160"})
        assert done.returncode == 0
        assert r"[bold]zoom[/bold] :smile: \x1b[31m in" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr
    assert "expected text in utf-8" in complaint(inside("generate", "--image", os.fsdecode(b"caf\xe9.jpg"), *FAKE), code=2)


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
