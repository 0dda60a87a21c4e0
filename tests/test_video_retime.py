"""A further clip with another rate: the same coded pictures under new timestamps, by what ffprobe and Pillow find."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2v_lab.clip import video
from i2v_lab.errors import ClipError, WriteError

pytestmark = pytest.mark.skipif(
    not (shutil.which("ffprobe") and shutil.which("ffmpeg")), reason="ffprobe is not on the PATH (Debian: apt-get install ffmpeg)"
)
RATES = ["1", "8", "25/2", "24000/1001", "60"]
SETTINGS = {"prompt": "海浪 ;=# \\ \n", "fps": "new", "long": "x=" * 100_000}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One clip of each format, 17 moving frames, with settings inside."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 120, 3), np.uint8).repeat(2, axis=1)
    frames = np.stack([noise[:, 4 * k : 4 * k + 64] for k in range(17)])
    folder = tmp_path_factory.mktemp("sources")
    return {
        format: video.write(
            frames, folder, stem="source", fps=Fraction(8), format=format, settings={"fps": "old", "a": "b" * 999}
        ).path
        for format in video.FORMATS
    }


def stream(path: Path) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_packets", "-show_format", "-of", "json", path]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {**answer["streams"][0], "packets": answer["packets"], "format": answer["format"]}


def packets(path: Path) -> list[str]:
    """Size and MD5 of each coded picture as it is in the file."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-c", "copy", "-f", "framemd5", "-"]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    return [",".join(line.split(",")[4:]) for line in lines if not line.startswith("#")]


def gif_without_delays(path: Path) -> bytes:
    """The bytes of a GIF without its comment, with every delay at zero."""
    data = path.read_bytes()
    if (start := data.find(b"!\xfe")) >= 0:
        end = start + 2
        while data[end]:
            end += data[end] + 1
        data = data[:start] + data[end + 1 :]
    parts = data.split(b"!\xf9\x04")
    return b"!\xf9\x04".join([parts[0], *(part[:1] + b"\0\0" + part[3:] for part in parts[1:])])


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_pictures_are_the_same_bytes_and_times_are_new(tmp_path: Path, sources: dict[str, Path], format: str, fps: str) -> None:
    before = sources[format].read_bytes()
    info, same = video.retime(sources[format], tmp_path, stem="clip", fps=Fraction(fps), settings=SETTINGS)
    assert same
    assert packets(info.path) == packets(sources[format])
    assert np.array_equal(video.read(info.path), video.read(sources[format]))
    found = stream(info.path)
    seconds = 17 / Fraction(fps)
    assert int(found["nb_read_frames"]) == info.frames == 17
    assert Fraction(found["r_frame_rate"]) == Fraction(found["avg_frame_rate"]) == info.fps == Fraction(fps)
    times = sorted(int(packet["pts"]) * Fraction(found["time_base"]) for packet in found["packets"])
    if format == "mp4":
        assert times == [index / Fraction(fps) for index in range(17)]
        assert int(found["duration_ts"]) * Fraction(found["time_base"]) == seconds
    else:  # whole milliseconds
        assert all(abs(time - index / Fraction(fps)) <= Fraction(1, 2000) for index, time in enumerate(times))
        assert abs(Fraction(found["format"]["duration"]) - seconds) < Fraction(2, 1000)
    tags = {name.lower(): value for name, value in found["format"]["tags"].items()}
    assert json.loads(tags["comment"]) == SETTINGS == video.read_settings(info.path)
    assert info == video.probe(info.path)
    assert info.path == tmp_path / f"clip.{format}"
    assert sources[format].read_bytes() == before
    assert list(tmp_path.iterdir()) == [info.path]


@pytest.mark.parametrize("format", video.FORMATS)
def test_times_are_those_of_a_clip_that_was_encoded_at_the_rate(tmp_path: Path, sources: dict[str, Path], format: str) -> None:
    for fps in (Fraction(24000, 1001), Fraction(50), Fraction(3)):
        fresh = video.write(video.read(sources[format]), tmp_path, stem="fresh", fps=fps, format=format)
        info, _ = video.retime(sources[format], tmp_path, stem="clip", fps=fps, settings={})
        assert (info.frames, info.fps, info.codec) == (fresh.frames, fresh.fps, fresh.codec)
        durations = [[packet.get("duration_time") for packet in stream(path)["packets"]] for path in (info.path, fresh.path)]
        assert durations[0] == durations[1]


@pytest.mark.parametrize("fps", ["1", "8", "25/2", "24000/1001", "50"])
def test_a_gif_has_new_delays_alone(tmp_path: Path, sources: dict[str, Path], fps: str) -> None:
    info, same = video.retime(sources["gif"], tmp_path, stem="clip", fps=Fraction(fps), settings=SETTINGS)
    assert same
    assert gif_without_delays(info.path) == gif_without_delays(sources["gif"])
    assert video.read_settings(info.path) == SETTINGS
    with Image.open(info.path) as picture:
        assert (picture.n_frames, picture.info["loop"]) == (17, 0)
    assert abs(info.frames / info.fps - 17 / Fraction(fps)) <= Fraction(2, 100)


def test_there_and_back_again(tmp_path: Path, sources: dict[str, Path]) -> None:
    """A copy of a copy, many rates later, is the first clip: no rounding adds up."""
    for format, source in sources.items():
        path = source
        for index, fps in enumerate(("1", "50", "24000/1001", "7", "1001/1000", "49", "8")):
            path = video.retime(path, tmp_path, stem=f"clip{index}", fps=Fraction(fps), settings={})[0].path
        last, first = stream(path), stream(source)
        assert [packet["pts_time"] for packet in last["packets"]] == [packet["pts_time"] for packet in first["packets"]]
        assert video.probe(path).fps == video.probe(source).fps
        assert format == "gif" or packets(path) == packets(source)


def test_another_codec_is_encoded_again(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.mp4"
    picture = ["-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=0.5"]
    subprocess.run(["ffmpeg", "-v", "error", *picture, "-c:v", "mpeg4", "-q:v", "2", foreign], check=True)
    info, same = video.retime(foreign, tmp_path, stem="clip", fps=Fraction(8), settings={"a": 1})
    assert not same
    assert (info.codec, info.frames, info.fps) == ("h264", 5, Fraction(8))
    assert video.read_settings(info.path) == {"a": 1}


def test_what_goes_wrong_leaves_nothing(tmp_path: Path, sources: dict[str, Path]) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(sources["mp4"].read_bytes()[:-2000])
    out = tmp_path / "out"
    for source in (damaged, tmp_path / "none.mp4"):
        with pytest.raises(ClipError):
            video.retime(source, out, stem="clip", fps=Fraction(8), settings={})
    for source, fps, stem in ((sources["gif"], 60, "clip"), (sources["mp4"], 0, "clip"), (sources["mp4"], 8, "../clip")):
        with pytest.raises(WriteError):
            video.retime(source, out, stem=stem, fps=Fraction(fps), settings={})
    (tmp_path / "clip.avi").touch()
    with pytest.raises(WriteError, match="mp4, webm, gif"):
        video.retime(tmp_path / "clip.avi", out, stem="clip", fps=Fraction(8), settings={})
    assert not out.exists()


def test_a_name_that_is_taken_is_kept(tmp_path: Path, sources: dict[str, Path]) -> None:
    (tmp_path / "clip.mp4").write_text("mine")
    info, _ = video.retime(sources["mp4"], tmp_path, stem="clip", fps=Fraction(9), settings={})
    assert info.path == tmp_path / "clip_1.mp4"
    assert (tmp_path / "clip.mp4").read_text() == "mine"
