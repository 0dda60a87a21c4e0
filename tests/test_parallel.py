"""One clip on several devices: here processes on the CPU, which talk through gloo."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tiny_families
from checkpoints import BASE, make_checkpoint

from i2v_lab import models
from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.clip.sound import sound_of
from i2v_lab.cost import Budget, plan
from i2v_lab.errors import SettingsError, Stop, UnsupportedParams
from i2v_lab.models.parallel import check, devices_of
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store

TWO = Settings(device="cpu", parallel=2)
ONE = Settings(device="cpu")


class At(Progress):
    """Does something at the first step of denoising, and keeps the previews."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.act, self.stages, self.previews = act, [], []  # type: Any, list[str], list[Any]

    def stage(self, name: str, total: int | None = None) -> None:
        self.stages.append(name)

    def step(self, preview: Preview | None = None) -> None:
        if self.stages[-1] == "denoise":
            self.previews += [preview()] if preview else []
            act, self.act = self.act, lambda: None
            act()


def ranks(of: int | None = None) -> dict[int, psutil.Process]:
    """The processes of a clip that a process (this one) has, by their number."""
    found = {}
    for process in psutil.Process(of).children():
        words = process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
        if "i2v_lab.models.parallel.rank" in words:
            found[int(words[words.index("i2v_lab.models.parallel.rank") + 1])] = process
    return found


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    models.unload()
    assert ranks() == {}


def stop() -> None:
    raise Stop("a test")


def family_params(name: str, folder: Path) -> ClipParams:
    if name == "i2vgen-xl":
        return BASE.replace(model=str(make_checkpoint(folder)), image="sample:coffee")
    return tiny_families.params_for(name, tiny_families.make_checkpoint(name, folder))


# Measured: at most one grey level apart, in 3 of 10,000 bytes (I2VGen-XL), 5 of 100,000 (LTX-2), or none (LTX).
@pytest.mark.slow
@pytest.mark.parametrize("name", ["i2vgen-xl", "ltx-video", "ltx-2"])
def test_two_processes_make_the_frames_of_one(name: str, tmp_path: Path) -> None:
    params = family_params(name, tmp_path / name)
    alone, shared = models.open(params.model, "cpu"), models.open(params.model, "cpu", parallel=2)
    shared.check(params)
    before = alone.load().generate(picture := open_picture("sample:coffee"), params, Progress())
    after = shared.load().generate(picture, params, Progress())
    assert (sound_of(before) is None) == (sound_of(after) is None)
    apart = np.abs(after.astype(int) - before.astype(int))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


@pytest.mark.slow
def test_a_run_on_two_processes_from_its_clip_to_the_death_of_one(tmp_path: Path) -> None:
    params = family_params("wan2.2-ti2v-5b", tmp_path / "wan")
    store, heard = Store(tmp_path / "results"), At()
    alone = run_clip(params, None, store, settings=ONE)
    record = run_clip(params, None, store, settings=TWO, progress=heard)
    assert (record.status, record.parallel, alone.parallel) == ("done", 2, 1), record.reason
    assert record.device_name == f"2 x {alone.device_name}"
    assert record.key != alone.key
    assert [path.suffix for path in store.clips.glob("*.*")] == [".mp4"] * 2  # one a run: the second process writes none
    pictures = [video.read(store.directory / one.clip).astype(int) for one in (alone, record)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 4  # after the codec
    assert {"encode", "denoise", "decode", "write", "measure"} <= set(heard.stages)
    assert len(heard.previews) == params.num_inference_steps
    assert heard.previews[0].shape == (3, 4, 6, 3)  # latent frames, height, width
    assert run_clip(params, None, store, settings=TWO).id == record.id

    before = ranks()
    assert sorted(before) == [0, 1]
    killed = run_clip(params.replace(seed=1), None, store, settings=TWO, progress=At(lambda: before[1].send_signal(signal.SIGKILL)))
    assert killed.status == "failed"
    assert re.fullmatch(r"parallel: process 2 of 2 \(on cpu\) was killed by signal 9; [^\n]*", killed.reason)
    assert ranks() == {}

    stopped = run_clip(params.replace(seed=1), None, store, settings=TWO, progress=At(stop))  # they are started again
    assert (stopped.status, stopped.reason) == ("stopped", "a test")
    assert ranks() == {}


@pytest.mark.slow
def test_no_process_outlives_the_one_that_asked(tmp_path: Path) -> None:
    """Killed by signal 9, it ends none of them: they see that their input ends."""
    asked = subprocess.Popen(
        [sys.executable, "-c", "from i2v_lab.models.parallel.group import Group; from i2v_lab.clip.progress import Progress\n"
         "group = Group(('cpu', 'cpu')); group.ask('ready', Progress()); print('ready', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert asked.stdout
    assert asked.stdin
    assert asked.stdout.readline() == b"ready\n"
    two = list(ranks(asked.pid).values())
    assert len(two) == 2
    asked.kill()
    asked.wait()
    assert psutil.wait_procs(two, 60)[1] == []
    asked.stdin.close()
    asked.stdout.close()


@pytest.mark.parametrize(
    ("model", "fields", "count", "said"),
    [
        (
            "closed-form",
            {},
            2,
            "parallel: closed-form makes a clip on one device, got 2; leave it at 1, or choose i2vgen-xl, wan2.2",
        ),
        ("i2vgen-xl", {}, 4, "parallel: i2vgen-xl shares the two passes of guidance between 2 devices, got 4 devices"),
        (
            "i2vgen-xl",
            {"guidance_scale": 1},
            2,
            "got 2 devices and guidance_scale 1; use 2 and a guidance_scale above 1, or 1 device",
        ),
        (
            "wan2.2-ti2v-5b",
            {"resolution": "352x352", "num_frames": 5},
            4,
            "the 242 tokens of 5 frames of 352x352, got 4; use 1 or 2, or",
        ),
        (
            "wan2.2-ti2v-5b",
            {"cache": "first-block"},
            2,
            "cache: with parallel 2 expected deep, pab, taylor, got first-block:0.1; leave",
        ),
        ("cogvideox-5b-i2v", {}, 2, "parallel: cogvideox-5b-i2v makes a clip on one device"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_line(model: str, fields: dict[str, Any], count: int, said: str) -> None:
    params = models.resolve(ClipParams(image="sample:coffee", model=model, **fields))
    with pytest.raises(UnsupportedParams) as refused:
        check(models.find(model)[0], params, count, "")
    assert said in str(refused.value)
    check(models.find(model)[0], params, 1, "")


def test_heads_must_divide_too(tmp_path: Path) -> None:
    """The tiny network has two heads; the published one has 24."""
    params = models.resolve(ClipParams(image="sample:coffee", model="wan2.2-ti2v-5b"))
    kind = models.find(params.model)[0]
    for count in (2, 4, 8):
        check(kind, params, count, "")
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text('{"num_attention_heads": 2}')
    (tmp_path / "model_index.json").write_text('{"transformer": ["diffusers", "WanTransformer3DModel"]}')
    with pytest.raises(UnsupportedParams, match=r"divides the 2 attention heads of wan2\.2-ti2v-5b, got 4; use 1 or 2$"):
        check(kind, params, 4, str(tmp_path))


def test_bad_numbers_and_missing_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="parallel: expected 1, 2, 4 or 8 devices, got 3"):
        load_settings(parallel=3)
    monkeypatch.setenv("I2V_LAB_PARALLEL", "4")
    assert load_settings().parallel == 4
    assert devices_of("cuda:1", 2) == ("cuda:1", "cuda:2")
    refused = run_clip(ClipParams(model="closed-form", image="sample:coffee"), None, Store(tmp_path), settings=TWO)
    assert (refused.status, refused.reason[:30]) == ("failed", "parallel: closed-form makes a ")


@pytest.mark.slow
def test_the_plan_says_what_each_device_holds() -> None:
    params = ClipParams(image="sample:coffee", model="i2vgen-xl", resolution="256p", num_frames=8)
    budget = Budget.vram(24)
    one, two = (plan(params, device="cuda", budget=budget, parallel=count) for count in (1, 2))
    for before, after in zip(one.stages, two.stages, strict=True):
        shares = 2 if before.stage == "denoise" else 1
        assert (after.weights, after.activations) == (before.weights, -(-before.activations // shares))
    assert two.flops < one.flops
    assert "on 2 devices (cuda:0 and cuda:1) in float16 fits" in two.sentence()
    assert " GiB on each (" in two.sentence()
