"""Findings of a sweep: known answers, simulations with loose bounds, and the sentences that are made of them."""

from __future__ import annotations

import math
from itertools import groupby, product

import numpy as np
import pandas as pd
import pytest
from experiment import load_experiment
from scipy import stats
from tables import noisy, table_of

from i2v_lab import report, statistics
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import SweepError
from i2v_lab.metrics import METRICS
from i2v_lab.metrics.visible import VISIBLE
from i2v_lab.statistics import timing
from i2v_lab.statistics.power import least_found, outlook_line
from i2v_lab.statistics.shuffles import contrasts
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, plan_sweep
from i2v_lab.sweep.file import with_seeds
from i2v_lab.sweep.sweep_plan import turns

check = load_experiment("check_statistics")
AXES = ["guidance_scale", "seed", "image"]


def effect_of(table, metric: str = "motion", axes=("guidance_scale", "seed"), **more) -> statistics.Effect:
    found = statistics.design(table, axes, [metric])
    return next(effect for effect in statistics.effects(found, **more) if len(effect.axes) == 1)


# The test


def test_two_settings_are_tested_by_all_flips_of_the_seeds_signs():
    rng = np.random.default_rng(1)
    table = table_of(lambda scale, seed, _: {"motion": 0.2 * scale + rng.normal()}, seeds=8, images=("a",), scales=(1.0, 9.0))
    wide = table.pivot_table(index="seed", columns="guidance_scale", values="metric_motion")
    apart = (wide[9.0] - wide[1.0]).to_numpy()
    flips = np.array(list(product((1, -1), repeat=8))) * apart
    found = effect_of(table)
    assert found.p == pytest.approx((np.abs(flips.sum(1)) >= abs(apart.sum()) - 1e-9).mean())
    assert (found.change, found.low, found.high) == pytest.approx(
        (apart.mean(), *stats.t.interval(0.95, 7, apart.mean(), stats.sem(apart)))
    )
    assert found.pairs[0].change == pytest.approx(apart.mean()) and found.spread == pytest.approx(apart.std(ddof=1))


def test_the_contrasts_are_the_orthogonal_polynomials_of_the_textbook():
    assert contrasts(3) * np.sqrt([2, 6]) == pytest.approx(np.array([[-1, 1], [0, -2], [1, 1]]))
    assert contrasts(5)[:, 0] * math.sqrt(10) == pytest.approx([-2, -1, 0, 1, 2])


def test_no_p_is_zero_and_a_sure_effect_has_its_size():
    found = effect_of(table_of(noisy, images=("a.png",)))
    assert 0 < found.p <= 0.05 and found.shape == "trend"
    assert found.low < found.change < found.high < 0 and found.change == pytest.approx(-8 / 3, abs=0.1)
    bend = effect_of(table_of(lambda scale, seed, image: {"motion": abs(scale - 5) + noisy(scale, seed, image)["motion"] / 100}))
    assert bend.shape == "bend" and bend.change == pytest.approx(-4, abs=0.1)


def test_pictures_make_blocks_unless_they_are_all_that_was_swept():
    table = table_of(noisy)
    found = statistics.design(table, AXES, ["motion"])
    assert [axis.name for axis in found.axes] == ["guidance_scale"] and found.y.shape == (3, 15, 1)
    assert (found.seeds, found.pictures) == (5, 3)
    alone = statistics.design(table[table["guidance_scale"] == 9], ["seed", "image"], ["motion"])
    assert [axis.name for axis in alone.axes] == ["image"] and alone.y.shape == (3, 5, 1)


def test_axes_that_change_together_are_one():
    table = table_of(noisy).assign(num_inference_steps=lambda t: (t["guidance_scale"] * 10).astype(int))
    (axis,) = statistics.design(table, ["guidance_scale", "num_inference_steps", "seed"], ["motion"]).axes
    assert axis.along == ("num_inference_steps",)
    text = str(report.findings(table, ["guidance_scale", "num_inference_steps", "seed", "image"]))
    assert "with guidance_scale (and num_inference_steps, which change with it)" in text


def test_two_axes_that_cross_are_found_where_neither_does_anything_alone():
    rng, rows = np.random.default_rng(2), []
    for scale, steps, seed in product((1.0, 5.0, 9.0), (10, 20, 30), range(4)):
        value = 0.8 + 0.1 * (scale - 5) / 4 * (steps - 20) / 10 + 0.01 * rng.normal()
        rows.append(
            {"status": "done", "guidance_scale": scale, "num_inference_steps": steps, "seed": seed, "metric_drift_ssim": value}
        )
    table = pd.DataFrame(rows)
    axes = ["guidance_scale", "num_inference_steps", "seed"]
    first, *others = statistics.effects(statistics.design(table, axes, ["drift_ssim"]))
    assert first.axes == ("guidance_scale", "num_inference_steps") and first.claimed and not any(one.claimed for one in others)
    assert first.change == pytest.approx(0.4, abs=0.04) and first.low < 0.4 < first.high
    (sentence,) = [text for text in report.findings(table, axes).sentences if "depends on" in text]
    assert "from 1 to 9 it changes by -0." in sentence and " and by +0." in sentence and "the difference is +0.396 (" in sentence


def test_levels_with_few_clips_are_left_out_and_a_metric_with_gaps_of_its_own_is_still_tested():
    table = table_of(noisy, seeds=6, images=("a.png",))
    table.loc[table["guidance_scale"].eq(9) & table["seed"].gt(1), "status"] = "failed"
    table.loc[table["seed"].eq(0), "metric_motion"] = math.nan
    found = effect_of(table)
    assert found.values == ((1.0, 5.0),) and found.change == pytest.approx(-4 / 3, abs=0.1)
    text = str(report.findings(table, ["guidance_scale", "seed"]))
    assert "4 of 18 clips were not made" in text and "Left out, with clips of fewer than half the seeds: guidance_scale 9." in text


def test_a_metric_that_was_asked_about_has_most_of_the_weight():
    rng = np.random.default_rng(3)
    names = [f"m{n}" for n in range(9)]

    def value(scale: float, seed: int, image: str) -> dict[str, float]:
        return {name: rng.normal() + 0.22 * scale * (name == "m0") for name in names}

    found = statistics.design(table_of(value, images=("a",), seeds=4), ["guidance_scale", "seed"], names)
    own = [next(one.p for one in statistics.effects(found, asked) if one.metric == "metric_m0") for asked in ((), ("metric_m0",))]
    assert own[1] < own[0] / 1.5


# Simulations with the product's functions; experiments/check_statistics.py has the long ones


@pytest.mark.parametrize(("kind", "shape"), [("normal", (5,)), ("skewed", (5,)), ("rounded", (3, 3)), ("missing clips", (5,))])
def test_reports_of_pure_luck_seldom_claim_anything(kind, shape):
    assert check.false_claims(kind, shape, 3, 120) <= 0.125  # 6 % is 7 of them, and 15 has a chance of 0.5 %


def test_a_change_of_four_deviations_is_found_with_three_seeds_and_its_interval_holds_it():
    rng, found, held = np.random.default_rng(4), 0, 0
    for _ in range(40):
        y = check.noise(rng, (5,), 3)
        y[..., 0] += 4 * math.sqrt(2) * np.linspace(0, 1, 5)[:, None]
        effect = next(one for one in statistics.effects(check.design_of(y), draws=400) if one.metric == "m0")
        found += effect.claimed
        held += not effect.claimed or effect.low <= 4 * math.sqrt(2) <= effect.high
        assert not effect.claimed or effect.low >= 0  # test and interval agree
    assert found >= 30 and held >= 36


@pytest.mark.parametrize("kind", ["normal", "skewed", "bounded"])
def test_intervals_of_means_hold_the_mean(kind):
    assert check.coverage(kind, 3, 200) >= 0.93


# What a sweep can show


def test_what_a_sweep_can_show_is_said_before_it_runs(tmp_path):
    assert least_found(5, 3) == 3.4 and least_found(2, 5) == math.inf and least_found(5, 40) == least_found(5, 10) / 2
    assert outlook_line([("fps", 2)], 3) == "fps, 2 settings, 3 seeds: can show nothing; 6 seeds can"
    sweep = Sweep(base={"image": "sample:coffee"}, axes={"guidance_scale": [1, 3, 6, 9, 12]}, seeds=[0, 1, 2], metric="motion")
    plan = plan_sweep(sweep.with_defaults("fake"), Store(tmp_path))
    line = outlook_line(*plan.settings(), sweep.metric)
    assert line == "guidance_scale, 5 settings, 3 seeds: changes above 2.2 standard deviations; 6 seeds: 1.5 (of motion)"
    own = [cell.params.seed for cell in with_seeds(sweep, 5).cells() if cell.params.guidance_scale == 1]
    assert own == [0, 1, 2, 3, 4] and with_seeds(sweep, 2).cells()[-1].params.seed == 1
    with pytest.raises(SweepError, match="at least 1, got 0"):
        with_seeds(sweep, 0)
    with pytest.raises(SweepError, match="got 'motoin'; did you mean motion"):
        Sweep(metric="motoin")


def test_every_metric_has_a_size_from_which_it_is_seen():
    assert set(VISIBLE) == set(METRICS)


# The sentences


def test_each_finding_is_a_sentence_made_from_the_numbers():
    found = report.findings(table_of(noisy), AXES)
    head = found.details[-1].en
    assert head.startswith("45 clips, 5 seeds, 3 pictures.") and "with other seeds, for these 3 pictures together" in head
    agreement, motion, flicker = (one.en for one in found.found)
    unseen = found.details[0].en
    assert found.sentences[:3] == (agreement, motion, flicker)  # what is more than luck comes first
    assert "rises with guidance_scale: 0.097 at 1, 0.491 at 5, 0.893 at 9" in agreement and "(p < 0.001)" in agreement
    assert "changes by +0.796 (+0.786 to +0.807)" in agreement and "each setting can be told from each" in agreement
    assert motion.startswith("Motion falls") and "Large enough to see (from 0.1 % of the width/s on)" in motion
    assert "A clip that does not move has the best value" in flicker
    assert unseen.startswith("No change seen along guidance_scale in sharpness (") and "in 8 of 10 such sweeps" in unseen
    assert [one.en for one in found.unseen] == ["No change seen along guidance_scale in sharpness."]
    assert "p = 0" not in report.findings(table_of(noisy), AXES)._repr_html_().replace("p = 0.", "")


def test_the_metric_that_was_asked_about_comes_first_and_others_are_exploratory():
    table = table_of(noisy, images=("a.png",))
    found = report.findings(table, AXES[:2], metric="motion")
    first, *others = (one.en for one in found.found)
    assert "asks about motion" in found.details[-1].en and first.startswith("Motion") and "exploratory" not in first
    assert sum("(exploratory)" in sentence for sentence in others) == 2
    assert "subject consistency, CLIP (proxy), which was not measured" in str(
        report.findings(table, AXES[:2], metric="subject_consistency")
    )


def test_few_seeds_say_what_they_cannot_show():
    found = report.findings(table_of(noisy, seeds=1, images=("a.png",)), ["guidance_scale"])
    (head,) = found.found
    assert "One seed: differences may be chance" in head.en and all("so it may be chance" in one.en for one in found.details)
    found = report.findings(table_of(noisy, seeds=3, images=("a.png",), scales=(1.0, 9.0)), AXES[:2])
    assert [one.en for one in found.notes] == [
        "2 values of guidance_scale and 3 seeds can show nothing; 6 seeds can."
    ]  # not folded
    (only_seeds,) = report.findings(table_of(noisy, scales=(9.0,), images=("a.png",)), ["seed"]).sentences
    assert "Only the seed was swept" in only_seeds


def test_where_seeds_change_nothing_there_is_nothing_to_test():
    text = str(
        report.findings(table_of(lambda scale, *_: {"motion": scale, "black_frames": 0.0}), AXES, ["motion", "black_frames"])
    )
    assert "Every seed gave the same clip" in text and "+8 % of the width/s: the same for every seed tried." in text
    assert "Black frames along guidance_scale: equal, 0." in text
    some = table_of(lambda scale, seed, _: {"motion": scale * (seed != 4)})  # repeats by chance are draws of their own
    assert "Every seed" not in str(report.findings(some, AXES))


def test_a_sure_difference_that_nobody_can_see_is_no_finding():
    def tiny(scale: float, seed: int, image: str) -> dict[str, float]:
        return {"smoothness": 0.9 + 1.6e-6 * scale + 1e-7 * noisy(scale, seed, image)["motion"]}

    found = report.findings(table_of(tiny), AXES)
    assert [one.en for one in found.found] == ["Nothing large enough to see was found that would surely hold with other seeds."]
    assert found.details[0].en.startswith("Sure, but too small to see: motion smoothness (proxy) along guidance_scale (at most 1.")


def test_a_finding_carries_its_doubt_where_the_spread_grows():
    rng = np.random.default_rng(5)
    names = ["motion", "sharpness", "drift_ssim", "smoothness", "input_ssim"]

    def value(scale: float, seed: int, image: str) -> dict[str, float]:
        spread = 0.25 if scale == 9 else 0.01
        return {name: 0.04 * scale * (name == "motion") + spread * rng.normal() for name in names}

    table = table_of(value, images=("a",), seeds=8)
    (sentence,) = [text for text in report.findings(table, AXES[:2], metric="motion").sentences if text.startswith("Motion r")]
    assert "Less sure than the rest: seeds spread" in sentence and "12 % claim something wrong" in sentence


def test_what_depends_on_an_axis_is_not_compared_over_it():
    table = table_of(noisy, images=("a.png",))
    found = statistics.design(table, AXES[:2], ["motion", "sharpness"])
    tested = statistics.effects(found, skip={"metric_motion": ["guidance_scale"]})
    assert [effect.metric for effect in tested] == ["metric_sharpness"]


def test_a_run_without_params_is_left_out(tmp_path):
    store = Store(tmp_path)
    store.save(RunRecord(id="bad row", status="failed"))
    for seed, motion in product((0, 1), (1.0, 2.0)):
        params = ClipParams(image="sample:coffee", seed=seed, guidance_scale=motion)
        store.save(RunRecord(id=f"{seed} {motion}", status="done", params=params, metrics={"motion": motion + seed}))
    found = statistics.design(store.runs(), ["guidance_scale", "seed"], ["motion"])
    assert found.y[..., 0].tolist() == [[1.0, 2.0], [2.0, 3.0]] or found.y.shape == (2, 3, 1)
    assert statistics.by_value(store.runs(), "seed", ["motion"])["value"].tolist() == [0, 1]


def test_black_clips_are_counted_and_in_no_ranking():
    table = table_of(noisy, images=("a.png",)).assign(metric_black_frames=0.0)
    table.loc[[0, 7], "metric_black_frames"] = 1.0
    table.loc[[0, 7], ["metric_prompt_agreement", "metric_motion", "metric_sharpness", "metric_temporal_flickering"]] = math.nan
    assert "No clips at all, so in no ranking: 2 black of 15." in report.findings(table, AXES[:2]).sentences
    found = statistics.settings(table, AXES[:2], "prompt_agreement")
    assert found["missing"].tolist() == [1, 1, 0] and found["clips"].tolist() == [4, 4, 5]


# Costs


def timed(sweep: Sweep, seconds, *, extra=0.0) -> pd.DataFrame:
    """A table of a sweep whose cells ran in their turn; `seconds(params, share of the run)` is the time of a clip."""
    turn = turns(sweep)
    order = sorted(sweep.cells(), key=lambda cell: turn[cell.number])
    rows = []
    for place, cell in enumerate(order):
        took = seconds(cell.params, place / len(order)) + extra * (place == 0)
        rows.append({**cell.params.plain(), "status": "done", "created": pd.Timestamp(place, unit="s", tz="UTC"), "pid": 1, "seconds_load": 0.0,
                     "seconds_total": took, "peak_vram_allocated_gib": math.nan, "peak_ram_gib": 1 + 0.01 * (cell.params.seed % 2)})  # fmt: skip
    return pd.DataFrame(rows)


STEPS = Sweep(base={"image": "sample:coffee"}, axes={"num_inference_steps": [10, 20, 30]}, seeds=list(range(6)))


def test_a_drift_of_the_machine_is_named_and_does_not_move_the_effect_of_steps():
    rng = np.random.default_rng(6)

    def busy(params, share: float) -> float:  # another process takes a third of the machine in the second half
        return params.num_inference_steps / 10 * (1.5 if share >= 0.5 else 1.0) * (1 + 0.01 * rng.normal())

    for shuffle in range(5):
        table = timed(Sweep(**{**dict(STEPS), "shuffle": shuffle}), busy)
        costs = report.cost_findings(table, STEPS.axis_names)
        assert costs.details[-1].en.startswith("Costs of ")
        assert costs.found[0].en.startswith("Time per clip rises with num_inference_steps")
        assert "The machine's speed drifted: at the end a clip took" in costs.notes[-1].en
        found = statistics.design(table.assign(t=statistics.clip_seconds(table)), STEPS.axis_names, ["t"])
        (effect,) = statistics.effects(found)
        assert effect.low <= 2 * 1.25 <= effect.high  # from 10 to 30 steps, at the mean speed


def test_a_machine_that_does_not_drift_is_not_accused_and_the_first_clip_does_not_count():
    rng, accused = np.random.default_rng(7), 0
    for _ in range(20):
        table = timed(STEPS, lambda params, _: params.num_inference_steps * (1 + 0.05 * rng.normal()), extra=60.0)
        accused += timing.drift(timing.warm(table, STEPS.axis_names), STEPS.axis_names).seen
    assert accused <= 4
    (first,) = set(table.index) - set(timing.warm(table, STEPS.axis_names).index)
    assert table.loc[first, "seconds_total"] > 60


def test_every_value_is_spread_over_the_sweep_and_loads_are_visited_in_mirrored_order():
    sweep = Sweep(
        base={"image": "sample:coffee"},
        axes={"dtype": ["float32", "float16"], "num_inference_steps": [10, 20, 30]},
        seeds=[0, 1, 2, 3],
    )
    turn = turns(sweep)
    order = sorted(sweep.cells(), key=lambda cell: turn[cell.number])
    visits = [kind for kind, _ in groupby(cell.params.dtype for cell in order)]
    assert visits == ["float32", "float16", "float32"]
    assert [seed for seed, _ in groupby(cell.params.seed for cell in order)] == [0, 1, 0, 1, 2, 3, 2, 3]
    assert len({tuple(cell.params.num_inference_steps for cell in order[start : start + 3]) for start in range(0, 24, 3)}) > 2
    assert turns(sweep) == turn != turns(Sweep(**{**dict(sweep), "shuffle": 1}))
    written = Sweep(**{**dict(sweep), "order": ("num_inference_steps", "dtype", "seed")})
    assert list(turns(written).values()) == list(range(1, 25))
    both = timed(sweep, lambda params, share: 1.0)
    assert not timing.visited_apart(both, "dtype")
    once = timed(Sweep(**{**dict(sweep), "order": ("dtype", "seed", "num_inference_steps")}), lambda params, share: 1.0 + share)
    assert timing.visited_apart(once, "dtype")
    assert "cannot be told from a drift" in str(report.cost_findings(once, sweep.axis_names))


def test_pictures_with_one_seed_are_blocks_and_the_scope_says_so():
    table = table_of(noisy, seeds=1, images=tuple(f"{letter}.png" for letter in "abcdef"))
    found = report.findings(table, AXES)
    head = found.details[-1].en
    assert "would hold with other pictures like these, for this seed" in head and "within pictures." in head
    assert "rises with guidance_scale" in found.found[0].en


# Models


def models_table(**fields):
    """Clips of two models, five seeds each, with fields that differ: {field: its value in each of the two}."""
    parts = [
        table_of(lambda scale, seed, _, bonus=bonus: {"motion": seed + bonus, "sharpness": 9.0 * bonus + seed}, images=("a",), scales=(5.0,),
                 model=model, model_name=model, **{name: values[place] for name, values in fields.items()})
        for place, (model, bonus) in enumerate((("wan2.2-ti2v-5b", 0), ("ltx-video", 9)))
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_a_report_says_what_differs_besides_the_model_and_tests_only_what_can_be_compared():
    table = models_table(
        resolution=["704x1280", "512p"], num_frames=[73, 75], fps=[24.0, 25.0], num_inference_steps=[50, 50], condition_fps=[16, 25],
        negative_prompt=["ugly", "blurred"], prompt=["a", ""], flow_shift=[5.0, math.nan], actual_tier=[0.0, 3.0], seconds=[3.0, None],
    )  # fmt: skip
    found = report.findings(table, ["model", "seed"])
    rest = [one.en for one in found.details]
    assert rest[-1].startswith("10 clips, 5 seeds")
    assert found.notes[-1].en == (
        "Besides the model (wan2.2-ti2v-5b / ltx-video): size 704x1280 / 512x512, frames 73 / 75, fps 24 / 25, tier 0 / 3, "
        "prompt own / –, negative prompt own / own. –: the model does not read it."
    )
    assert any("Not comparable over model, so not tested: sharpness" in line for line in rest)
    same = models_table(resolution=["64x64", "64x64"])
    found = report.findings(same, ["model", "seed"])
    rest = [one.en for one in found.details]
    assert found.notes[-1].en == "Besides the model (wan2.2-ti2v-5b / ltx-video): nothing differs."
    assert not any("Not comparable" in line for line in rest)
    assert not any("Besides" in line for line in report.findings(same, ["guidance_scale", "seed"]).sentences)
