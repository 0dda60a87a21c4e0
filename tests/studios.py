"""What the tests of the studio share: a studio in a folder of its own, and a click on Generate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from i2v_lab import Store
from i2v_lab.clip.record import RunRecord
from i2v_lab.jobs import shared_runner
from i2v_lab.settings import Settings
from i2v_lab.widgets.studio import Studio

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SMALL = {"image": "sample:coffee", "prompt": "zoom in", "resolution": "64x96", "num_frames": 4, "num_inference_steps": 2}


def until(test: Callable[[], object], seconds: float = 60) -> None:
    """Wait for another thread; an end to a test that would hang."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


@pytest.fixture(scope="module", autouse=True, name="own_turns")
def own_turns_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The devices and the settings are this file's alone."""
    place = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(place))
        patch.setenv("XDG_CONFIG_HOME", str(place / "config"))
        patch.chdir(place)
        yield


@pytest.fixture(scope="module", name="results")
def results_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One output folder, so that one worker makes all the clips."""
    folder = tmp_path_factory.mktemp("results")
    yield folder
    shared_runner(Store(folder), Settings()).close()


@pytest.fixture(name="open_studio")
def open_studio_fixture(results: Path) -> Iterator[Callable[..., Studio]]:
    opened = []

    def make(**options: object) -> Studio:
        opened.append(Studio(output_dir=results, **{**SMALL, **options}))
        return opened[-1]

    yield make
    runner = shared_runner(Store(results), Settings())
    for job in runner.jobs.active():
        runner.stop(job.id, "the test is over")
    until(lambda: not runner.jobs.active())
    runner.refresh()
    for studio in opened:
        studio.close()


def make(studio: Studio) -> RunRecord:
    """Click on Generate; returns how the clip ended, once the studio shows it."""
    before = studio._shown
    studio._form.generate.click()
    until(lambda: studio._shown not in ("", before))
    return studio.record
