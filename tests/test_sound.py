"""Sound in clips: written, read back by another program, left out where it does not belong."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2v_lab.clip import video
from i2v_lab.clip.key import frames_sha256
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.sound import sound_of, with_sound
from i2v_lab.models.fake import FakeModel
from i2v_lab.run import run_clip
from i2v_lab.settings import load_settings
from i2v_lab.store import Store

RATE, FPS = 24000, Fraction(8)


def frames_with_sound(count: int = 16, short: int = 0) -> Any:
    frames = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    seconds = np.arange(int(count / FPS * RATE) - short) / RATE
    samples = np.stack([0.5 * np.sin(2 * np.pi * 440 * seconds), 0.3 * np.sin(2 * np.pi * 660 * seconds)])
    return with_sound(frames, samples, RATE, FPS)


def streams(path: Path) -> dict[str, Any]:
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", path], capture_output=True, check=True
    )
    found = json.loads(told.stdout)
    return {**{stream["codec_type"]: stream for stream in found["streams"]}, "seconds": float(found["format"]["duration"])}


def heard(path: Path, rate: int = RATE) -> Any:
    """The decoded sound of a file: (channels, samples)."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-vn", "-ar", str(rate), "-ac", "2", "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32).reshape(-1, 2).T


@pytest.mark.parametrize(("format", "codec"), [("mp4", "aac"), ("webm", "opus")])
def test_the_sound_that_is_decoded_is_that_of_the_model(format, codec, tmp_path):
    frames = frames_with_sound(short=500)
    info = video.write(frames, tmp_path, stem="a", fps=FPS, format=format, settings={"a": 1}, sound=sound_of(frames))
    found = streams(info.path)
    assert found["audio"]["codec_name"] == codec
    assert found["audio"]["channels"] == 2
    assert abs(found["seconds"] - float(len(frames) / FPS)) < 1 / FPS
    assert video.read_settings(info.path) == {"a": 1}
    assert video.read(info.path).shape == frames.shape
    expected = sound_of(frames).samples
    decoded = heard(info.path)[:, : expected.shape[1]]
    assert decoded.shape[1] > 0.98 * expected.shape[1]
    for mine, other in zip(expected, decoded, strict=True):
        assert np.corrcoef(mine[: len(other)], other)[0, 1] > 0.9
    again, same = video.retime(info.path, tmp_path, stem="b", fps=Fraction(16), settings={})
    assert same
    assert "audio" not in streams(again.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{format}", f"b.{format}"]


def test_frames_with_sound_are_frames():
    frames = frames_with_sound()
    assert frames_sha256(frames) == frames_sha256(np.asarray(frames).copy())
    assert sound_of(frames[0]) is None
    assert sound_of(frames[2:]) is None
    assert sound_of(np.asarray(frames).copy()) is None
    assert sound_of(frames).samples.shape == (2, 48000)
    assert str(sound_of(frames)) == "2 channels, 24000 Hz"


class Sounding(FakeModel):
    def generate(self, image: Any, params: ClipParams, progress: Any) -> Any:
        frames = super().generate(image, params, progress)
        tone = np.sin(np.arange(3 * RATE) / 9)[None]
        return with_sound(frames, tone, RATE, Fraction(params.condition_fps))


@pytest.mark.parametrize(
    ("format", "fps", "said", "with_audio"),
    [
        ("mp4", 16, "with sound: 1 channel, 24000 Hz, AAC", True),
        ("webm", 16, "with sound: 1 channel, 24000 Hz, Opus", True),
        ("gif", 16, "its sound is left out: a GIF has none", False),
        ("mp4", 8, "its sound is left out: it was made for 16 frames/s", False),
    ],
)
def test_a_run_says_what_became_of_the_sound(format, fps, said, with_audio, tmp_path):
    store = Store(tmp_path / "results")
    settings = load_settings(device="cpu", output={"directory": store.directory, "format": format})
    params = ClipParams(model="fake", image="sample:coffee", resolution="128x128", fps=fps, num_frames=8)
    record = run_clip(params, Sounding(), store, settings=settings)
    assert record.status == "done", record.reason
    assert any(note.startswith(said) for note in record.notes), record.notes
    assert ("audio" in streams(store.directory / record.clip)) is with_audio
    if with_audio:
        slower = run_clip(params.replace(fps=12), Sounding(), store, settings=settings)
        assert slower.retimed_from == record.id
        assert slower.frames_sha256 == record.frames_sha256
        assert any("its sound is left out" in note for note in slower.notes)
        inside = video.read_settings(store.directory / slower.clip)["record"]["notes"]
        assert not any("with sound" in note for note in (*slower.notes, *inside))
