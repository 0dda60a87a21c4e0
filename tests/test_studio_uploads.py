"""Files that are dropped on the studio."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from studios import EVIL, SMALL, open_studio_fixture, own_turns_fixture, results_fixture  # noqa: F401

from i2v_lab import ClipParams, Store, run_clip
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import InputError
from i2v_lab.widgets.studio.uploads import Uploads, is_clip, safe_name


def send(uploads: Uploads, name: str, data: bytes, size: int = 100_000) -> Path | None:
    uploads.receive({"type": "begin", "id": "1", "name": name, "size": len(data)}, [])
    path = None
    for at in range(0, len(data), size):
        answer, path = uploads.receive({"type": "piece", "id": "1", "at": at}, [memoryview(data[at : at + size])])
        assert answer["got"] == min(at + size, len(data))
    return path


def test_a_file_in_pieces_comes_out_whole_under_a_name_that_is_only_a_name(tmp_path, photograph):
    uploads = Uploads(tmp_path)
    data = photograph.read_bytes()
    path = send(uploads, "../../etc/" + EVIL, data, 10_000)
    assert path.read_bytes() == data
    assert path.is_relative_to(tmp_path / "uploads")
    assert path.parent.parent == tmp_path / "uploads"
    assert not list((tmp_path / "uploads").glob("*.part"))
    assert safe_name("a\x1b[31m\n.png") == "a_[31m_.png"
    assert len(safe_name("x" * 500 + ".png").encode()) <= 120
    with pytest.raises(InputError, match="at most 256 MiB, got 300 MiB"):
        uploads.receive({"type": "begin", "id": "2", "name": "x", "size": 300 * 2**20}, [])
    uploads.receive({"type": "begin", "id": "3", "name": "x", "size": 10}, [])
    with pytest.raises(InputError, match="a piece is missing"):
        uploads.receive({"type": "piece", "id": "3", "at": 5}, [b"12345"])
    assert not list((tmp_path / "uploads").glob(".*.part"))


def test_clips_and_pictures_are_distinguished_by_content(tmp_path, photograph):
    store = Store(tmp_path / "results")
    clip = store.directory / run_clip(ClipParams(**SMALL, model="fake"), None, store).clip
    disguised = tmp_path / "holiday.jpg"
    shutil.copy(clip, disguised)
    assert is_clip(disguised)
    assert not is_clip(photograph)


def test_a_dropped_clip_brings_back_its_settings_and_a_dropped_picture_is_used(open_studio, tmp_path, photograph):
    elsewhere = Store(tmp_path / "elsewhere")
    picture = tmp_path / "away" / "p.jpg"
    picture.parent.mkdir()
    shutil.copy(photograph, picture)
    record = run_clip(ClipParams(**{**SMALL, "model": "fake", "image": str(picture), "seed": 77}), None, elsewhere)
    clip = (elsewhere.directory / record.clip).read_bytes()
    studio = open_studio()

    def drop(name: str, data: bytes) -> None:
        studio._receive(None, {"type": "begin", "id": name, "name": name, "size": len(data)}, [])
        studio._receive(None, {"type": "piece", "id": name, "at": 0}, [data])

    drop("clip.mp4", clip)  # its picture is not here: all else comes back, and it is said
    assert (studio.params.seed, studio.params.image) == (77, "sample:coffee")
    assert "Drop the picture" in studio._form.message.value
    studio.store.keep_picture(picture, open_picture(picture).sha256)
    drop("clip.mp4", clip)
    assert open_picture(studio.params.image).sha256 == record.image_sha256
    drop("other.jpg", photograph.read_bytes())
    assert Path(studio.params.image).name == "other.jpg"
    drop("text.txt", b"hello")
    assert "expected a picture" in studio._form.message.value
    assert Path(studio.params.image).name == "other.jpg"
