"""Statistics against known answers and simulations: intervals, paired differences, Holm, Pareto, Bradley-Terry."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from experiment import load_experiment
from scipy import stats
from tables import noisy, table_of

from i2v_lab import report, statistics
from i2v_lab.errors import InputError
from i2v_lab.store import Store
from i2v_lab.store.opinions import Opinions

EVIL = "<script>alert(1)</script>"


# Intervals


def test_an_interval_is_students_t_of_the_seeds_and_never_narrower_than_the_spread_of_all_settings():
    assert statistics.interval([1.0, 2.0, 6.0]) == pytest.approx(stats.t.interval(0.95, 2, 3, stats.sem([1, 2, 6])))
    assert statistics.interval([1.0, 2.0, 6.0], spread=10) == pytest.approx(stats.t.interval(0.95, 2, 3, 10 / math.sqrt(3)))
    assert all(map(math.isnan, (*statistics.interval([1.0]), *statistics.interval([1.0, 2.0]))))  # two values say more alone
    assert statistics.interval([4.0] * 5) == (4.0, 4.0)


def test_an_interval_is_over_seeds_not_over_clips_and_holds_no_impossible_value():
    table = table_of(noisy)
    found = statistics.by_value(table, "guidance_scale", ["prompt_agreement"]).set_index("value")
    own = table[table["guidance_scale"] == 9].groupby("seed")["metric_prompt_agreement"].mean()
    others = [table[table["guidance_scale"] == scale].groupby("seed")["metric_prompt_agreement"].mean() for scale in (1, 5, 9)]
    spread = max(own.std(), np.sqrt(np.mean([one.var() for one in others])))
    assert found.loc[9.0, ["low", "high"]].tolist() == pytest.approx(stats.t.interval(0.95, 4, own.mean(), spread / math.sqrt(5)))
    near = 1 - 0.1 * (table["seed"] == 0)
    top = statistics.by_value(
        table.assign(metric_input_ssim=near, metric_smoothness=near), "guidance_scale", ["input_ssim", "smoothness"]
    )
    known = top[top["metric"] == "metric_input_ssim"]
    assert (known["high"] == 1).all() and (known["low"] < 1).all()
    assert top.loc[top["metric"] == "metric_smoothness", "low"].isna().all()  # its intervals would be too narrow


def test_means_by_value_leave_out_what_is_missing():
    table = table_of(noisy)
    table.loc[0, "metric_sharpness"] = math.nan
    table.loc[1, "status"] = "failed"
    found = statistics.by_value(table, "guidance_scale", ["sharpness"])
    assert (
        found["value"].tolist() == [1.0, 5.0, 9.0]
        and found["clips"].tolist() == [13, 15, 15]
        and found["seeds"].tolist() == [5, 5, 5]
    )
    own = table.loc[(table["guidance_scale"] == 5), "metric_sharpness"]
    assert found["mean"][1] == pytest.approx(own.mean()) and found["spread"][1] == pytest.approx(own.std())
    assert (found["low"] < found["mean"]).all() and (found["mean"] < found["high"]).all()
    with pytest.raises(InputError, match="metric_motion"):
        statistics.by_value(table, "guidance_scale", ["beauty"])


# The best for the cost


def test_the_front_is_what_nothing_beats():
    rng = np.random.default_rng(4)
    quality, cost = rng.random(200), rng.random(200)
    for better in (True, False):
        front = statistics.pareto(quality, cost, more_is_better=better)
        gain = quality if better else -quality
        for n in range(200):
            beaten = any(gain[k] >= gain[n] and cost[k] <= cost[n] and (gain[k] > gain[n] or cost[k] < cost[n]) for k in range(200))
            assert front[n] is not beaten
    assert statistics.pareto([1, 1, math.nan], [2, 2, 0]) == [True, True, False]


def test_settings_win_by_their_means_not_by_a_lucky_clip():
    axes = ["guidance_scale", "seed", "image"]
    table = table_of(noisy)
    assert statistics.best_within(table, axes, "prompt_agreement", seconds=1.6)["guidance_scale"] == 5.0
    assert statistics.best_within(table, axes, "prompt_agreement", seconds=1.0) is None
    assert statistics.best_within(table, axes, "prompt_agreement", memory_gib=0.5) is None
    less = table.assign(metric_warping_error=table["guidance_scale"])
    assert statistics.best_within(less, axes, "warping_error")["guidance_scale"] == 1.0
    with pytest.raises(InputError, match="only says how much"):
        statistics.best_within(table, axes, "motion")
    found = statistics.cheapest(table.assign(metric_warping_error=10 - table["guidance_scale"]), axes, "warping_error", 5)
    assert found["guidance_scale"] == 5.0
    assert statistics.cheapest(table, axes, "prompt_agreement", 0.45)["sure"]
    lucky = table.copy()
    lucky.loc[lucky["guidance_scale"].eq(1) & lucky["seed"].eq(0), "metric_prompt_agreement"] = 1.0
    assert statistics.cheapest(lucky, axes, "prompt_agreement", 0.4)["guidance_scale"] > 1


def test_a_setting_does_not_win_by_the_seeds_that_it_lacks():
    def value(scale: float, seed: int, image: str) -> dict[str, float]:
        return {"prompt_agreement": 0.9 - 0.2 * seed + 0.001 * scale}

    table = table_of(value, seeds=4, images=("a.png",), scales=(1.0, 9.0))
    table.loc[table["guidance_scale"].eq(1) & table["seed"].eq(3), "status"] = "failed"  # the worst seed of setting 1
    found = statistics.settings(table, ["guidance_scale", "seed"], "prompt_agreement").set_index("guidance_scale")
    assert found["missing"].to_dict() == {1.0: 1, 9.0: 0}
    assert found["mean"].to_dict() == pytest.approx({1.0: 0.701, 9.0: 0.709})  # of seeds 0, 1, 2 in both
    assert statistics.best_within(table, ["guidance_scale", "seed"], "prompt_agreement")["guidance_scale"] == 9.0
    table.loc[table["guidance_scale"].eq(1) & table["seed"].gt(0), "status"] = "failed"
    found = statistics.settings(table, ["guidance_scale", "seed"], "prompt_agreement").set_index("guidance_scale")
    assert math.isnan(found.loc[1.0, "mean"]) and found.loc[9.0, "mean"] == pytest.approx(0.609)


def test_of_equal_settings_few_are_called_beaten_and_a_worse_one_is():
    rng, beaten = np.random.default_rng(6), 0
    for _ in range(60):
        table = table_of(lambda *_: {"prompt_agreement": 0.1 * rng.normal()}, images=("a",), scales=(1.0, 2.0, 3.0, 4.0, 5.0))
        table["seconds_total"] = 3 + 0.1 * rng.random(len(table))
        beaten += statistics.settings(table, ["guidance_scale", "seed"], "prompt_agreement")["beaten"].any()
    assert beaten <= 7  # 5 % of 60 is 3; by the means alone nearly all sweeps have one
    table = table_of(noisy).assign(seconds_total=3.0)
    found = statistics.settings(table, ["guidance_scale", "seed", "image"], "prompt_agreement")
    assert found["beaten"].tolist() == [True, True, False] and found["front"].tolist() == [False, False, True]


# Votes


def votes_of(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["left", "right", "better"])


def test_strengths_come_back_from_votes_with_ties_that_were_drawn_with_them():
    truth = {"a": 1.5, "b": 0.5, "c": -0.5, "d": -1.5}
    rng, held, slopes = np.random.default_rng(5), 0, []
    for _ in range(25):
        found = statistics.ranking(load_experiment("check_statistics").drawn_votes(truth, 300, 0.8, rng))
        held += sum(found.loc[name, "low"] <= strength <= found.loc[name, "high"] for name, strength in truth.items())
        slopes.append(sum(found.loc[name, "strength"] * strength for name, strength in truth.items()) / 5)
    assert held >= 88  # of 100, expected 95: ties as half a win hold 70
    assert np.mean(slopes) == pytest.approx(1, abs=0.08)  # ties as half a win: 0.7
    assert found.index.tolist() == ["a", "b", "c", "d"] and found["votes"].sum() == 600


def test_one_vote_and_an_unanimous_winner_have_wide_intervals():
    one = statistics.ranking(votes_of(("a", "b", "left")))
    assert one.index.tolist() == ["a", "b"] and one.loc["a", "low"] < 0 < one.loc["a", "high"]
    many = statistics.ranking(votes_of(*[("a", "b", "left")] * 20))
    assert 0 < many.loc["a", "low"] < many.loc["a", "high"] - 1 and np.isfinite(many.to_numpy()).all()
    equal = statistics.ranking(votes_of(*[("a", "b", "equal")] * 20))
    assert equal["strength"].abs().max() < 1e-6 and equal["won"].tolist() == [0.5, 0.5]
    assert statistics.ranking(votes_of()).empty


def test_clips_that_were_never_compared_are_ranked_apart():
    found = statistics.ranking(votes_of(("a", "b", "left"), ("b", "e", "left"), ("c", "d", "right")))
    assert found["group"].to_dict() == {"a": 1, "b": 1, "e": 1, "d": 2, "c": 2}
    assert found.groupby("group")["strength"].sum().abs().max() < 1e-9


def test_an_unknown_vote_is_refused_with_the_legal_words():
    with pytest.raises(InputError, match="expected left, right, equal, got 'both'"):
        statistics.ranking(votes_of(("a", "b", "both")))


def test_settings_are_ranked_by_the_votes_on_their_runs(tmp_path):
    opinions = Opinions(Store(tmp_path))
    for left, right, better in (("r1", "r2", "left"), ("r3", "r2", "left"), ("r1", "r3", "right"), ("r9", "r2", "left")):
        opinions.vote(left, right, better)
    found = statistics.ranking(opinions.votes(), {"r1": "9", "r3": "9", "r2": "1"})
    assert found.index.tolist() == ["9", "1"] and found["votes"].tolist() == [2, 2]


def test_opinions_stay_with_the_store_and_say_what_is_wrong(tmp_path):
    first, second = Opinions(Store(tmp_path)), Opinions(Store(tmp_path))
    first.rate("r1", 4)
    second.note("r1", EVIL)
    second.rate("r2", 2)
    first.rate("r2", None)
    table = second.table()
    assert table.to_dict("index") == {"r1": {"stars": 4, "note": EVIL}}
    first.vote("r1", "r2", "equal")
    assert second.votes()[["left", "right", "better"]].to_numpy().tolist() == [["r1", "r2", "equal"]]
    assert str(second.votes()["created"].dt.tz) == "UTC"
    wrong = [lambda: first.rate("r1", 6), lambda: first.rate("r1", True), lambda: first.vote("r1", "r1", "left"),
             lambda: first.vote("r1", "r2", "both"), lambda: first.note("r1", "x" * 10_001), lambda: first.rate("", 3)]  # fmt: skip
    for call in wrong:
        with pytest.raises(InputError, match="expected"):
            call()
    assert first.table()["stars"].tolist() == [4] and len(first.votes()) == 1


# The report


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop(columns=[name for name in table if name.startswith("metric_")]),
        lambda table: table.assign(metric_motion=math.nan, metric_prompt_agreement=math.nan),
        lambda table: table.assign(status="failed"),
        lambda table: table.iloc[:0],
        lambda table: table.iloc[:1],
        lambda table: table.assign(metric_sharpness=table["metric_sharpness"].where(table["guidance_scale"] > 1)),
        lambda table: table.assign(status="planned", metric_motion=math.nan, seconds_total=math.nan, peak_ram_gib=math.nan),
    ],
    ids=["no metrics", "all missing", "all failed", "no rows", "one row", "missing at one value", "planned"],
)
def test_what_is_missing_never_breaks_a_report(change):
    table, axes = change(table_of(noisy)), ["guidance_scale", "seed", "image"]
    assert str(report.findings(table, axes))
    for figure in report.metric_plots(table, axes):
        figure._repr_png_()
    figure = report.pareto_plot(table, axes)
    assert figure is None or figure._repr_png_()[0][:4] == b"\x89PNG"
    assert len(report.pareto_clips(table, axes)) <= len(table)


def test_values_of_axes_are_shown_as_text_only():
    table = table_of(noisy, scales=(1.0, 9.0)).assign(prompt=lambda t: np.where(t["guidance_scale"] > 1, EVIL, "$x$ 镜头" * 20))
    shown = report.findings(table, ["prompt", "seed", "image"])._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown
    for figure in [*report.metric_plots(table, ["prompt", "seed"]), report.pareto_plot(table, ["prompt", "seed"])]:
        assert figure._repr_png_()[0][:4] == b"\x89PNG"


def test_the_plot_of_quality_and_cost_names_what_nothing_beats():
    table = table_of(noisy)
    found = report.pareto_clips(table, ["guidance_scale", "seed", "image"])
    assert found["guidance_scale"].tolist() == [1.0, 5.0, 9.0] and found["seed"].tolist() == [0, 0, 0]
    texts = [text.get_text() for text in report.pareto_plot(table, ["guidance_scale", "seed", "image"]).axes[0].texts]
    assert texts == ["1", "2", "3"]  # and what they are is below
    assert "guidance_scale 9" in report.pareto_plot(table, ["guidance_scale", "seed", "image"]).names
    assert report.pareto_plot(table, ["guidance_scale"], cost="memory").axes[0].get_xlabel().endswith("(GiB)")
    with pytest.raises(InputError, match="more or less is better"):
        report.pareto_clips(table, ["guidance_scale"], "motion")
