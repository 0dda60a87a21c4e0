"""`again` and `show`: a clip from the settings that it carries; `delete`."""

from __future__ import annotations

import re
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import FAKE, answer, complaint, records
from conftest import finish, start
from PIL import Image

from i2v_lab.clip import video


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> dict[str, Any]:
    """The answer of a clip of a photograph, by the closed-form model."""
    words = (
        "--image",
        photograph,
        "--prompt",
        "zoom in slowly",
        "--resolution",
        "128x128",
        "--num-inference-steps",
        "4",
        "--num-frames",
        "5",
    )
    made = start("generate", *words, "--fps", "24000/1001", "--json", cwd=tmp_path_factory.mktemp("clip"))
    return answer(finish(made))


def test_a_clip_in_an_empty_folder_is_made_again(i2v_lab, inside, record, photograph, tmp_path):
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


@pytest.mark.slow
def test_on_another_kind_of_processor_it_says_so(i2v_lab, tmp_path):
    words = ("--image", "sample:coffee", "--prompt", "zoom in", "--resolution", "128x128", "--num-inference-steps", 4,
             "--num-frames", 5, "--guidance-scale", 1)  # fmt: skip
    first = answer(i2v_lab("generate", *words, "--json"))
    if first["cpu_capability"] == "DEFAULT":
        pytest.skip("this processor has no other kind of instructions to compare with")
    again = i2v_lab("again", first["clip"], "--json", env={"ATEN_CPU_CAPABILITY": "default"}, cold=True)
    found = answer(again)
    assert (found["cpu_capability"], found["frames_equal"]) == ("DEFAULT", False)
    assert f"another kind of processor ({first['cpu_capability']}, now DEFAULT), which changes up to 1 grey level" in again.stderr
    one, other = (video.read(Path(record["clip"])).astype(int) for record in (first, found))
    assert abs(one - other).max() <= 2  # of the files: a level more by their coding


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


def test_show_answers_with_what_is_inside(inside, record):
    assert answer(inside("show", record["clip"], "--json")) == video.read_settings(record["clip"])
    shown = dict(line.split(": ", 1) for line in inside("show", record["clip"]).stdout.splitlines() if ": " in line)
    found = {name: value.strip() for name, value in shown.items()}
    assert list(found)[:2] == ["prompt", "image"]
    assert (found["prompt"], found["fps"], found["frames_sha256"]) == ("zoom in slowly", "24000/1001", record["frames_sha256"])


def test_show_has_memory_and_metrics_of_the_output_folder(inside, record):
    folder = Path(record["clip"]).parents[1]
    for name in (record["clip"], record["id"]):
        inside_record = answer(inside("show", name, "--json", "--output-dir", folder))["record"]
        assert inside_record["metrics"] == record["metrics"]
        assert inside_record["peak_ram_gib"] == record["peak_ram_gib"]
        shown = inside("show", name, "--output-dir", folder).stdout
        assert re.search(rf"^peak_ram: +{record['peak_ram_gib']:.2f} GiB$", shown, re.MULTILINE)
        assert re.search(rf"^metric motion: +{record['metrics']['motion']:.4g}$", shown, re.MULTILINE)
        assert (
            shown.index("prompt:")
            < shown.index("seconds total:")
            < shown.index("peak_ram:")
            < shown.index("metric ")
            < shown.index("key:")
        )


def test_delete_and_undo(i2v_lab, inside, tmp_path):
    clips = [Path(answer(i2v_lab("generate", "sample:cat", *FAKE, "--seed", seed, "--json"))["clip"]) for seed in range(3)]
    ids = [run["id"] for run in records(tmp_path / "results")]
    done = inside("delete", clips[0].relative_to(tmp_path), ids[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "deleted 2 runs; undo it with i2v-lab delete --undo\n")
    assert [run["id"] for run in records(tmp_path / "results")] == ids[2:]
    assert [clip.exists() for clip in clips] == [False, False, True]
    again = answer(i2v_lab("generate", "sample:cat", *FAKE, "--seed", 0, "--json"))
    assert again["made_before"] is False
    assert inside("delete", "--undo").stderr == "brought back 2 runs\n"
    assert [run["id"] for run in records(tmp_path / "results")] == [*ids, again["id"]]
    assert "deleted 1 run;" in inside("delete", clips[2]).stderr
    assert inside("delete", "--undo", clips[2].name).stderr == "brought back 1 run\n"
    assert "deleted 1 run;" in inside("delete", again["id"]).stderr
    assert inside("delete", "--empty-trash").stderr == "removed 1 run for good\n"
    assert "there is no deleted run" in complaint(inside("delete", "--undo", again["id"]), code=1)
    for wrong in ((), ("--undo", "--empty-trash"), ("nothing.mp4",), (tmp_path / "results",)):
        assert "expected " in complaint(inside("delete", *wrong), code=2)
    assert all(clip.exists() for clip in clips)
