"""Measuring files of any kind, and the clips of runs after they are made."""

from __future__ import annotations

import json
import os
import resource
import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from filelock import FileLock
from moving_clips import clip, write

from i2v_lab import ClipParams, measure
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.devices.turns import lock_folder
from i2v_lab.errors import ClipError, PictureError, Stop
from i2v_lab.metrics import METRICS, frames, measure_frames
from i2v_lab.metrics.fill import fill_in, missing
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, run_sweep

# Files of any kind


def test_a_foreign_clip_is_measured_with_what_is_given(tmp_path):
    path = write(tmp_path, clip("shift", 4, 256))
    found = measure(path)
    assert found["input_ssim"] is None and "no settings inside" in found.missing["input_ssim"]
    cv2.imwrite(str(tmp_path / "first.png"), clip("shift", 4, 256)[0][..., ::-1])
    found = measure(path, image=tmp_path / "first.png", prompt="镜头向左平移")
    assert found["input_psnr"] > 35 and found["input_ssim"] > 0.97
    assert found["prompt_agreement"] == pytest.approx(1, abs=0.05)
    with pytest.raises(PictureError, match="no such file"):
        measure(path, image=tmp_path / "none.png")


def test_a_clip_of_this_package_knows_its_prompt_and_its_picture(tmp_path):
    picture = open_picture("sample:coffee")
    params = ClipParams(image="sample:coffee", prompt="zoom in", resolution="65x97")
    shown = np.stack([np.roll(picture.crop(65, 97), k, axis=1) for k in range(4)])
    inside = {"params": params.plain(), "record": {"image_sha256": picture.sha256}}
    found = measure(write(tmp_path, shown, settings=inside))
    assert (found.height, found.width, found.prompt) == (65, 97, "zoom in")  # without the row and column of padding
    assert found["input_psnr"] > 32
    forged = measure(write(tmp_path, shown, settings=inside | {"record": {"image_sha256": "0" * 64}}))
    assert forged.missing["input_psnr"] == "the picture that the clip was made from was not found"
    odd = measure(write(tmp_path, shown, settings={"params": {"image": 3}, "record": []}))
    assert odd["motion"] == pytest.approx(100 / 97 * 8, rel=0.1)


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        (np.full((1, 1, 1, 3), 90, np.uint8), {"temporal_flickering", "motion", "smoothness", "sharpness_loss"}),
        (np.full((5, 1, 1, 3), 90, np.uint8), {"motion", "smoothness", "drift_ssim", "sharpness_loss"}),
        (np.full((5, 64, 64, 3), 128, np.uint8), {"motion", "scene_right", "sharpness_loss"}),
        (np.zeros((2, 64, 64, 3), np.uint8), {"motion", "smoothness"}),
        (clip("shift")[:1], {"motion", "temporal_flickering", "smoothness", "drift_ssim"}),
        (clip("shift")[:, :8, :], {"motion"}),
        (np.random.default_rng(0).integers(0, 256, (3, 31, 400, 3), dtype=np.uint8), {"motion"}),
    ],
    ids=["1x1 still", "1x1", "grey", "black", "one frame", "8 rows", "31 rows"],
)  # fmt: skip
def test_what_does_not_apply_is_missing_with_a_reason(shown, missing, tmp_path):
    for found in (measure_frames(shown, prompt="zoom in"), measure(write(tmp_path, shown), prompt="zoom in")):
        absent = {name for name, value in found.values.items() if value is None}
        assert missing <= absent == set(found.missing)
        assert all(reason for reason in found.missing.values())
        assert 0 <= found["black_frames"] <= 1
        assert all(value is None or METRICS[name].low <= value <= METRICS[name].high for name, value in found.values.items())


@pytest.mark.slow
def test_a_long_clip_is_looked_at_evenly_and_within_memory(tmp_path, monkeypatch):
    shown = np.stack([np.roll(clip("frozen", 1, 256)[0][:64, :96], 2 * k, axis=1) for k in range(48)])
    path = tmp_path / "long.mp4"
    once = write(tmp_path, np.concatenate([shown] * 21), "part")  # 1008 frames
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-stream_loop", "9", "-i", once]
    subprocess.run([*command, "-c", "copy", path], check=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = measure(path)
    assert found.frames == 10_080
    assert 200 < found.looked_at <= frames.FRAMES_MAX
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; all frames are 190 MB, twice
    assert found["scene_right"] == pytest.approx(100 * 2 / 96 * 8, abs=1.5)
    every = measure_frames(shown)
    assert found["temporal_flickering"] == pytest.approx(every["temporal_flickering"], abs=0.01)
    monkeypatch.setattr(frames, "BYTES_MAX", 10 * shown[0].nbytes)
    assert measure(once).looked_at == frames.RUN  # one place of eight


def test_a_file_that_is_no_clip_is_one_line(tmp_path, i2v_lab):
    whole = write(tmp_path, clip("shift", 4, 128))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "noise.mp4").write_bytes(os.urandom(5000))
    (tmp_path / "empty.mp4").touch()
    for name in ("cut.mp4", "noise.mp4", "empty.mp4", "none.mp4", "."):
        with pytest.raises(ClipError) as error:
            measure(tmp_path / name)
        assert "\n" not in str(error.value)
    done = i2v_lab("measure", "cut.mp4", whole, "--json", "--prompt", "camera panning left")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "expected a whole MP4" in lines[0]["error"] and lines[1]["metrics"]["prompt_agreement"] > 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip.mp4",
        "cut.mp4",
        "empty.mp4",
        "noise.mp4",
    ]  # no folder was made


# After the clip


def run_of(store: Store, kind: str = "shift") -> RunRecord:
    picture = open_picture("sample:astronaut")
    path = write(store.clips, clip(kind, 4, 128), kind)
    params = ClipParams(image="sample:astronaut", prompt="camera panning left", resolution="128x128", num_frames=4)
    record = RunRecord(id=new_id(), status="done", params=params, clip=f"clips/{path.name}", image_sha256=picture.sha256)
    store.save(record)
    return record


def test_a_run_is_measured_and_its_record_saved(tmp_path, caplog):
    store = Store(tmp_path)
    store.keep_picture(open_picture("sample:astronaut").path, open_picture("sample:astronaut").sha256)
    record = run_of(store)
    assert missing(store) == [record]
    found = fill_in(record, store)
    assert found == store.get(record.id) and missing(store) == []
    assert found.metrics["prompt_agreement"] > 0.9 and found.metrics["input_ssim"] is not None
    assert found.model_copy(update={"metrics": {}}) == record
    assert store.runs()["metric_scene_right"].tolist() == [pytest.approx(100 * 2 / 128 * 8, abs=0.6)]
    store.set_metrics(record.id, {"motion": 1.5})  # of an older version, in other units
    assert [fill_in(old, store).metrics for old in missing(store)] == [found.metrics] == [store.get(record.id).metrics]
    broken = run_of(store, "zoom")
    (store.directory / broken.clip).write_bytes(b"broken")
    assert fill_in(broken, store) == broken and broken.id in caplog.text


class StopAt(Progress):
    """Raises Stop at the first step of a stage."""

    def __init__(self, wanted: str) -> None:
        self.wanted, self.name = wanted, ""

    def stage(self, name: str, total: int | None = None) -> None:
        self.name = name

    def step(self, preview=None) -> None:
        if self.name == self.wanted:
            raise Stop("stopped here")


TINY = {"model": "fake", "image": "sample:astronaut", "resolution": "64x64", "num_frames": 4, "num_inference_steps": 2}


def test_a_stop_while_a_clip_is_measured_keeps_the_clip_and_the_next_run_measures_it(tmp_path, i2v_lab):
    store, settings = Store(tmp_path / "results"), Settings()
    sweep = Sweep(name="stopped", base=TINY, seeds=[1, 2])
    stopped = [run_clip(cell.params, None, store, progress=StopAt("measure"), settings=settings) for cell in sweep.cells()]
    assert [record.status for record in stopped] == ["done", "done"] and missing(store) == stopped
    again = run_clip(stopped[0].params, None, store, settings=settings)
    assert again.id == stopped[0].id and again.metrics["motion"] is not None
    assert run_sweep(sweep, store, settings=settings).table()["metric_motion"].notna().all()  # both clips were there
    assert run_sweep(sweep, store, settings=settings).ran == 0 and missing(store) == []


def test_no_clip_is_measured_while_another_process_computes_on_the_cpu(tmp_path, i2v_lab):
    store = Store(tmp_path / "results")
    record = run_of(store)
    lock = FileLock(lock_folder() / "cpu.lock")
    with lock:
        assert fill_in(record, store) == record  # not now, and no wait
    done = i2v_lab("measure", "--missing", "--json")
    assert [json.loads(line)["run"] for line in done.stdout.splitlines()] == [record.id] and done.returncode == 0
    assert store.get(record.id).metrics["motion"] is not None
