"""`i2v-lab verify`: faults that are put in are found and named; its report says nothing of whose machine it is."""

from __future__ import annotations

import getpass
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import finish, start

from i2v_lab.clip.params import ClipParams
from i2v_lab.cost import Forecaster, measured
from i2v_lab.devices.hardware import machine
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.i2vgen_xl.networks import Networks
from i2v_lab.run import run_clip
from i2v_lab.store import Store
from i2v_lab.verify import checks, command, memory
from i2v_lab.verify.bench import OVER, SMALL_CLIPS, Bench, Subject, first_clip
from i2v_lab.verify.result import Report, Result, clean


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setitem(SMALL_CLIPS, "i2vgen-xl", {"resolution": "64x96", "num_frames": 2})
    made = Bench("cpu", False, tmp_path, time.monotonic() + 600)
    yield made
    made.drop()


@pytest.fixture
def subject(bench: Bench) -> Subject:
    return bench.add("i2vgen-xl")


def test_a_tier_that_changes_pixels_is_found(bench, subject, monkeypatch):
    plain = first_clip(bench, subject, track=True)
    found = memory.tiers(bench, subject, 2, plain)
    assert (found.status, found.figures["max_levels"]) == ("passed", 0)
    true = Networks.decode_frame
    monkeypatch.setattr(Networks, "decode_frame", lambda self, latents: true(self, latents) + (self.tier == 1) / 64)
    found = memory.tiers(bench, subject, 1, plain)
    assert found.status == "failed"
    assert re.fullmatch(
        r"frame by frame: frames differ by [\d.]+ levels on the mean, \d at most, and it says that it changes none; .*", found.line
    )


@pytest.mark.slow
def test_a_prediction_that_is_too_low_is_found(bench, subject, monkeypatch):
    found = memory.ladder(bench, subject)
    assert found.status == "passed"
    assert abs(found.figures["correction"] - 1) < 0.1
    true = I2VGenXL.cost.__func__

    def low(cls: Any, params: ClipParams, **given: Any) -> Any:
        return tuple(
            replace(stage, weights=int(0.7 * stage.weights), activations=int(0.7 * stage.activations))
            for stage in true(cls, params, **given)
        )

    monkeypatch.setattr(I2VGenXL, "cost", classmethod(low))
    found = memory.ladder(bench, subject)
    assert found.status == "failed"
    (percent,) = re.findall(r"^predicted (\d+)% too low at ", found.line)
    assert 25 <= int(percent) <= 38


@pytest.mark.slow
def test_what_each_clip_leaves_behind_is_found(bench, subject, monkeypatch):
    kept: list[Any] = []
    true = I2VGenXL.make

    def leaking(self: Any, *given: Any) -> Any:
        kept.append(np.ones(100_000_000, np.uint8))
        return true(self, *given)

    monkeypatch.setattr(I2VGenXL, "make", leaking)
    found = memory.left_behind(bench, subject)
    assert found.status == "failed"
    (megabytes,) = re.findall(r"^each clip leaves (\d+) MB behind in the memory of the process$", found.line)
    assert 70 <= int(megabytes) <= 140


@pytest.mark.parametrize(
    ("level", "said"), [(0, "every frame is of one colour"), (1, "its frames are black in float32: the brightest is 1 of 255")]
)
def test_a_family_that_makes_black_frames_is_found(bench, subject, monkeypatch, level, said):
    def black(self: Any, latents: Any, progress: Any) -> Any:
        frames = np.zeros((len(latents), 8 * latents.shape[2], 8 * latents.shape[3], 3), np.uint8)
        frames[:, 0, 0] = level
        return frames

    monkeypatch.setattr(I2VGenXL, "decode", black)
    found = command._done(bench, "clip", lambda: checks.clip(bench, subject, "clip"))
    assert found.status == "failed"
    assert said in found.line


@pytest.mark.slow
def test_the_ladder_climbs_and_the_next_clip_is_as_before(bench, subject):
    found = memory.out_of_memory(bench, subject)
    assert (found.status, found.figures["tier"], found.figures["next_equal"]) == ("passed", 1, True)


def test_what_the_time_does_not_reach_is_listed(tmp_path, monkeypatch):
    report = command.verify(device="cpu", minutes=0, directory=tmp_path / "results")
    assert {(one.status, one.line) for one in report.results} == {("not run", OVER)}
    assert not list(measured.measured_store(tmp_path / "results").records())
    bench = Bench("cpu", True, tmp_path, 0)
    names = [name for name, _ in command.plan_of(bench)]
    first = ["device", *(f"clip i2vgen-xl {preset}" for preset in command.PRESETS), "clip wan2.2-ti2v-5b", "clip wan2.1-i2v-480p"]
    assert names[: len(first)] == first
    assert names[-1] == "clip svd-xt"  # the other families, in the time that is left


def test_the_report_says_nothing_of_whose_machine_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-7.example.org")
    monkeypatch.setattr(getpass, "getuser", lambda: "grace")
    line = (f"grace@lab-7: {tmp_path}/x.safetensors and '/opt/models/y' and C:\\Users\\grace\\z, ~/w of lab-7.example.org; "
            "ali-vilab/i2vgen-xl at 3.5 TFLOP/s, 1/2")  # fmt: skip
    report = Report({"name": "a CPU"}, {}, {}, 1, 1.0, [Result("a", "failed", line, {"/home/grace/models": float("nan")})], [])
    text = json.dumps(report.plain())
    assert not re.search(r"grace|lab-7|example|/opt|Users|safetensors|~|/home", text)
    assert "ali-vilab/i2vgen-xl at 3.5 TFLOP/s, 1/2" in text
    assert clean({"size": 1.23456789, "nothing": float("inf")}) == {"size": 1.23457, "nothing": None}


def test_forecasts_learn_from_what_was_measured(tmp_path):
    params = ClipParams(model="closed-form", image="sample:coffee", resolution="64x64", num_frames=2, num_inference_steps=2)
    store = Store(tmp_path / "results")
    assert Forecaster(device="cpu", store=store).plan(params).runs == 0
    measured.keep(store.directory, [run_clip(params, store=Store(tmp_path / "other"))], {"A100": 1.5, "T4": -1.0})
    assert Forecaster(device="cpu", store=store).plan(params).runs == 1
    assert measured.margin_bytes(store.directory, "A100", 2**40) == 3 * 2**29
    assert measured.margin_bytes(store.directory, "A100", 2**30) == 2**29  # what other programs hold is no margin
    assert measured.margin_bytes(store.directory, "T4", 2**40) is None
    assert store.records() == []


@pytest.mark.slow
def test_the_whole_command_on_a_cpu(i2v_lab, tmp_path):
    done = finish(start("verify", "--device", "cpu", "--json", "report.json", "--output-dir", "out", cwd=tmp_path), seconds=900)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema"] == "i2v_lab.verify/1"
    found = {one["name"]: one for one in report["results"]}
    assert {one["status"] for one in found.values()} == {"passed", "not run"}
    needs_more = {"against the CPU", "tier 4 i2vgen-xl with streams"}  # and some levers
    assert needs_more == {name for name, one in found.items() if one["status"] == "not run" and "=" not in name}
    assert {"cache=deep:3 i2vgen-xl", "cache=pab:2 wan2.2-ti2v-5b"} <= {
        name for name, one in found.items() if one["status"] == "passed"
    }
    assert found["two at once"]["figures"]["gap_s"] >= 0
    text = json.dumps(report)
    assert not [name for name in (str(tmp_path), str(Path.home()), socket.gethostname(), "/tmp/") if name in text]  # noqa: S108
    assert report["device"]["name"] == machine("cpu")["device_name"]
    assert {one["model"] for one in report["predictions"]} == {"closed-form"}
    shape = ("--num-frames", "4", "--resolution", "64x96", "--num-inference-steps", "3", "--output-dir", "out")
    assert "measured here: time is drawn from" in i2v_lab("plan", "sample:coffee", *shape).stderr
    assert i2v_lab("runs", "--output-dir", "out").stdout == ""
