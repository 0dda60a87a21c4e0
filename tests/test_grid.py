"""The fair grid: one picture, prompt and length, made by several models, each with its own size and defaults."""

from __future__ import annotations

import logging
import weakref
from itertools import groupby

import pytest
import torch
from tiny_families import make_checkpoint

from i2v_lab.models import registry
from i2v_lab.store import Store
from i2v_lab.sweep import SweepProgress, parse_sweep, run_sweep
from i2v_lab.sweep.sweep_plan import turns

FIVE = ("wan2.2-ti2v-5b", "wan2.2-i2v-a14b", "ltx-video", "cogvideox1.5-5b-i2v", "svd-xt")
GRID = """
name: models
base: {{image: "{picture}", prompt: a boat sails by, seconds: 0.5, num_inference_steps: 3}}
axes: {{model: [closed-form, {models}], seed: [1, 2]}}
per:
  model:
    closed-form: {{resolution: 192x256, num_frames: 6, num_inference_steps: 20}}
{sizes}
    svd-xt: {{prompt: null, resolution: 64x128}}
"""


def grid(picture: object, *names: str) -> str:
    sizes = "\n".join(f"    {name}: {{resolution: 64x96}}" for name in names if name != "svd-xt")
    return GRID.format(picture=picture, models=", ".join(names), sizes=sizes)


def test_stock_models_are_loaded_once_and_the_others_around_them() -> None:
    sweep = parse_sweep(grid("sample:coffee", *FIVE))
    turn = turns(sweep)
    order = [cell.params.model for cell in sorted(sweep.cells(), key=lambda cell: turn[cell.number])]
    assert [model for model, _ in groupby(order)] == ["closed-form", *FIVE, "closed-form"]


@pytest.mark.slow
def test_the_model_before_is_gone_when_the_next_is_loaded(tmp_path, monkeypatch, store, settings) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # what pytest keeps of a log keeps what it is about
    names = ("ltx-video", "svd-xt")
    for name in names:
        make_checkpoint(name, tmp_path / "checkpoints" / name)
    networks: list[weakref.ref] = []
    seen = []

    class Ear(SweepProgress):
        def stage(self, name: str, total: int | None = None) -> None:
            super().stage(name, total)
            if name == "load" and not registry._loaded:  # a model is read from here on
                seen.append([type(ref()).__name__ for ref in networks if ref() is not None])
            if name == "decode":
                (model,) = registry._loaded.values()
                networks.extend(weakref.ref(part) for part in getattr(getattr(model, "pipe", None), "components", {}).values()
                                if isinstance(part, torch.nn.Module))  # fmt: skip

    result = run_sweep(parse_sweep(grid("sample:coffee", *names)), store, settings=settings, progress=Ear())
    assert result.counts == {"done": 6}, store.runs()["reason"].tolist()
    assert len(seen) >= 2 and not any(seen), seen
    assert len(networks) == 12  # of two clips each: text or image encoder, denoiser, VAE


@pytest.mark.slow
def test_six_families_of_one_photograph_from_the_command_line(tmp_path, i2v_lab, photograph) -> None:
    for name in FIVE:
        make_checkpoint(name, tmp_path / "checkpoints" / name)
    (tmp_path / "grid.yaml").write_text(grid(photograph, *FIVE))
    done = i2v_lab("sweep", tmp_path / "grid.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    table = Store(tmp_path / "results").runs(sweep="models")
    assert set(table["status"]) == {"done"}
    first = table[table["seed"] == 1].set_index("model")
    shown = {name: (row["resolution"], row["num_frames"], row["fps"], row["prompt"]) for name, row in first.iterrows()}
    prompt = "a boat sails by"
    assert shown == {
        "closed-form": ("192x256", 6, 8, prompt), "wan2.2-ti2v-5b": ("64x96", 13, 24, prompt), "wan2.2-i2v-a14b": ("64x96", 9, 16, prompt),
        "ltx-video": ("64x96", 9, 25, prompt), "cogvideox1.5-5b-i2v": ("64x96", 17, 16, prompt), "svd-xt": ("64x128", 4, 7, ""),
    }  # fmt: skip
    assert set(first["guidance_scale"]) == {9.0, 5.0, 3.5, 3.0, 6.0}
    made = table.sort_values("created")["model"].tolist()
    assert len([model for model, _ in groupby(made)]) == 7
    (folder,) = (tmp_path / "results" / "sweeps").iterdir()
    page = (folder / "report.html").read_text()
    assert "Besides the model (closed-form / wan2.2-ti2v-5b" in page
    assert "shorter ones hold their last frame until the longest ends" in page
    assert (folder / "grid.mp4").is_file()
    again = i2v_lab("sweep", tmp_path / "grid.yaml", "--dry-run")
    assert "12 done; nothing to run" in again.stdout
