"""Statistics against known answers and simulations: intervals, paired differences, Holm, Pareto, Bradley-Terry."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from i2v_lab import report, statistics
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import InputError
from i2v_lab.store import Store
from i2v_lab.store.opinions import Opinions

EVIL = "<script>alert(1)</script>"


def table_of(values, *, seeds=5, images=("a.png", "b.png", "c.png"), scales=(1.0, 5.0, 9.0), **more) -> pd.DataFrame:
    """A table of runs; `values(scale, seed, image)` gives its metrics."""
    rows = []
    for scale, seed, image in product(scales, range(seeds), images):
        row = {"status": "done", "guidance_scale": scale, "seed": seed, "image": image, "seconds_total": 2.0 + scale / 10, "seconds_load": 1.0,
               "peak_vram_allocated_gib": math.nan, "peak_ram_gib": 1.0}  # fmt: skip
        rows.append({**row, **more, **{f"metric_{name}": value for name, value in values(scale, seed, image).items()}})
    return pd.DataFrame(rows)


def noisy(scale: float, seed: int, image: str) -> dict[str, float]:
    """Agreement grows with the scale; sharpness is luck; the pictures differ; flicker follows motion."""
    luck = np.random.default_rng([seed, ord(image[0])]).normal(size=3)
    noise = np.random.default_rng([int(10 * scale), seed, ord(image[0])]).normal(size=4)
    return {"prompt_agreement": scale / 10 + 0.02 * luck[0] + 0.01 * noise[0], "sharpness": 100 * ord(image[0]) + 30 * luck[1] + 20 * noise[1],
            "motion": 5 - scale / 3 + 0.05 * noise[2], "temporal_flickering": 0.9 + scale / 200 + 1e-4 * noise[3]}  # fmt: skip


# Intervals


def test_an_interval_holds_the_mean_nearly_as_often_as_it_says():
    rng, held = np.random.default_rng(1), dict.fromkeys((5, 10, 20), 0)
    for many in held:
        for _ in range(200):
            low, high = statistics.interval(rng.normal(3, 2, many))
            held[many] += low <= 3 <= high
    assert all(180 <= count <= 200 for count in held.values()), held  # 0.95 of 200 is 190; plain percentiles of 5 hold about 165


def test_an_interval_over_seeds_is_wider_where_clips_of_a_seed_are_alike():
    values = np.repeat(np.random.default_rng(2).normal(size=6), 10)
    alone, whole = statistics.interval(values), statistics.interval(values, np.repeat(range(6), 10).tolist())
    assert whole[1] - whole[0] > 2 * (alone[1] - alone[0])
    assert whole == pytest.approx(statistics.interval(values[::10]))


def test_one_value_has_no_interval_and_a_few_reach_from_lowest_to_highest():
    assert all(map(math.isnan, statistics.interval([1.0])))
    assert all(map(math.isnan, statistics.interval([1.0, 2.0], ["seed", "seed"])))
    assert statistics.interval([1.0, 2.0]) == (1.0, 2.0)
    assert statistics.interval([1.0, 2.0, 6.0]) == (1.0, 6.0)
    assert statistics.interval([4.0] * 5) == (4.0, 4.0)


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


# Differences


def test_a_difference_is_paired_by_seed_and_picture():
    table = table_of(noisy)
    (found,) = statistics.differences(table, "guidance_scale", ["sharpness"], ["guidance_scale", "seed", "image"], [(1.0, 9.0)])
    wide = table.pivot_table(index=["seed", "image"], columns="guidance_scale", values="metric_sharpness")
    apart = wide[9.0] - wide[1.0]
    by_seed = apart.groupby("seed").mean()
    assert (found.pairs, found.seeds) == (15, 5)
    assert found.mean == pytest.approx(apart.mean())
    assert found.p == pytest.approx(stats.ttest_rel(wide[9.0].groupby("seed").mean(), wide[1.0].groupby("seed").mean()).pvalue)
    assert found.effect == pytest.approx(by_seed.mean() / by_seed.std())
    assert found.verdict == "no difference seen" and "no difference seen with 5 seeds" in str(found)
    half = table[(table["guidance_scale"] == 1) | (table["image"] == "a.png")]
    (some,) = statistics.differences(half, "guidance_scale", ["sharpness"], ["guidance_scale", "seed", "image"], [(1.0, 9.0)])
    assert some.pairs == 5 and some.mean == pytest.approx(apart.xs("a.png", level="image").mean())


def test_what_is_there_is_found_and_what_is_luck_is_not():
    found = statistics.differences(
        table_of(noisy), "guidance_scale", ["prompt_agreement", "sharpness"], ["guidance_scale", "seed", "image"]
    )
    verdicts = {(one.metric, one.before, one.after): one.verdict for one in found}
    for pair in ((1.0, 9.0), (1.0, 5.0), (5.0, 9.0)):
        assert verdicts[("metric_prompt_agreement", *pair)] == "higher"
        assert verdicts[("metric_sharpness", *pair)] == "no difference seen"
    assert statistics.holm([one.p for one in found]) == [one.p_holm for one in found]


def test_among_many_comparisons_of_pure_luck_few_are_claimed():
    rng, claimed = np.random.default_rng(3), 0
    for _ in range(40):
        table = table_of(lambda scale, seed, image: {f"m{n}": rng.normal() for n in range(4)}, images=("a",))
        found = statistics.differences(table, "guidance_scale", [f"m{n}" for n in range(4)], ["guidance_scale", "seed"])
        claimed += any(one.verdict in ("higher", "lower") for one in found)
    assert claimed <= 6  # 0.05 of 40 is 2; without the correction more than 15 have one


def test_one_seed_says_nothing_about_luck_and_equal_differences_are_sure():
    (one,) = statistics.differences(
        table_of(noisy, seeds=1, scales=(1.0, 9.0)), "guidance_scale", ["motion"], ["guidance_scale", "image"]
    )
    assert one.verdict == "one seed" and math.isnan(one.low) and "nothing can be said about luck" in str(one)
    same = table_of(lambda scale, seed, image: {"motion": scale}, scales=(1.0, 9.0))
    (sure,) = statistics.differences(same, "guidance_scale", ["motion"], ["guidance_scale", "seed", "image"])
    assert (sure.mean, sure.low, sure.high, sure.p_holm, sure.verdict) == (8, 8, 8, 0, "higher")
    none = table_of(lambda scale, seed, image: {"motion": 1.0}, scales=(1.0, 9.0))
    assert statistics.differences(none, "guidance_scale", ["motion"], ["guidance_scale", "seed"])[0].verdict == "no difference seen"
    other = none.assign(seed=range(len(none)))
    assert statistics.differences(other, "guidance_scale", ["motion"], ["guidance_scale", "seed"])[0].verdict == "no pairs"


def test_axes_that_go_together_are_still_paired():
    table = table_of(noisy).assign(num_inference_steps=lambda t: (t["guidance_scale"] * 10).astype(int))
    (found,) = statistics.differences(
        table, "guidance_scale", ["motion"], ["guidance_scale", "num_inference_steps", "seed", "image"], [(1.0, 9.0)]
    )
    assert found.pairs == 15


def test_holm_is_that_of_the_textbook():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005, math.nan])[:4] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert math.isnan(statistics.holm([0.01, math.nan])[1]) and statistics.holm([0.9, 0.8]) == [1.0, 1.0]


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


def test_the_best_within_a_limit():
    table = table_of(noisy)
    assert statistics.best_within(table, "prompt_agreement", seconds=1.6)["guidance_scale"] == 5.0
    assert statistics.best_within(table, "prompt_agreement", seconds=1.0) is None
    assert statistics.best_within(table, "prompt_agreement", memory_gib=0.5) is None
    assert (
        statistics.best_within(table.assign(metric_warping_error=table["guidance_scale"]), "warping_error")["guidance_scale"] == 1.0
    )
    with pytest.raises(InputError, match="only says how much"):
        statistics.best_within(table, "motion")
    assert (
        statistics.cheapest(table.assign(metric_warping_error=10 - table["guidance_scale"]), "warping_error", 5)["guidance_scale"]
        == 5.0
    )


def test_a_run_without_params_is_left_out_of_the_statistics(tmp_path):
    store = Store(tmp_path)
    store.save(RunRecord(id="bad row", status="failed"))
    for seed, motion in product((0, 1), (1.0, 2.0)):
        params = ClipParams(image="sample:coffee", seed=seed, guidance_scale=motion)
        store.save(RunRecord(id=f"{seed} {motion}", status="done", params=params, metrics={"motion": motion + seed}))
    (one,) = statistics.differences(store.runs(), "guidance_scale", ["motion"], ["guidance_scale", "seed"])
    assert (one.mean, one.pairs, one.seeds) == (1.0, 2, 2)
    assert statistics.by_value(store.runs(), "seed", ["motion"])["value"].tolist() == [0, 1]


# Votes


def test_strengths_come_back_from_votes_that_were_drawn_with_them():
    truth = {"a": 1.5, "b": 0.5, "c": -0.5, "d": -1.5}
    rng, rows = np.random.default_rng(5), []
    for left, right in product(truth, truth):
        for _ in range(100 if left != right else 0):
            wins = rng.random() < 1 / (1 + math.exp(truth[right] - truth[left]))
            rows.append((left, right, "left" if wins else "right"))
    found = statistics.ranking(pd.DataFrame(rows, columns=["left", "right", "better"]))
    assert found.index.tolist() == ["a", "b", "c", "d"]
    for name, strength in truth.items():
        assert found.loc[name, "strength"] == pytest.approx(strength, abs=0.3)
        assert found.loc[name, "low"] < strength < found.loc[name, "high"]
    assert found["votes"].tolist() == [600] * 4


def test_ties_count_half_and_a_winner_of_all_stays_finite():
    votes = pd.DataFrame([("a", "b", "equal")] * 4 + [("c", "a", "left"), ("b", "c", "right")], columns=["left", "right", "better"])
    found = statistics.ranking(votes)
    assert found.index[0] == "c" and found["won"].to_dict() == {"c": 1.0, "a": 0.4, "b": 0.4}
    assert found.loc["a", "strength"] == pytest.approx(found.loc["b", "strength"])
    assert np.isfinite(found.to_numpy()).all()
    assert statistics.ranking(votes.iloc[:0]).empty


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


def test_each_finding_is_a_sentence_made_from_the_numbers():
    table = table_of(noisy)
    axes = ["guidance_scale", "seed", "image"]
    head, *sentences = report.findings(table, axes).sentences
    assert head.startswith("45 clips, 5 seeds, 3 pictures.") and "corrected (Holm) for the 12 comparisons" in head
    agreement, sharpness, motion, flicker = sentences
    assert "at guidance_scale 1," in agreement and ": higher (+0.79" in agreement and "interval +0.7" in agreement
    assert "no difference seen with 5 seeds" in sharpness
    assert "lower (-2.6" in motion
    assert "The motion of these clips: 4.6" in flicker and "A clip that does not move has the best value" in flicker
    still = report.findings(table.drop(columns="metric_motion"), axes).sentences[-1]
    assert "Motion is not known" in still


def test_a_sweep_of_one_seed_says_that_differences_may_be_chance():
    head, *sentences = report.findings(table_of(noisy, seeds=1, images=("a.png",)), ["guidance_scale"]).sentences
    assert "One seed: differences may be chance" in head
    assert all("so it may be chance" in sentence for sentence in sentences[:3])
    (only_seeds,) = report.findings(table_of(noisy, scales=(9.0,), images=("a.png",)), ["seed"]).sentences
    assert "Only the seed was swept" in only_seeds


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
    assert "guidance_scale 9" in texts
    with pytest.raises(InputError, match="more or less is better"):
        report.pareto_clips(table, ["guidance_scale"], "motion")
