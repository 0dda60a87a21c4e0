"""What speed costs over a sweep: which clip is compared with which, and the table of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from i2v_lab.errors import InputError, SweepError
from i2v_lab.metrics.price import price
from i2v_lab.report import speed_piece
from i2v_lab.statistics.prices import prices
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, run_sweep
from i2v_lab.sweep.prices import PRICES, priced_axes, references, with_prices

LEVERS = Sweep(
    name="levers",
    base={"model": "closed-form", "image": "sample:coffee", "prompt": "zoom in", "resolution": "64x96", "num_frames": 6},
    axes={"guidance_interval": ["0-1", "0.1-0.6"], "num_inference_steps": [4, 12]},
    seeds=[0, 1, 2],
)
AXES = ["guidance_interval", "num_inference_steps", "seed"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return run_sweep(LEVERS, Store(tmp_path_factory.mktemp("levers")))


@pytest.fixture(scope="module")
def done(result):
    """(table, folder) of the sweep."""
    return result.table(), result.folder


def timed(table):
    """The table with times that do not depend on the machine: half for 4 steps, three quarters for the lever."""
    table = table.assign(seconds_load=0.0, seconds_total=[2.0 if steps == 12 else 1.0 for steps in table["num_inference_steps"]])
    table.loc[table["guidance_interval"] == "0.1-0.6", "seconds_total"] *= 0.75
    return table


def test_the_report_says_it_in_both_languages_and_nothing_where_no_lever_was_swept(result) -> None:
    piece = speed_piece(result, LEVERS, timed(result.table()))
    assert re.search(r"guidance_interval 0.1-0.6, num_inference_steps 4 takes 0\.38 of the time; VMAF is [\d.]+", piece.text)
    for words in (
        "What speed costs",
        "提速的代价",
        "的运动（3 个片段）",
        "guidance_interval 0-1, num_inference_steps 12",
        "★",
        " ± ",
        "<img ",
    ):
        assert words in piece.body
    plain = Sweep(name="plain", base=LEVERS.base, axes={"num_inference_steps": [4, 12]})
    assert speed_piece(replace(result, axes=("num_inference_steps",)), plain).body == ""


def test_a_cell_is_compared_with_the_same_seed_without_a_lever_and_with_the_most_steps(done, tmp_path: Path) -> None:
    table, _ = done
    priced = with_prices(table, AXES, LEVERS.reference, tmp_path)
    assert len(priced) == 12
    for index, row in priced.iterrows():
        other = priced.loc[row["reference"]]
        assert (other["guidance_interval"], other["num_inference_steps"], other["seed"]) == ("0-1", 12, row["seed"])
        if index == row["reference"]:
            assert np.isnan(row["price_psnr"])
        else:
            found = price(Path(row["clip"]), Path(other["clip"]))
            assert found.vmaf is not None
            assert row["price_vmaf"] == pytest.approx(found.vmaf)
            assert row["price_psnr"] == pytest.approx(found.psnr)
            assert row["price_motion_kept"] == pytest.approx(found.motion_kept)
    kept = json.loads((tmp_path / PRICES).read_text())
    assert 1 <= len(kept) <= 9  # seeds that give equal frames share one
    (tmp_path / PRICES).write_text(json.dumps({key: {**found, "vmaf": 1.5} for key, found in kept.items()}))
    assert set(with_prices(table, AXES, LEVERS.reference, tmp_path)["price_vmaf"].dropna()) == {1.5}  # not compared again


def test_the_table_has_the_means_over_seeds_and_the_front(done, tmp_path: Path) -> None:
    table, _ = done
    priced = with_prices(timed(table), AXES, {}, tmp_path)
    found = prices(priced, priced_axes(AXES, {})).set_index(["guidance_interval", "num_inference_steps"])
    assert list(found.index) == [("0-1", 4), ("0.1-0.6", 4), ("0.1-0.6", 12)]
    assert found["time"].tolist() == pytest.approx([0.5, 0.375, 0.75])
    for setting, row in found.iterrows():
        own = priced[[name == setting for name in zip(priced["guidance_interval"], priced["num_inference_steps"], strict=True)]]
        assert row["vmaf"] == pytest.approx(own["price_vmaf"].mean())
        assert row["vmaf_low"] <= row["vmaf"] <= row["vmaf_high"] <= 100
        assert (row["clips"], row["seeds"]) == (3, 3)
    fastest = found.loc[("0.1-0.6", 4)]
    assert fastest["front"]


def test_a_reference_is_one_of_the_cells(done) -> None:
    table, _ = done
    named = references(table, AXES, {"num_inference_steps": 12})
    assert [table["num_inference_steps"].iloc[other] for other in named if other is not None] == [12] * 12
    assert all(table["guidance_interval"].iloc[other] == own for own, other in zip(table["guidance_interval"], named, strict=True))
    assert priced_axes(AXES, {"num_inference_steps": 12}) == ["num_inference_steps"]
    assert priced_axes(["num_inference_steps", "seed"], {}) == []  # without a lever nothing is asked
    with pytest.raises(InputError, match="no cell has num_inference_steps 50; add"):
        references(table, AXES, {"num_inference_steps": 50})
    for written in ("0.0-1.0", "0-1"):
        named = references(table, AXES, {"guidance_interval": written, "num_inference_steps": "12"})
        assert named == references(table, AXES, {})
    assert Sweep(name="s", base=LEVERS.base, axes={"guidance_scale": [1, 4, 9]}, reference={"guidance_scale": 9}).reference
    with pytest.raises(SweepError, match=r"reference: num_inference_steps: expected a value of the axis \(4, 12\), got 50"):
        Sweep(**{**LEVERS.model_dump(exclude_defaults=True), "reference": {"num_inference_steps": 50}})
    with pytest.raises(SweepError, match="reference: cache: unknown axis"):
        Sweep(**{**LEVERS.model_dump(exclude_defaults=True), "reference": {"cache": "deep:1"}})
