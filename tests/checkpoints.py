"""I2VGen-XL as its tests use it: a small checkpoint of random weights, a picture, and a listener."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment import load_experiment
from PIL import Image

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.models.i2vgen_xl.model import I2VGenXL

_script = load_experiment("make_random_i2vgen_xl")
make_checkpoint = _script.make_checkpoint
SIZES = _script.SIZES

BASE = ClipParams(image="x", model="i2vgen-xl", prompt="a boat sails by", negative_prompt="blurred, static", resolution="64x96",
                  num_frames=3, num_inference_steps=3, seed=5)  # fmt: skip


@pytest.fixture(scope="session", name="folder")
def folder_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "i2vgen-xl"))


@pytest.fixture(scope="session", name="model")
def model_fixture(folder: Path) -> I2VGenXL:
    return I2VGenXL.load(folder)


@pytest.fixture(scope="session", name="picture")
def picture_fixture(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return painted(tmp_path_factory.mktemp("picture") / "a.png", 0)


def painted(path: Path, seed: int) -> Picture:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return open_picture(path)


class Ears(Progress):
    """Writes down what it hears; raises `error` at event number `at`."""

    def __init__(self, at: int | None = None, error: BaseException | None = None) -> None:
        self.events: list[Any] = []
        self.at, self.error = at, error
        self.previews: list[np.ndarray] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self._hear((name, total))

    def step(self, preview: Preview | None = None) -> None:
        if preview is not None:
            self.previews.append(preview())
        self._hear("step")

    def _hear(self, event: Any) -> None:
        self.events.append(event)
        if self.error is not None and len(self.events) == self.at:
            raise self.error
