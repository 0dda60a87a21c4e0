"""The words of a report: both languages say the same, and the top says what was asked."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from itertools import product

import numpy as np
import pandas as pd
import pytest
from sweeps import EVIL, make_sweep
from tables import noisy, table_of

from i2v_lab import report
from i2v_lab.report.pieces import framed
from i2v_lab.report.top import title

TEXTS = json.loads(files("i2v_lab.report").joinpath("strings.json").read_text(encoding="utf-8"))
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
AXES = ["guidance_scale", "seed", "image"]


def test_each_text_has_both_languages_with_the_same_values():
    for key, pair in TEXTS.items():
        assert len(pair) == 2, key
        english, chinese = (set(re.findall(r"{(\w+)}", text)) for text in pair)
        assert english == chinese, key


def tables() -> dict[str, tuple[pd.DataFrame, list[str]]]:
    """Sweeps whose findings use the most different sentences."""
    rng = np.random.default_rng(5)

    def crossing(scale: float, seed: int, image: str) -> dict[str, float]:
        return {"motion": rng.normal() * scale, "smoothness": 0.9 + 1.6e-6 * scale}

    models = pd.concat(
        [table_of(noisy, images=("a",), model=name, model_name=name, scheduler=name) for name in ("ltx-video", "svd-xt")]
    )
    failed = table_of(noisy, seeds=6, images=("a.png",))
    failed.loc[failed["guidance_scale"].eq(9) & failed["seed"].gt(1), "status"] = "failed"
    return {
        "found": (table_of(noisy), AXES),
        "one seed": (table_of(noisy, seeds=1, images=("a",)), AXES[:2]),
        "few seeds": (table_of(noisy, seeds=3, images=("a",), scales=(1.0, 9.0)), AXES[:2]),
        "seeds alone": (table_of(noisy, images=("a",), scales=(1.0,)), AXES[:2]),
        "fixed": (table_of(lambda scale, *_: {"motion": scale, "black_frames": 0.0}), AXES),
        "small": (table_of(crossing), AXES),
        "models": (models.reset_index(drop=True), ["model", *AXES[:2]]),
        "failed": (failed, AXES[:2]),
    }


@pytest.mark.parametrize("name", list(tables()))
def test_both_languages_give_the_same_numbers_and_no_english_is_left_in_the_chinese(name):
    table, axes = tables()[name]
    for found in (report.findings(table, axes, metric="motion"), report.cost_findings(table, axes)):
        for one in [*found.found, *found.heads, *found.notes, *found.best, *found.unseen, *found.details]:
            assert sorted(NUMBER.findall(one.en)) == sorted(NUMBER.findall(one.zh)), one
            words = set(re.findall(r"[A-Za-z_]{3,}", one.zh))
            # Names of parameters, models, units.
            assert words <= {
                "guidance_scale",
                "GiB",
                "CLIP",
                "PSNR",
                "ltx",
                "video",
                "svd",
                "model",
                "scheduler",
                "motion",
                "seed",
            }, one


def test_the_cheapest_good_setting_comes_with_its_figures():
    table = table_of(
        lambda scale, seed, image: {"prompt_agreement": min(1.0, 0.4 + scale / 10) - 0.001 * seed},
        images=("a",),
        scales=(1.0, 6.0, 9.0),
    )
    (best,) = report.findings(table, AXES[:2]).best
    assert best.en.startswith(
        "Cheapest good setting: guidance_scale 6: 1.6 s a clip, agreement of motion with the prompt (proxy) 0.998"
    )
    assert "peak RAM 1 GiB" in best.en
    worse = report.findings(table[table["guidance_scale"] != 6.0], AXES[:2]).best[0].en
    assert worse.startswith("Cheapest good setting: guidance_scale 9") and "the best mean of 2 settings" in worse


TITLES = [
    ({"guidance_scale": [1.0, 5, 13], "seed": [0, 1, 2]}, "Guidance 1 to 13, three seeds, on a coffee cup",
     "引导系数 1 到 13，3 个种子，图片：咖啡杯"),
    ({"scheduler": ["ddim", "unipc"], "seed": [4]}, "Scheduler ddim and unipc, on a coffee cup", "采样器 ddim和unipc，图片：咖啡杯"),
    ({"prompt": ["a" * 30, "b" * 30], "fps": [8, 16]}, "Two prompts, frame rate 8 and 16, on a coffee cup",
     "2 条提示词，帧率 8和16，图片：咖啡杯"),
    ({"seed": [0]}, "On a coffee cup", "图片：咖啡杯"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "english", "chinese"), TITLES)
def test_the_title_says_what_was_asked(fields, english, chinese):
    table = pd.DataFrame([dict(zip(fields, values, strict=True)) for values in product(*fields.values())]).assign(
        image="sample:coffee"
    )
    said = title(table, list(fields))
    assert (said.en, said.zh) == (english, chinese)


def test_axes_that_change_together_are_one_part_of_the_title():
    table = pd.DataFrame(
        {"num_frames": [8, 16, 24], "num_inference_steps": [30, 50, 80], "image": ["/a/cup.png", "/a/cat.png", "/a/cup.png"]}
    )
    assert title(table, ["num_frames", "num_inference_steps"]).en == "Frames 8 to 24 with steps 30 to 80, on two pictures"


def test_the_top_names_prompt_model_date_and_cost_as_text(tmp_path):
    table = make_sweep(tmp_path, [{"seed": seed, "prompt": EVIL, "image": "sample:cat", "model_name": "fake"} for seed in (0, 1)])
    html = report.heading(table, ["seed"])._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "fake · " in html and "2 clips in 13 s, peak RAM 1.1 GiB" in html and "内存峰值 1.1 GiB" in html
    assert html.count("data:image/jpeg;base64,") == 1 and html.count("<h1>") == 1


def test_where_styles_are_removed_one_language_is_shown(monkeypatch):
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    html = framed('<p><span class="i2v-en" lang="en">a</span><span class="i2v-zh" lang="zh">b</span></p>')
    assert '<span hidden="hidden" class="i2v-en"' in html and '<span class="i2v-zh"' in html and 'data-lang="zh"' in html
