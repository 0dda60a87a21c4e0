"""A tune: what is decided from figures alone, what is never made, what is resumed, and what is said at the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import start
from studios import until

from i2v_lab.clip.params import ClipParams
from i2v_lab.cost import Forecaster
from i2v_lab.errors import ParamsError, SweepError
from i2v_lab.models import preset
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.opinions import Opinions
from i2v_lab.sweep.file import parse_sweep
from i2v_lab.sweep.tune import Tune, TuneResult, ballots, methods, outside, parse_tune, run_tune
from i2v_lab.sweep.tune.goal import Goal, limits
from i2v_lab.sweep.tune.outcome import finalists, rankings, spearman
from i2v_lab.sweep.tune.race import Race, differ, fronts

TINY = {"model": "fake", "image": "sample:coffee", "resolution": "64x64", "num_frames": 3, "num_inference_steps": 2}
SPACE = {"guidance_scale": [1, 4, 8, 12], "scheduler": ["ddim", "euler"]}


def tiny(**fields: Any) -> Tune:
    return Tune(
        **{"name": "tiny", "base": TINY, "space": SPACE, "goal": "sharpness", "budget": {"clips": 40}, "fidelities": [], **fields}
    )


def follow(race: Race, search: methods.Search, figure: Callable[[int, int, int], float], budget: float) -> list[int]:
    """Drive a search with known figures of (setting, level, seed); each clip costs 1."""
    spent = 0.0
    try:
        made = next(search)
        while True:
            spent += len(made.settings) * len(made.seeds)
            race.spent = spent / budget
            assert race.spent <= 1 + 1e-9
            race.add(
                made, {(one, seed): {"sharpness": figure(one, made.level, seed)} for one in made.settings for seed in made.seeds}
            )
            made = next(search)
    except StopIteration as end:
        return list(end.value)


def noisy(means: np.ndarray, spread: float, salt: int) -> Callable[[int, int, int], float]:
    return lambda setting, level, seed: float(
        means[setting] + spread * np.random.default_rng((salt, setting, level, seed)).standard_normal()
    )


def race_of(
    count: int, budget: float, *, levels: int = 1, goals: tuple[Goal, ...] = (Goal("sharpness", True),), seed: int = 0
) -> Race:
    return Race(
        [{"guidance_scale": number} for number in range(count)], goals, levels=levels, seed=seed, price=lambda *_: 1 / budget
    )


def test_halving_finds_the_best_where_one_seed_each_does_not_and_judges_it_by_fresh_seeds() -> None:
    means, right, plain = np.linspace(0, 1, 40), 0, 0
    for repeat in range(10):
        figure, race = noisy(means, 0.25, repeat), race_of(40, 160, seed=repeat)
        chosen = follow(race, methods.halving(race), figure, 160)
        before = {seed for _, _, seed in race.figures}
        chosen = _final(race, chosen, figure, 160)
        best, seeds = finalists(race, chosen)
        assert not before & set(seeds) and len(seeds) >= 3
        assert best[0].low < best[0].mean < best[0].high
        right += means[best[0].number] >= 0.9
        plain += means[int(np.argmax([figure(one, 0, 10_000) for one in range(40)]))] >= 0.9
    assert right >= 9 and plain < right


def _final(race: Race, chosen: list[int], figure: Callable[[int, int, int], float], budget: float) -> list[int]:
    search = methods.final(race, chosen)
    try:
        made = next(search)
        assert race.spent * budget + len(made.settings) * len(made.seeds) <= budget + 1e-6
        race.add(made, {(one, seed): {"sharpness": figure(one, made.level, seed)} for one in made.settings for seed in made.seeds})
        next(search)
    except StopIteration as end:
        return list(end.value)
    raise AssertionError("the final has one round")


def test_noise_ends_the_search_early() -> None:
    early, spent = 0, []
    for repeat in range(10):
        race = race_of(30, 300, seed=repeat)
        chosen = follow(race, methods.halving(race), noisy(np.zeros(30), 1.0, repeat), 300)
        early += race.noise and not chosen
        spent.append(race.spent)
    assert early >= 8
    assert max(spent) < 0.81  # the final is not made
    assert sum(one < 0.5 for one in spent) >= 4  # nor, often, the second round


def test_settings_leave_because_they_are_worse_and_one_that_failed_counts_as_the_worst() -> None:
    race = race_of(4, 100)
    figure = {0: 0.0, 1: 10.0, 2: 10.0, 3: float("nan")}
    rounds = methods.Round((0, 1, 2, 3), (0, 1, 2, 3, 4, 5), 0)
    noise = noisy(np.zeros(4), 0.3, 7)
    race.add(rounds, {(one, seed): {"sharpness": figure[one] + noise(one, 0, seed)} for one in range(4) for seed in range(6)})
    left = race.leave(range(4), 0, 4)
    assert set(left) == {1, 2} and set(race.told[-1].worse) == {0, 3}
    assert race.told[-1].p < 0.01


def test_known_answers() -> None:
    assert fronts(np.array([[1.0, 5.0], [2.0, 4.0], [0.5, 4.5], [2.0, 3.0]])) == [0, 0, 1, 1]
    assert spearman([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])[0] == pytest.approx(1)
    assert differ(np.array([[1.0, 1.1, 0.9], [5.0, 5.2, 5.1], [9.0, 9.1, 8.8]])) < 0.05
    assert differ(np.ones((3, 3))) == 1.0
    (limit,) = limits(["peak_vram_gib <= 12"])
    assert limit.broken_by(12.5) and not limit.broken_by(12) and not limit.broken_by(None)


def test_a_cheap_fidelity_that_ranks_otherwise_is_reported() -> None:
    for sign, unlike in ((1, False), (-1, True)):
        race = race_of(12, 1000, levels=2)
        for level, way in ((0, sign), (1, 1)):
            rounds = methods.Round(tuple(range(12)), (level,), level)
            race.add(rounds, {(one, level): {"sharpness": float(way * one)} for one in range(12)})
        (found,) = rankings(race)
        assert found.unlike is unlike and found.correlation == pytest.approx(sign)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"space": {}}, "space: expected at least one field"),
        ({"space": {"guidance": [1, 2]}}, "guidance_scale"),
        ({"space": {"seed": [1, 2]}}, "the search chooses seeds itself"),
        ({"space": {"guidance_scale": "1..9 continuous"}}, "method halving is for lists"),
        ({"space": {"guidance_scale": "0..9 log"}, "method": "tpe"}, "begins above 0"),
        ({"space": {"scheduler": "1..9 log"}, "method": "tpe"}, "is no number"),
        ({"goal": "beauty"}, "goal: beauty: unknown figure"),
        ({"goal": {"motion": None}}, "neither more nor less"),
        ({"goal": {"sharpness": "high"}}, "expected up or down"),
        ({"limits": ["peak_vram <= 12"]}, "limits: peak_vram: unknown figure"),
        ({"limits": ["as fast as can be"]}, "limits: expected such as"),
        ({"budget": {}}, "budget: expected clips"),
        ({"budget": {"clips": 0}}, "clips"),
        ({"fidelities": [{"guidance_scale": 1}]}, "is in space too"),
        ({"method": "magic"}, "method"),
        ({"where": "guidance_scale > 99"}, "keeps none"),
    ],
)
def test_a_wrong_file_is_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SweepError) as caught:
        tiny(**fields).settings()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_reads_back_and_fields_may_depend_on_the_model() -> None:
    tune = tiny(space={"model": ["fake", "closed-form"], "guidance_scale": {"values": [4, 8], "model": ["fake"]}})
    assert parse_tune(tune.to_yaml()) == tune
    assert tune.settings() == [
        {"model": "fake", "guidance_scale": 4},
        {"model": "fake", "guidance_scale": 8},
        {"model": "closed-form"},
    ]


def test_only_halving_makes_cheap_clips() -> None:
    for method, goal, steps in (("halving", "sharpness", [1, 2]), ("random", "sharpness", [2]), ("halving", "votes", [2])):
        tune = tiny(method=method, goal=goal, fidelities=[{"num_inference_steps": 1}])
        assert [tune.params(tune.settings()[0], level).num_inference_steps for level in range(tune.levels())] == steps


def test_limits_that_the_planner_knows_are_never_made(store: Store, settings: Settings) -> None:
    base = {**TINY, "model": "closed-form", "num_frames": 2}
    space = {"resolution": ["64x64", "96x96", "2048x2048"]}
    tune = tiny(space=space, base={name: value for name, value in base.items() if name != "resolution"}, budget={"clips": 8})
    peaks = [Forecaster(device="cpu").plan(tune.params(setting)).peak_gib for setting in tune.settings()]
    with pytest.raises(SweepError, match="none of the 3 settings can meet them") as caught:
        run_tune(tune.changed(limits=[f"peak_ram_gib <= {min(peaks) / 2:.4f}"]), store, settings=settings)
    assert "\n" not in str(caught.value) and len(store.runs()) == 0
    result = run_tune(tune.changed(limits=[f"peak_ram_gib <= {(peaks[1] + peaks[2]) / 2:.4f}"]), store, settings=settings)
    assert set(store.runs()["resolution"]) == {"64x64", "96x96"}
    assert list(result.outcome.left_out) == ["resolution 2048x2048"]


def same(one: TuneResult, other: TuneResult) -> bool:
    rounds = [[told.round for told in result.outcome.rounds] for result in (one, other)]
    return rounds[0] == rounds[1] and one.winner == other.winner


def test_the_winner_is_a_preset_that_generate_sweep_and_python_take(
    store: Store, settings: Settings, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    tune = tiny(space={"guidance_scale": [1, 8], "scheduler": ["ddim", "euler"]}, budget={"clips": 16})
    result = run_tune(tune, store, settings=settings)
    assert result.outcome.complete and result.outcome.clips <= 16
    assert len(store.runs()) == result.outcome.clips  # no clip twice
    table = result.table()
    assert (table["status"] == "done").all() and len(table) == result.outcome.clips
    for row in table.itertuples():
        assert {name: getattr(row, name) for name in SPACE} == result.outcome.settings[row.setting - 1]
    again = run_tune(tune, store, settings=settings, make=False)
    assert same(result, again) and len(store.runs()) == result.outcome.clips
    if result.winner is None:  # the fake model's settings are all alike
        assert result.outcome.noise
        (tmp_path / "winner.yaml").write_text(yaml.safe_dump({"model": "fake", "guidance_scale": 4, "resolution": "64x64"}))
    else:
        (tmp_path / "winner.yaml").write_bytes((result.folder / "winner.yaml").read_bytes())
    fields = preset("closed-form", str(tmp_path / "winner.yaml"))
    assert ClipParams(image="x", **fields).model == "fake" and "image" not in fields
    sweep = parse_sweep(f"preset: {tmp_path / 'winner.yaml'}\nbase: {{image: x}}\naxes: {{seed: [1, 2]}}")
    assert sweep.base["model"] == "fake" and sweep.base["image"] == "x"
    (tmp_path / "odd.yaml").write_text("guidence: 3")
    with pytest.raises(ParamsError, match="unknown name"):
        preset("closed-form", str(tmp_path / "odd.yaml"))
    made = inside(
        "generate", "sample:coffee", "--preset", "winner.yaml", "--num-frames", "3", "--num-inference-steps", "2", "--json"
    )
    answer = json.loads(made.stdout)
    assert made.returncode == 0 and answer["params"]["model"] == "fake"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tpe", "nsga2", "random", "grid"])
def test_other_methods_go_on_where_they_were_and_keep_to_the_budget(method: str, store: Store, settings: Settings) -> None:
    pytest.importorskip("optuna")
    space = (
        SPACE
        if method == "grid"
        else {"guidance_scale": "1..20 continuous", "num_inference_steps": "1..4 whole", "scheduler": ["ddim", "euler"]}
    )
    goal: Any = {"sharpness": "up", "seconds_total": "down"} if method == "nsga2" else "sharpness"
    base = {name: value for name, value in TINY.items() if name not in space}
    tune = tiny(method=method, space=space, goal=goal, base=base, budget={"clips": 24}, seeds=1)
    result = run_tune(tune, store, settings=settings)
    assert 10 <= len(store.runs()) == result.outcome.clips <= 24
    again = run_tune(tune, store, settings=settings)
    assert same(result, again) and len(store.runs()) == result.outcome.clips
    assert (result.folder / outside.DATABASE).is_file() is (method in ("tpe", "nsga2"))


def test_without_optuna_it_says_what_to_install(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(Exception, match=r"pip install 'i2v_lab\[tune\]'"):
        run_tune(tiny(method="tpe"), store, settings=settings)


def test_votes_decide_and_the_next_clips_follow_them(store: Store, settings: Settings) -> None:
    tune = tiny(goal="votes", space={"guidance_scale": [1, 4, 8, 12]}, budget={"clips": 40, "votes": 10})
    result, opinions, rounds = run_tune(tune, store, settings=settings), Opinions(store), set()
    for _ in range(20):
        rounds.add(len(result.outcome.rounds))
        if result.pair is None:
            break
        values = [float(store.get(id).params.guidance_scale) for id in result.pair]  # type: ignore[union-attr]
        opinions.vote(*result.pair, "left" if values[0] > values[1] else "right")
        result = run_tune(tune, store, settings=settings)
    assert result.outcome.complete and result.winner is not None and result.winner["guidance_scale"] == 12
    assert len(store.runs()) > 4 and max(rounds) > 1  # further seeds of the better ones
    assert (result.folder / "winner.yaml").is_file()


@pytest.mark.slow
def test_simulated_voters_with_wrong_clicks_lead_to_the_best_of_twelve() -> None:
    right = 0
    for repeat in range(20):
        luck, most, cast = np.random.default_rng(repeat), 60, list[ballots.Ballot]()
        taste = luck.permutation(12)
        while True:
            race = Race([{"guidance_scale": number} for number in range(12)], (), seed=repeat, price=lambda *_: 0.0)
            search = ballots.search(race, most, lambda cast=cast: cast)
            chosen: list[int] = []
            try:
                made = next(search)
                while True:
                    race.add(made, {(one, seed): {} for one in made.settings for seed in made.seeds})
                    made = next(search)
            except StopIteration as end:
                chosen = end.value
            if race.pair is None:
                break
            left, better = race.pair[0], taste[race.pair[0]] > taste[race.pair[1]]
            cast.append(ballots.Ballot(left, race.pair[1], "left" if better != (luck.random() < 0.2) else "right"))
        assert len(cast) <= most
        right += taste[chosen[0]] == 11
    assert right >= 18


@pytest.mark.slow
def test_killed_at_random_instants_it_makes_no_clip_twice_and_decides_the_same(tmp_path: Path, settings: Settings) -> None:
    tune = tiny(base={**TINY, "model": "closed-form", "prompt": "zoom in"}, goal="temporal_flickering", budget={"clips": 30},
                space={"guidance_scale": [1, 4, 12], "scheduler": ["ddim", "euler"]})  # fmt: skip
    whole = run_tune(tune, Store(tmp_path / "whole"), settings=settings)
    (tmp_path / "tune.yaml").write_text(tune.to_yaml())
    store, luck, killed = Store(tmp_path / "killed"), np.random.default_rng(0), 0
    for _ in range(40):
        before = len(store.runs())
        process = start("tune", tmp_path / "tune.yaml", "--no-report", "--json", "--output-dir", tmp_path / "killed", cwd=tmp_path)
        goal = before + int(luck.integers(1, 8))
        until(lambda p=process, g=goal: p.poll() is not None or len(store.runs()) >= g, 120)
        ended = process.poll() is not None
        if not ended:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate(timeout=60)
        if ended:
            break
    again = run_tune(tune, store, settings=settings)
    done = store.runs(status="done")
    assert killed >= 3 and same(whole, again)
    assert done["key"].is_unique and len(done) == len(Store(tmp_path / "whole").runs(status="done"))
