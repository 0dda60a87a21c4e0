"""What the closed-form model shows stays what it was: a few frames, kept in golden/, to within one grey level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from experiment import load_experiment
from PIL import Image

from i2v_lab.models.closed_form.model import REVISION, ClosedForm

golden_frames = load_experiment("golden_frames")
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", golden_frames.CASES)
def test_the_model_shows_its_golden_frames(name: str) -> None:
    found, golden = golden_frames.golden(name).astype(int), np.asarray(Image.open(GOLDEN / f"{name}.png")).astype(int)
    assert found.shape == golden.shape
    assert np.abs(found - golden).max() <= 1, (
        f"the closed-form model shows something else than {REVISION!r} did. If that is meant, raise REVISION in "
        "i2v_lab/models/closed_form/model.py and make the golden frames again: python experiments/golden_frames.py"
    )


def test_each_golden_frame_has_a_case_and_all_are_small() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(golden_frames.CASES)
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 200_000


def test_the_fingerprint_is_the_revision() -> None:
    assert ClosedForm.fingerprint == REVISION
