"""What a clip carries, and how its settings come back from it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ClipError, ModelError, PictureError
from i2v_lab.run import restore, run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store

pytestmark = pytest.mark.usefixtures("empty_folder")


SETTINGS = Settings()


# What a clip carries


def test_a_clip_says_nothing_of_the_machine_it_was_made_on(params, store, photograph, tmp_path):
    record = run_clip(params, None, store, settings=SETTINGS)
    inside = video.read_settings(store.directory / record.clip)
    assert ClipParams(**inside["params"]) == params.replace(image=photograph.name)
    assert inside["record"]["frames_sha256"] == record.frames_sha256
    assert inside["record"]["key"] == record.key
    assert not {"host", "pid", "clip"} & set(inside["record"])
    text = json.dumps(inside)
    assert str(tmp_path) not in text
    assert str(photograph.parent) not in text
    assert str(Path.home()) not in text


def test_a_clip_gives_its_settings_back_where_the_picture_is_found(params, store, photograph, tmp_path):
    record = run_clip(params, None, store, settings=SETTINGS)
    alone = tmp_path / "alone"
    alone.mkdir()
    clip = shutil.copy(store.directory / record.clip, alone)
    with pytest.raises(PictureError, match="--image"):
        restore(Path(clip))
    kept, carried = restore(Path(clip), store)
    assert Path(kept.image).read_bytes() == photograph.read_bytes()
    assert kept.replace(image="x") == params.replace(image="x")
    assert carried["frames_sha256"] == record.frames_sha256
    assert restore(Path(clip), None, str(photograph))[0].image == str(photograph)
    shutil.copy(photograph, alone)
    assert restore(Path(clip))[0].image == str(alone / photograph.name)


def test_another_picture_is_refused(params, store, tmp_path):
    clip = store.directory / run_clip(params, None, store, settings=SETTINGS).clip
    with pytest.raises(PictureError, match="got another"):
        restore(clip, store, "sample:cat")
    with pytest.raises(PictureError, match="no such file"):
        restore(clip, store, str(tmp_path / "none.jpg"))


_opened: list[str] | None = None
_hooked = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


@contextmanager
def opened() -> Iterator[list[str]]:
    """The names of all files that Python opens meanwhile."""
    global _opened, _hooked  # noqa: PLW0603 - an audit hook cannot be removed
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    _opened = heard = []
    try:
        yield heard
    finally:
        _opened = None


def clip_with(folder: Path, settings: Any) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    return video.write(frames, folder, stem="odd", fps=Fraction(8), settings=settings).path


def test_a_picture_outside_is_not_opened_whatever_the_clip_says(photograph, tmp_path):
    outside, inside = tmp_path / "outside" / "private.jpg", tmp_path / "inside"
    outside.parent.mkdir()
    shutil.copy(photograph, outside)
    sha256 = open_picture(photograph).sha256
    for name in ("../outside/private.jpg", str(outside), "../../../../etc/passwd", "/etc/passwd", "..", "sample:../x", "a\0b"):
        clip = clip_with(inside, {"params": {"image": name, "model": "fake"}, "record": {"image_sha256": sha256}})
        with opened() as names, pytest.raises(PictureError, match="--image") as caught:
            restore(clip, Store(tmp_path / "results"))
        assert "\n" not in str(caught.value)
        assert str(clip) in names  # the hook hears
        assert not [heard for heard in names if heard.endswith(("private.jpg", "passwd"))]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_frames": 10**9}, "num_frames: input should be less than or equal to 257"),
        ({"prompt": "a" * 100_000}, "prompt: string should have at most 2000 characters"),
        ({"guidance_scale": "[red]much"}, "guidance_scale"),
        ({"self": 1}, "self: unknown name"),
        ({"model_config": {}}, "model_config: unknown name"),
        ({"\x1b[31m\nred": 1}, r"'\x1b[31m\nred': unknown name"),
        ({f"name{number}": 1 for number in range(10_000)}, "and 9990 more"),
        ({"n" * 100_000: 1}, "(100002 characters)"),
        ({"seed": {"a": [1]}}, "seed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_that_are_none_are_one_clear_line(change, expected, tmp_path):
    carried = {"image": "sample:coffee", "model": "fake", **change}
    clip = clip_with(tmp_path, {"params": carried, "record": {"image_sha256": "a" * 64}})
    with pytest.raises(ClipError) as caught:
        restore(clip)
    text = str(caught.value)
    assert expected in text
    assert text.isprintable()
    assert len(text) < 2500


@pytest.mark.parametrize(
    "settings",
    [{}, {"params": [], "record": {}}, {"params": {"image": "sample:cat"}, "record": {"image_sha256": "../../x"}},
     {"params": {"image": "sample:cat"}, "record": {"image_sha256": ["a"]}}, {"params": {"image": "x"}}],
    ids=str,
)  # fmt: skip
def test_other_metadata_is_said_to_be_other(settings, tmp_path):
    with pytest.raises(ClipError, match="expected the settings of a clip of i2v_lab"):
        restore(clip_with(tmp_path, settings), Store(tmp_path / "results"))


@pytest.mark.parametrize("model", ["somebody/some-weights", "/etc", "../../secret", "~root/x", "gone"])
def test_a_checkpoint_that_only_the_clip_names_is_neither_fetched_nor_opened(model, photograph, tmp_path):
    sha256 = open_picture(photograph).sha256
    clip = clip_with(tmp_path, {"params": {"image": "x.jpg", "model": model}, "record": {"image_sha256": sha256}})
    with pytest.raises(ModelError, match="--model"):
        restore(clip, None, str(photograph))
    assert restore(clip, None, str(photograph), "closed-form")[0].model == "closed-form"


def test_a_folder_that_is_called_as_the_clip_says_is_not_opened(photograph, tmp_path):
    for folder in (Path("mine"), Path("checkpoints/mine")):
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
    sha256 = open_picture(photograph).sha256
    clip = clip_with(tmp_path, {"params": {"image": "x.jpg", "model": "mine"}, "record": {"image_sha256": sha256, "key": "k"}})
    with pytest.raises(ModelError, match="no folder is opened because a clip names it"):
        restore(clip, None, str(photograph))
    assert restore(clip, None, str(photograph), "mine")[0].model == "mine"
