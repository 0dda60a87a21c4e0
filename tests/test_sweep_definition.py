"""What a sweep file may say: values, axes, conditions, options; and the sweeps that are shipped."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from sweeps import TINY, tiny

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import (
    Sweep,
    load_sweep,
    parse_sweep,
    plan_sweep,
    with_options,
)
from i2v_lab.sweep.axes import numbers
from i2v_lab.sweep.condition import condition
from i2v_lab.sweep.sweep_plan import params_json

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("text", "expected"), [
    ("0..1 step 0.4", [0, 0.4, 0.8]),
    ("6..16 step 2", [6, 8, 10, 12, 14, 16]),
    ("1..10 count 4", [1, 4, 7, 10]),
    ("0..1 count 3", [0, 0.5, 1]),
    ("0..0.3 step 0.1", [0, 0.1, 0.2, 0.3]),
    ("3..1 step -1", [3, 2, 1]),
    ("10..1 count 4", [10, 7, 4, 1]),
    ("5..5 step 1", [5]),
    ("-1..2", [-1, 0, 1, 2]),
    (" 1 .. 2  step .5 ", [1, 1.5, 2]),
    ("0..1e2 step 5e1", [0, 50, 100]),
])  # fmt: skip
def test_a_range_is_exact_and_never_overshoots(text: str, expected: list[float]) -> None:
    found = numbers(text, "guidance_scale")
    assert found == expected
    assert [type(value) for value in found] == [int if value == int(value) else float for value in expected]


@pytest.mark.parametrize(("text", "why"), [
    ("0.5..2", "expected a range such as"),
    ("6..1", "a step of 1 from 6 never reaches 1"),
    ("6..16 step 0", "an empty range"),
    ("6..16 step -2", "expected a step above 0"),
    ("16..6 step 2", "expected a step below 0"),
    ("1..10 count 1", "whole count of at least 2"),
    ("1..10 count 2.5", "whole count of at least 2"),
    ("3..3 count 4", "are all the same"),
    ("0..1 step 1e-9", "at most 10000"),
    ("a..b step 1", "expected a range such as"),
])  # fmt: skip
def test_a_range_that_makes_no_sense_is_told(text: str, why: str) -> None:
    with pytest.raises(SweepError, match=why) as caught:
        numbers(text, "seed")
    assert str(caught.value).startswith("seed: ")
    assert "\n" not in str(caught.value)


def test_cells_are_every_combination_costly_axes_outermost() -> None:
    sweep = tiny(axes={"guidance_scale": [6, 9], "resolution": "64x64, 96x64"}, seeds=[1, 2])
    assert sweep.axis_names == ["resolution", "guidance_scale", "seed"]
    cells = sweep.cells()
    assert [cell.number for cell in cells] == list(range(1, 9))
    assert [cell.label for cell in cells[:3]] == [
        "resolution 64x64, guidance_scale 6, seed 1",
        "resolution 64x64, guidance_scale 6, seed 2",
        "resolution 64x64, guidance_scale 9, seed 1",
    ]
    ordered = sweep.changed().model_copy(update={"order": ("seed", "resolution", "guidance_scale")})
    assert Sweep(**{name: getattr(ordered, name) for name in Sweep.model_fields}).axis_names == [
        "seed",
        "resolution",
        "guidance_scale",
    ]


def test_axes_in_a_zip_move_together() -> None:
    sweep = tiny(axes={"num_inference_steps": [1, 2], "resolution": ["64x64", "96x64"], "seed": [5, 6]},
                 zip=[["resolution", "num_inference_steps"]])  # fmt: skip
    found = [(cell.params.resolution, cell.params.num_inference_steps, cell.params.seed) for cell in sweep.cells()]
    assert found == [("64x64", 1, 5), ("64x64", 1, 6), ("96x64", 2, 5), ("96x64", 2, 6)]


def test_a_word_of_the_prompt_is_replaced_and_comes_first_itself() -> None:
    sweep = tiny(base={**TINY, "prompt": "a man walking, walking fast"}, axes={"prompt": "walking -> [running, 'jumping, up']"})
    assert [cell.params.prompt for cell in sweep.cells()] == [
        "a man walking, walking fast", "a man running, running fast", "a man jumping, up, jumping, up fast",
    ]  # fmt: skip
    assert [cell.labels["prompt"] for cell in sweep.cells()] == ["walking", "running", "jumping, up"]
    listed = tiny(base={**TINY, "prompt": "walking"}, axes={"prompt": "walking -> running, walking"})
    assert [cell.params.prompt for cell in listed.cells()] == ["running", "walking"]


def test_where_keeps_the_cells_that_meet_it() -> None:
    sweep = tiny(axes={"seed": "1..6 step 1", "resolution": ["64x64", "128x64"]}, where="seed % 2 == 0 and height * width <= 64*64")
    assert [(cell.params.seed, cell.number) for cell in sweep.cells()] == [(2, 1), (4, 2), (6, 3)]
    assert len(tiny(axes={"prompt": "[a cat, a dog]"}, where="'cat' in prompt").cells()) == 1


@pytest.mark.parametrize(("where", "kept"), [
    ("height * width * num_frames // 2 - 1 < fps % 7 * 1e6", True),
    ("-guidance_scale < +num_inference_steps / 3", True),
    ("1 < seed <= 3 and seed not in (1, 2) and not seed == 4", True),
    ("seed in [1, 2] or 'dog' in prompt", False),
    ("(seed and 2) == 2 and -(seed % 2) * 2 == -2", True),
    ("prompt == 'a cat' or seed // 0 == 1", True),  # never computed
])  # fmt: skip
def test_conditions_are_evaluated_as_in_python(where: str, kept: bool) -> None:
    params = ClipParams(**{**TINY, "prompt": "a cat", "seed": 3, "fps": "24000/1001"})
    assert condition(where)(params) is kept


@pytest.mark.parametrize(("where", "why"), [
    ("prompt * 50000000", "expected numbers beside *, got prompt in 'prompt * 50000000'"),
    ("prompt % seed == ''", "expected numbers beside %, got prompt"),
    ("'%0999999999d' % seed == ''", "expected numbers beside %, got '%0999999999d'"),
    ("[0] * 999999999 == 1", "expected numbers beside *, got [0]"),
    ("(seed or prompt) * 999999999 == 1", "expected numbers beside *, got seed or prompt"),
    ("seed + True == 1", "expected numbers beside +, got True"),
    ("-prompt == 1", "expected numbers beside -, got prompt"),
    ("seed // 0 == 1", "division"),
    ("9" * 400 + " / 7.5 > seed", "too large"),
    ("-" * 990 + "1 > 0", "is nested too deeply"),
    ("2 ** 999999999 > 1", "Pow is not allowed"),
    ("seed << 999999999 > 1", "LShift is not allowed"),
    ("f'{seed:999999999}' == ''", "JoinedStr is not allowed"),
    ("seed == 1j", "expected numbers and texts, got 1j"),
    ("b'a' == prompt", "expected numbers and texts, got b'a'"),
    ("(" * 490 + "1" + ")" * 490, "too many nested parentheses"),
    ("seed > " + "1" * 1000, "expected at most 1000 characters, got 1007"),
])  # fmt: skip
def test_a_condition_computes_with_numbers_alone_and_never_for_long(where: str, why: str) -> None:
    params = ClipParams(**{**TINY, "prompt": "a cat", "seed": 3})
    began = time.perf_counter()
    with pytest.raises(SweepError) as caught:
        condition(where)(params)
    assert time.perf_counter() - began < 1
    assert why in str(caught.value) and str(caught.value).startswith("where: ")
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_a_file_python_and_the_command_line_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "guide.yaml").write_text(
        "base: {model: fake, image: 'sample:coffee', prompt: 'a, b'}\n"
        "axes:\n  guidance_scale: 6..14 step 2\n  num_inference_steps: [20, 50]\nseeds:\n"
    )
    file = load_sweep(tmp_path / "guide.yaml")
    code = Sweep(name="guide", base={"model": "fake", "image": "sample:coffee", "prompt": "a, b"},
                 axes={"guidance_scale": [6, 8, 10, 12, 14], "num_inference_steps": [20, 50]})  # fmt: skip
    line = with_options(Sweep(name="guide"), ["guidance-scale=6..14 step 2", "num_inference_steps=20,50"],
                        ["prompt=a, b", "model=fake", "image=sample:coffee"])  # fmt: skip
    assert file.definition() == code.definition() == line.definition()
    assert parse_sweep(file.to_yaml()).definition() == file.definition()
    assert with_options(file, ["seed=1,2"]).definition() != file.definition()


GRID = """
base: {image: "sample:coffee", prompt: a boat sails by, seconds: 3, resolution: auto}
axes: {model: [wan2.2-ti2v-5b, ltx-video, svd-xt], seed: [1, 2]}
per:
  model:
    ltx-video: {num_inference_steps: 30, num_frames: 97}
    svd-xt: {prompt: null, seconds: null}
  seed:
    2: {guidance_scale: 4}
"""


def test_a_value_of_an_axis_sets_fields_of_its_own() -> None:
    sweep = parse_sweep(GRID)
    found = {(cell.params.model, cell.params.seed): cell.params.given() for cell in sweep.cells()}
    wan, ltx, svd = (found[model, 1] for model in ("wan2.2-ti2v-5b", "ltx-video", "svd-xt"))
    assert wan["seconds"] == 3 and "num_inference_steps" not in wan
    assert (ltx["num_inference_steps"], ltx["num_frames"]) == (30, 97) and "seconds" not in ltx
    assert not {"prompt", "seconds", "num_frames"} & svd.keys()
    assert {given.get("guidance_scale") for (_, seed), given in found.items() if seed == 2} == {4}
    assert parse_sweep(sweep.to_yaml()).definition() == sweep.definition()
    assert parse_sweep(GRID.replace("30", "31")).definition() != sweep.definition()


def test_options_keep_of_per_what_still_fits() -> None:
    sweep = parse_sweep(GRID)
    alone = with_options(sweep, base=["model=ltx-video"])
    assert [cell.params for cell in alone.cells()] == [cell.params for cell in sweep.cells() if cell.params.model == "ltx-video"]
    assert list(alone.per) == ["seed"]
    assert with_options(sweep, ["model=svd-xt,closed-form"]).per["model"] == {"svd-xt": {"prompt": None, "seconds": None}}
    steps = with_options(sweep, ["num_inference_steps=10,20"], ["guidance_scale=2", "seconds=2"])
    assert steps.per == {"model": {"ltx-video": {"num_frames": 97}, "svd-xt": {"prompt": None}}}
    assert {cell.params.seconds for cell in steps.cells() if cell.params.model == "wan2.2-ti2v-5b"} == {2}


def test_a_seed_is_drawn_once_and_not_where_seeds_are_listed() -> None:
    drawn = tiny(base={**TINY, "seed": -1}, axes={"guidance_scale": [1, 9]}).with_defaults("fake")
    assert len({cell.params.seed for cell in drawn.cells()} - {-1}) == 1
    listed = tiny(base={**TINY, "seed": -1}, axes={"seed": [4, 5]}).with_defaults("fake")
    assert [cell.params.seed for cell in listed.cells()] == [4, 5]


def test_options_change_a_file_without_unravelling_it() -> None:
    sweep = tiny(axes={"resolution": ["64x64", "96x64"], "num_frames": [2, 3], "seed": [1, 2]}, zip=[["resolution", "num_frames"]],
                 order=["seed", "resolution"])  # fmt: skip
    fixed = with_options(sweep, base=["resolution=128x64"])
    assert [cell.label for cell in fixed.cells()[:2]] == ["seed 1, num_frames 2", "seed 1, num_frames 3"]
    assert {cell.params.resolution for cell in fixed.cells()} == {"128x64"}
    more = with_options(sweep, ["guidance-scale=6,9"])
    assert more.axis_names == ["seed", "resolution", "num_frames", "guidance_scale"]
    assert len(more.cells()) == 8
    assert with_options(tiny(seeds=[1, 2]), ["seed=7"]).cells()[0].params.seed == 7


FAULTS = {
    "axes: {guidence_scale: [1]}": "axes: guidence_scale: unknown axis; did you mean guidance_scale?",
    "base: {promt: a}": "base: promt: unknown name; did you mean prompt?",
    "axis: {seed: [1]}": "axis: unknown name; did you mean axes?",
    "axes: {seed: 5..1 step 1}": "seed: an empty range",
    "axes: {seed: []}": "seed: expected at least one value",
    "axes: {seed: '1,,2'}": "seed: expected values between the commas",
    "axes: {seed: [[1, 2]]}": "seed: expected values such as",
    "axes: {seed: 1..5 step 1}\nwhere: seed > 9": "where: 'seed > 9' keeps none of the 5 cells",
    "axes: {seed: [1]}\nwhere: sed > 9": "where: sed: unknown name; did you mean seed?",
    "axes: {seed: [1]}\nwhere: __import__('os').abort()": "where: expected comparisons of params",
    "axes: {seed: [1]}\nwhere: seed.real > 0": "where: expected comparisons of params",
    "axes: {seed: [1]}\nwhere: seed & 1": "write `and` for &",
    "axes: {seed: [1]}\nwhere: seed = 1": "write == to compare",
    "axes: {seed: [1]}\nwhere: seed > 'a'": "cannot be computed",
    "axes: {seed: [1]}\nseeds: [2]": "seeds: the axis seed is in axes too",
    "axes:\n  seed: [1]\n  fps: [8]\n  seed: [2]": "in line 5, column 3: seed: is given twice",
    "name: a\nname: b": "in line 2, column 1: name: is given twice",
    "axes: {seed: [0, -1]}": "seed: expected numbers from 0 on, got -1",
    "axes: {seconds: [2, 3]}": "seconds: expected num_frames as an axis",
    "axes: {seed: [1]}\nper: {model: {fake: {fps: 9}}}": "per: model: expected an axis of this sweep; known: seed",
    "axes: {seed: [1]}\nper: {seed: {2: {fps: 9}}}": "per: seed: 2: expected a value of this axis; known: 1",
    "axes: {seed: [1]}\nper: {seed: {1: {fsp: 9}}}": "per: fsp: unknown name; did you mean fps?",
    "axes: {seed: [1], fps: [8]}\nper: {seed: {1: {fps: 9}}}": "per: fps: is an axis too",
    "axes: {seed: [1], dtype: [auto]}\nper: {seed: {1: {fps: 9}}, dtype: {auto: {fps: 7}}}": "per: fps: is set per seed and per dtype",
    "axes: {num_frames: [8]}\nper: {num_frames: {8: {seed: -1}}}": "seed: expected numbers from 0 on, got -1",
    "axes: {seed: [1]}\nper: {seed: {1: fps}}": "per.seed.1: input should be a valid dictionary, got 'fps'",
    "axes: {seed: [1]}\nper: [seed]": "per: input should be a valid dictionary",
    "axes: {seed: [1]}\nper: {seed: {1: {fps: 999}}}": "fps: expected 1 to 120 frames a second, got 999",
    "axes: {seed: [1, 1.0]}": "two cells are the same clip: seed 1; seed 1.0",
    "axes: {seed: [1, 2], fps: [8]}\nzip: [[seed, fps]]": "zip: expected axes of equal length, got seed has 2, fps has 1",
    "axes: {seed: [1, 2]}\nzip: [[seed, fps]]": "zip: fps: unknown axis",
    "axes: {seed: [1], fps: [8]}\norder: [seed]": "order: expected every axis, fps is missing",
    "axes: {seed: [1], fps: [8]}\norder: [seed, seed, fps]": "seed: is twice in order",
    "base: {prompt: a cat}\naxes: {prompt: 'dog -> [bird]'}": "prompt: expected 'dog', the word to replace, in the prompt of base",
    "axes: {prompt: ' -> [bird]'}": "prompt: expected WORD -> [OTHER, ...]",
    "base: {prompt: a}\naxes: {prompt: 'a -> [b'}": "a bracket is missing",
    "axes: {guidance_scale: 40..60 step 20, seed: 1..9 step 1}": "guidance_scale: input should be less than or equal to 50, got 60",
    "axes: {seed: 1..9999 step 1, condition_fps: 1..99 step 1}": "expected at most 100000 cells",
    "name: ../up": "name: expected letters, digits",
    "axes: [": "not valid YAML in line 2",
    "- 1": "expected name, base and axes, got a list",
    "": "expected name, base and axes, got nothing",
    "1: 2": "1: unknown name",
}


@pytest.mark.parametrize("text", FAULTS, ids=range(len(FAULTS)))
def test_every_fault_of_a_file_is_one_clear_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    whole = text if "base" in text or not text.startswith(("axes", "name: .")) else f"base: {{image: x.png}}\n{text}"
    path.write_text(whole)
    with pytest.raises(SweepError) as caught:
        load_sweep(path).cells()
    assert FAULTS[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_faults_of_many_cells_are_counted_not_listed() -> None:
    with pytest.raises(SweepError, match=r"\(100 of 200 cells\)") as caught:
        tiny(axes={"guidance_scale": [9, 99], "seed": "1..100 step 1"}).cells()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("given", ["seed", "seed=", "sed=1"])
def test_faults_of_options_are_told(given: str) -> None:
    with pytest.raises(SweepError, match=r"NAME=VALUE|did you mean seed"):
        with_options(Sweep(), [given])
    with pytest.raises(SweepError, match="is given twice"):
        with_options(Sweep(), ["seed=1", "seed=2"])


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_runs_on_both_models_by_changing_one_line(path: Path, store: Store, settings: Settings) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    assert set(plan_sweep(sweep, store, settings).counts) == {"to do"}
    lines = path.read_text().splitlines()
    (model,) = [number for number, line in enumerate(lines) if line.strip().startswith("model:")]
    lines[model] = lines[model].replace("closed-form", "i2vgen-xl")
    other = parse_sweep("\n".join(lines), path.stem)
    for cell in other.cells():
        models.find(cell.params.model)[0].check(cell.params)


def test_the_shipped_presets_are_those_of_the_model() -> None:
    presets = models.family("i2vgen-xl").presets
    names = ("resolution", "num_frames", "num_inference_steps")
    cells = load_sweep(ROOT / "experiments" / "presets.yaml").cells()
    found = [{name: getattr(cell.params, name) for name in names} for cell in cells if cell.params.seed == 0]
    assert found == [{name: dict(presets[preset])[name] for name in names} for preset in ("quick", "standard", "high", "extreme")]


def test_params_as_json_are_the_same_text_every_time() -> None:
    params = ClipParams(**TINY)
    assert params_json(params) == params_json(ClipParams(**json.loads(params_json(params))))
    assert os.sep not in params_json(params)
