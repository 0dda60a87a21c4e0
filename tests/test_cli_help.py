"""The help of the command line, and the commands that say what is here: models, doctor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer.main

from i2v_lab import models
from i2v_lab.cli.app import app
from i2v_lab.clip.params import ClipParams


def test_every_field_of_clip_params_is_an_option_with_unit_range_and_default():
    command: Any = typer.main.get_command(app)
    options = {option.opts[0]: option.help for option in command.commands["generate"].params}
    for name, about in ClipParams.model_json_schema()["properties"].items():
        help = options[f"--{name.replace('_', '-')}"]
        assert help.startswith(about["description"])
        if about.get("unit"):
            assert f"({about['unit']})" in help
        if about.get("default", "") not in ("", None):
            assert f"[default: {about['default']}]" in help
        for choice in about.get("enum", ()):
            assert choice in help
    assert ", 2 to 257 (frames) [default: 16]" in options["--num-frames"]
    assert ", 1 to 120 (frames/s) [default: 8]" in options["--fps"]
    assert ", 0 to 50 [default: 9.0]" in options["--guidance-scale"]
    assert "-1 or more [default: 0]" in options["--seed"]
    assert options["--image"].endswith("[required, here or as PICTURE]")


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


def test_models_lists_families_with_licences(inside):
    found = {row["model"]: row for row in json.loads(inside("models", "--json").stdout)}
    assert list(found)[:3] == ["closed-form", "i2vgen-xl", "wan2.2-ti2v-5b"]
    assert len(found) == len(models.LISTED)
    assert found["closed-form"]["licence"] == "Apache-2.0"
    assert "quick" in found["i2vgen-xl"]["presets"]
    text = inside("models").stdout
    assert all(row["licence"] in text and row["about"] in text for row in found.values())


def test_doctor_finds_what_is_there_and_what_is_not(i2v_lab, inside, tmp_path):
    done = i2v_lab("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    assert {
        "Python",
        "packages",
        "device",
        "memory",
        "FFmpeg",
        "output folder",
        "record of runs",
        "checkpoints",
        "model families",
        "OpenVINO",
        "converted networks",
    } == set(checks)
    assert "libx264" in checks["FFmpeg"]["found"]
    assert "torch " in checks["packages"]["found"]
    assert all(check["remedy"] for check in checks.values() if check["state"] != "ok")
    assert list(tmp_path.iterdir()) == []  # it looks and changes nothing
    (tmp_path / "file").write_text("")
    done = inside("doctor", "--output-dir", "file/results")
    assert done.returncode == 1
    assert "missing  output folder: file/results cannot be written" in done.stdout
    assert "--output-dir" in done.stdout
