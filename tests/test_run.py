"""run_clip: what comes of a run, whatever happens in it; and the settings that a clip carries, given back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2v_lab import models
from i2v_lab.clip import video
from i2v_lab.clip.key import clip_key, frames_sha256
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Progress, StopSwitch
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.clip.video import Frames
from i2v_lab.errors import OutOfMemory, StoreError
from i2v_lab.log import log_path, start_log
from i2v_lab.models.fake import FakeModel
from i2v_lab.run import restore, run_clip, runs
from i2v_lab.settings import Output, Settings
from i2v_lab.store import Store

pytestmark = pytest.mark.usefixtures("empty_folder")


class Odd(FakeModel):
    """The fake model with another way to make the frames."""

    def __init__(self, act: Callable[[Frames], Any] = lambda frames: frames) -> None:
        self.act = act
        self.calls = 0

    def generate(self, image: Picture, params: ClipParams, progress: Progress) -> Frames:
        self.calls += 1
        frames: Frames = self.act(super().generate(image, params, progress))
        return frames


def fail(error: BaseException) -> Odd:
    def act(frames: Frames) -> Frames:
        raise error

    return Odd(act)


SETTINGS = Settings()


def ran(params: ClipParams, model: FakeModel | None, store: Store, **options: Any) -> RunRecord:
    """The record, which is also what the store has, and leaves nothing but whole clips behind."""
    record = run_clip(params, model, store, settings=SETTINGS, **options)
    assert store.get(record.id) == record
    clips = [store.directory / done.clip for done in store.records(status="done")]
    assert sorted(store.clips.glob("*")) == sorted(clips)
    assert record.finished is not None
    assert (record.clip != "") == (record.status == "done")
    return record


def refused(params: ClipParams, store: Store) -> str:
    """The reason why nothing was begun; there is no run of it."""
    record = run_clip(params, None, store, settings=SETTINGS)
    assert (record.status, record.clip, store.records(), list(store.directory.glob("*"))) == ("failed", "", [], [])
    assert store.get(record.id) is None
    return record.reason


def works(params: ClipParams, store: Store) -> None:
    """The next run in the same process is not hurt by the one before."""
    assert ran(params.replace(seed=4), None, store).status == "done"


# Every way a run can end


def test_a_clip_is_made_measured_and_recorded(params, store, photograph):
    record = ran(params, None, store)
    clip = store.directory / record.clip
    assert record.status == "done"
    assert record.reason == ""
    info = video.probe(clip)
    assert (info.frames, info.height, info.width, info.fps) == (3, 64, 96, 8)
    assert record.file_bytes == clip.stat().st_size
    expected = FakeModel().generate(open_picture(photograph), params, Progress())
    assert record.frames_sha256 == frames_sha256(expected)
    shown = video.read(clip).astype(int)
    assert np.abs(shown - expected).mean() < 4  # what H.264 loses
    assert record.peak_ram_gib is not None
    assert record.peak_ram_gib > 0.05
    assert record.device == "cpu"
    assert record.versions["i2v_lab"]
    assert store.find_picture(record.image_sha256).read_bytes() == photograph.read_bytes()


def test_the_stages_add_up_to_the_total(params, store):
    seconds = dict(ran(params.replace(num_frames=32, resolution="256p"), None, store).seconds)
    total = seconds.pop("total")
    assert list(seconds) == ["load", "encode", "denoise", "decode", "write"]
    assert 0 <= total - sum(seconds.values()) < 0.05 + 0.1 * total


def test_frames_of_odd_sizes_are_padded_and_the_record_says_so(params, store):
    record = ran(params.replace(resolution="65x99"), None, store)
    assert (record.padded_rows, record.padded_columns) == (1, 1)
    assert any("padded by 1 row and 1 column" in note for note in record.notes)
    info = video.probe(store.directory / record.clip)
    assert (info.height, info.width) == (66, 100)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("none.jpg", "no such file"), ("text.jpg", "expected"), ("flat.png", "of one colour"), (".", "folder")],
)
def test_a_bad_picture_is_refused_and_leaves_no_run(name, expected, params, store, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (300, 300), (9, 90, 200)).save(tmp_path / "flat.png")
    reason = refused(params.replace(image=name), store)
    assert expected in reason
    assert "\n" not in reason
    works(params, store)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "closed-form", "dtype": "float16"}, "nearest: float32"),
        ({"model": "no such model"}, "expected closed-form"),
        ({"model": "~nobody-at-all/x"}, "cannot be one"),
        ({"model": "x" * 400}, "cannot be one"),
        ({"model": "."}, "model_index.json"),
    ],
)
def test_what_a_model_cannot_do_is_refused_and_leaves_no_run(change, expected, params, store):
    assert expected in refused(params.replace(**change), store)
    works(params, store)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda frames: np.full_like(frames, 127), "every frame is of one colour"),
        (lambda frames: np.broadcast_to(np.arange(3, dtype=np.uint8)[:, None, None, None], frames.shape), "of one colour"),
        (lambda frames: frames[:, :-1], "expected uint8 frames (3, 64, 96, 3)"),
        (lambda frames: frames[:2], "got uint8 (2, 64, 96, 3)"),
        (lambda frames: frames / 255, "got float64"),
    ],
)
def test_frames_that_are_no_clip_are_a_failed_run(act, expected, params, store):
    record = ran(params, Odd(act), store)
    assert record.status == "failed"
    assert expected in record.reason
    works(params, store)


@pytest.mark.parametrize(
    "model",
    [
        fail(OutOfMemory("no room on the device")),
        Odd(lambda frames: np.zeros(2**55, np.uint8)),  # MemoryError
        Odd(lambda frames: torch.zeros(2**55, dtype=torch.uint8)),  # RuntimeError
    ],
    ids=["OutOfMemory", "numpy", "torch"],
)
def test_running_out_of_memory_has_a_status_of_its_own(model, params, store):
    record = ran(params, model, store)
    assert record.status == "out_of_memory"
    assert record.reason
    works(params, store)


class StopAt(StopSwitch):
    """Stops at the beginning of a stage, or at its nth step."""

    def __init__(self, name: str, step: int = 0) -> None:
        super().__init__()
        self.name, self.countdown, self.heard = name, step, ""

    def stage(self, name: str, total: int | None = None) -> None:
        self.heard = name
        if name == self.name and not self.countdown:
            self.stop("enough")
        super().stage(name, total)

    def step(self, preview: Any = None) -> None:
        if self.heard == self.name:
            self.countdown -= 1
            if not self.countdown:
                self.stop("enough")
        super().step(preview)


@pytest.mark.parametrize("at", ["load", "encode", "denoise", "decode", "write", ("denoise", 7), ("write", 2)], ids=str)
def test_a_run_can_be_stopped_in_every_stage(at, params, store):
    switch = StopAt(*([at] if isinstance(at, str) else at))
    record = ran(params, None, store, progress=switch)
    assert (record.status, record.reason) == ("stopped", "enough")
    assert switch.heard == switch.name  # nothing came after it
    assert list(record.seconds)[-2] == switch.name
    works(params, store)


def test_an_unexpected_error_is_recorded_and_logged(params, store, caplog):
    record = ran(params, Odd(lambda frames: frames[0] / 0 if frames.sum() < 0 else 1 // 0), store)
    assert record.status == "failed"
    assert record.reason.startswith("unexpected ZeroDivisionError: ")
    (logged,) = [entry for entry in caplog.records if entry.exc_info]
    assert record.id in logged.getMessage()
    works(params, store)


def test_the_log_of_a_start_has_the_traceback(params, store, tmp_path):
    import logging

    path = start_log(tmp_path / "logs")
    assert path is not None
    assert path == log_path()
    try:
        ran(params, fail(KeyError("surprise")), store)
    finally:
        for handler in logging.getLogger("i2v_lab").handlers[:]:
            logging.getLogger("i2v_lab").removeHandler(handler)
            handler.close()
    text = path.read_text()
    assert "Traceback (most recent call last)" in text
    assert "KeyError: 'surprise'" in text


def test_an_interrupt_is_recorded_and_goes_on_up(params, store):
    with pytest.raises(KeyboardInterrupt):
        ran(params, fail(KeyboardInterrupt()), store)
    (record,) = store.records()
    assert (record.status, record.reason) == ("stopped", "interrupted")
    assert list(store.clips.glob("*")) == []
    assert record.seconds["total"] > 0
    works(params, store)


def test_a_rate_that_the_format_cannot_have_fails_before_anything_is_computed(params, store):
    model = Odd()
    record = run_clip(params.replace(fps=60), model, store, settings=Settings(output=Output(format="gif")))
    assert record.status == "failed"
    assert "fps" in record.reason
    assert model.calls == 0


def test_while_it_goes_on_the_record_says_running(params, store):
    seen = []
    ran(params, Odd(lambda frames: seen.extend(store.records()) or frames), store)
    (record,) = seen
    assert record.status == "running"
    assert record.params == params


def test_a_clip_whose_record_cannot_be_saved_is_kept_and_named(params, store):
    def act(frames: Frames) -> Frames:
        store.file.write_text("no database " * 1000)
        return frames

    with pytest.raises(StoreError, match="the clip was made: ") as caught:
        run_clip(params, Odd(act), store, settings=SETTINGS)
    clip = Path(str(caught.value).rpartition(": ")[2])
    assert video.probe(clip).frames == 3
    assert restore(clip, None, params.image)[0] == params


def test_the_id_may_be_given_before(params, store):
    id = new_id()
    assert ran(params, None, store, id=id).id == id
    assert run_clip(params, None, store, settings=SETTINGS, id=new_id()).id == id  # made before


# Identity


def test_a_finished_clip_is_not_made_again(params, store):
    model = Odd()
    first = ran(params, model, store, sweep="a")
    assert ran(params, model, store, sweep="b") == first
    assert model.calls == 1
    second = ran(params, model, store, force=True)
    assert model.calls == 2
    assert second.clip != first.clip
    assert second.frames_sha256 == first.frames_sha256
    (store.directory / second.clip).unlink()
    (store.directory / first.clip).unlink()
    third = run_clip(params, model, store, settings=SETTINGS)
    assert model.calls == 3  # a clip that is gone has to be made
    assert (store.directory / third.clip).is_file()
    assert len(runs(store)) == 3


def test_a_failed_or_stopped_run_is_tried_again(params, store):
    ran(params, fail(OutOfMemory("no")), store)
    ran(params, None, store, progress=StopAt("write"))
    assert ran(params, None, store).status == "done"


def test_another_format_is_another_clip(params, store):
    mp4 = run_clip(params, None, store, settings=SETTINGS)
    gif = run_clip(params, None, store, settings=Settings(output=Output(format="gif", prefix="cat ")))
    assert gif.clip.endswith(".gif")
    assert Path(gif.clip).name.startswith("cat ")
    assert gif.frames_sha256 == mp4.frames_sha256


CHANGES: dict[str, Any] = {
    "prompt": "zoom out", "negative_prompt": "blur", "resolution": "96x64", "num_frames": 4, "fps": Fraction(24000, 1001),
    "condition_fps": 8, "num_inference_steps": 49, "guidance_scale": 9.5, "seed": 1, "scheduler": "euler",
    "flow_shift": 3.0, "guidance_scale_2": 4.0, "true_cfg_scale": 1.5, "min_guidance_scale": 1.0, "motion_bucket_id": 127,
    "noise_aug_strength": 0.02, "decode_timestep": 0.05, "decode_noise_scale": 0.025, "image_cond_noise_scale": 0.15, "lora": "a:0.8",
    "guidance_interval": "0-0.5", "cache": "deep:2", "quantization": "int8", "backend": "openvino", "compile": "regional",
    "attention": "sage",
}  # fmt: skip


def test_the_key_changes_with_each_field_that_decides_the_clip(params, photograph):
    assert set(CHANGES) == set(ClipParams.model_fields) - {"image", "model", "dtype", "seconds"}
    picture, model = open_picture(photograph), FakeModel()
    keys = {clip_key(params.replace(**{name: value}), picture.sha256, model) for name, value in CHANGES.items()}
    assert len(keys) == len(CHANGES)  # fps decides no pixel, so one of them is that of the params
    assert clip_key(params, picture.sha256, model) == clip_key(params.replace(fps=CHANGES["fps"]), picture.sha256, model) in keys


def test_the_key_is_of_the_models_fingerprint_and_number_format_not_of_its_name_in_the_params(params, photograph):
    picture = open_picture(photograph)
    known = models.Identity("i2vgen-xl", "f" * 64, "cuda:0", "float16")
    key = clip_key(params, picture.sha256, known)
    assert key == clip_key(params.replace(model="some/where else", dtype="float16"), picture.sha256, known._replace(device="cpu"))
    others = [known._replace(fingerprint="e" * 64), known._replace(dtype="float32"), known._replace(name="other")]
    assert key not in [clip_key(params, picture.sha256, other) for other in others]


def test_the_key_is_of_the_pictures_bytes_not_of_its_path(params, photograph, tmp_path):
    copy, changed = tmp_path / "copy.jpg", tmp_path / "changed.jpg"
    shutil.copy(photograph, copy)
    changed.write_bytes(photograph.read_bytes() + b"\0")
    key, same, other = (
        clip_key(params.replace(image=str(path)), open_picture(path).sha256, FakeModel()) for path in (photograph, copy, changed)
    )
    assert same == key
    assert other != key
