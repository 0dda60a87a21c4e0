"""On a CUDA device: seeds, tiers, predictions, the ladder, turns; by the checks of `i2v-lab verify`, with the network of the real size.

`make test-gpu` runs them, in less than five minutes on one large card; elsewhere they are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from i2v_lab.devices.gpus import gpu
from i2v_lab.verify import checks, memory, turns
from i2v_lab.verify.bench import Bench, Subject, first_clip
from i2v_lab.verify.result import Result

NEEDED_GIB = 16  # two processes with the network in float16 at once, and a clip
CARD = gpu("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(CARD is None or CARD.total < NEEDED_GIB * 2**30, reason=f"needs a CUDA device with {NEEDED_GIB} GiB"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench("cuda:0", True, tmp_path_factory.mktemp("verify"), time.monotonic() + 300)
    yield made
    made.drop()


@pytest.fixture(scope="module")
def subject(bench: Bench) -> Subject:
    return bench.add("i2vgen-xl")


def passes(found: Result) -> None:
    assert found.status == "passed", found.line


def test_a_clip_is_finite_and_not_black(bench: Bench, subject: Subject) -> None:
    passes(checks.clip(bench, subject, "clip"))


def test_a_seed_makes_the_same_frames_in_another_process(bench: Bench, subject: Subject) -> None:
    passes(checks.repeat(bench, subject))


def test_a_small_network_is_near_that_on_the_cpu(bench: Bench) -> None:
    passes(checks.against_cpu(bench))


@pytest.mark.parametrize("tier", [1, 2, 3, 4, 5, 6])
def test_a_tier_works_and_keeps_the_pixels_that_it_says(bench: Bench, subject: Subject, tier: int) -> None:
    passes(memory.tiers(bench, subject, tier, first_clip(bench, subject, track=True)))


def test_a_tier_works_with_streams(bench: Bench, subject: Subject) -> None:
    passes(memory.tiers(bench, subject, 4, first_clip(bench, subject, track=True), streams=True))


def test_memory_is_as_predicted(bench: Bench, subject: Subject) -> None:
    passes(memory.ladder(bench, subject))


def test_the_ladder_climbs_and_nothing_stays_behind(bench: Bench, subject: Subject) -> None:
    passes(memory.out_of_memory(bench, subject))
    passes(memory.left_behind(bench, subject))


def test_two_processes_take_turns(bench: Bench, subject: Subject) -> None:
    passes(turns.turns(bench, subject))
