"""LoRAs: read from the params, put into the networks of a stock family as diffusers does, known by their content."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import by_hand, loaded, make_checkpoint, params_for

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import ModelError, ParamsError, UnsupportedParams
from i2v_lab.models.stock.families import FAMILIES
from i2v_lab.models.stock.lora import Lora, parse, portable
from i2v_lab.models.stock.offload import put_on
from i2v_lab.run import restore, run_clip
from i2v_lab.run.make import portable as carried
from i2v_lab.settings import load_settings
from i2v_lab.store import Store
from i2v_lab.sweep.axes import expand

LAYERS = {
    "cogvideox": ["to_q", "to_v"],
    "wan": ["to_q", "ffn.net.2"],
    "ltx": ["to_q", "to_v"],
    "hunyuan": ["to_q", "to_v"],
    "framepack": ["to_q"],
}
A14B, FIVE = "wan2.2-i2v-a14b", "wan2.2-ti2v-5b"
NAMES = ("wan2.2-ti2v-5b", "wan2.1-i2v-480p", "ltx-video",
         *(pytest.param(name, marks=pytest.mark.slow) for name in ("cogvideox1.5-5b-i2v", "ltx-2", "hunyuanvideo-i2v", "framepack")))  # fmt: skip


def make_lora(name: str, checkpoint: Path, folder: Path, seed: int = 0) -> Path:
    """A LoRA for a family's network as training scripts of diffusers save one, with weights that are not zero."""
    model = loaded(name, checkpoint)
    network = model.pipe.transformer
    layers = next(found for beginning, found in LAYERS.items() if name.startswith(beginning))
    network.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=layers))
    state = peft.get_peft_model_state_dict(network)
    draw = torch.Generator().manual_seed(seed)
    state = {key: torch.randn(value.shape, generator=draw) for key, value in state.items()}
    type(model.pipe).save_lora_weights(folder, transformer_lora_layers=state)
    return (folder / "pytorch_lora_weights.safetensors").rename(folder / f"style{seed}.safetensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


def checkpoint(name: str, root: Path) -> Path:
    return root / name if (root / name).exists() else make_checkpoint(name, root / name)


def lora(name: str, root: Path, seed: int = 0) -> Path:
    file = root / f"loras-{name}" / f"style{seed}.safetensors"
    return file if file.exists() else make_lora(name, checkpoint(name, root), file.parent, seed)


@pytest.fixture(scope="module")
def picture() -> Picture:
    return open_picture("sample:coffee")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ()),
        ("", ()),
        ("style.safetensors", (Lora("style.safetensors"),)),
        (" a b.safetensors:0.8 , owner/name:-1", (Lora("a b.safetensors", 0.8), Lora("owner/name", -1.0))),
        ("high=h.safetensors, low=owner/name/l.safetensors:.5", (Lora("h.safetensors", 1.0, "high"),
                                                                 Lora("owner/name/l.safetensors", 0.5, "low"))),
    ],
)  # fmt: skip
def test_loras_are_read_from_the_params(text, expected):
    assert parse(text) == expected
    assert parse(",".join(one.text(one.source) for one in expected)) == expected


@pytest.mark.parametrize("text", ["a.safetensors:strong", "a.safetensors:11", ":1", "a,,b", "a:1:2", "a:inf"])
def test_what_names_no_lora_is_one_clear_line(text):
    with pytest.raises(ParamsError, match=r"lora: expected FILE:WEIGHT, .*, got '"):
        parse(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_lora_gives_the_frames_of_the_stock_pipeline_and_is_taken_out_again(name, root, picture):
    folder, model = checkpoint(name, root), loaded(name, checkpoint(name, root))
    plain = params_for(name, folder)
    without = model.generate(picture, plain, Progress())
    first, second = lora(name, root), lora(name, root, seed=1)
    for text, files in (
        (f"{first}:0.8", {first: 0.8}),
        (f"{first}:0.8,{second}:-0.5", {first: 0.8, second: -0.5}),
        (f"{second}", {second: 1.0}),
    ):

        def prepare(pipe: Any, files: dict[Path, float] = files) -> None:
            for file in files:
                warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
                pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=file.stem)
            pipe.set_adapters([file.stem for file in files], list(files.values()))

        frames = model.generate(picture, plain.replace(lora=text), Progress())
        np.testing.assert_array_equal(frames, by_hand(folder, FAMILIES[name], plain, picture, prepare))
        assert (frames != without).mean() > 0.01
    np.testing.assert_array_equal(model.generate(picture, plain, Progress()), without)


def test_each_expert_has_its_own_lora(root, picture):
    folder, model = checkpoint(A14B, root), loaded(A14B, checkpoint(A14B, root))
    plain = params_for(A14B, folder)
    first, second = lora(A14B, root), lora(A14B, root, seed=1)

    def prepare(pipe: Any) -> None:
        pipe.load_lora_weights(first.parent, weight_name=first.name, adapter_name="high")
        pipe.load_lora_weights(second.parent, weight_name=second.name, adapter_name="low", load_into_transformer_2=True)
        pipe.transformer.set_adapters(["high"], [0.8])
        pipe.transformer_2.set_adapters(["low"], [0.6])

    made = {
        text: model.generate(picture, plain.replace(lora=text), Progress())
        for text in (f"high={first}:0.8,low={second}:0.6", f"high={first}:0.8", f"low={first}:0.8", f"{first}:0.8", "")
    }
    frames = list(made.values())
    np.testing.assert_array_equal(frames[0], by_hand(folder, FAMILIES[A14B], plain, picture, prepare))
    for number, one in enumerate(frames):
        assert all((one != other).any() for other in frames[:number])


def test_few_steps_is_a_preset_with_a_lora_and_says_what_to_fetch(root, picture, monkeypatch):
    folder, model = checkpoint(A14B, root), loaded(A14B, checkpoint(A14B, root))
    few = {name: value for name, value in FAMILIES[A14B].presets["few-steps"].items() if name not in ("resolution", "num_frames")}
    params = params_for(A14B, folder, **few)
    high, low = parse(params.lora)
    assert (high.expert, low.expert, params.num_inference_steps, params.guidance_scale, params.guidance_scale_2) == (
        "high",
        "low",
        4,
        1,
        1,
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as found:
        model.generate(picture, params, Progress())
    hub_id, _, file = high.source.rpartition("/Wan2.2-I2V")
    assert str(found.value).endswith(f"or fetch it with: hf download {hub_id} Wan2.2-I2V{file}")
    assert "\n" not in str(found.value)
    own = params.replace(lora=f"high={lora(A14B, root)},low={lora(A14B, root, seed=1)}")
    frames = model.generate(picture, own, Progress())
    assert (frames != model.generate(picture, own.replace(lora=None), Progress())).mean() > 0.01


def test_a_lora_is_kept_while_the_next_clip_has_it_too_and_works_on_every_tier(root, picture, monkeypatch):
    folder, model = checkpoint(FIVE, root), loaded(FIVE, checkpoint(FIVE, root))
    for weight in model.pipe.transformer.parameters():
        weight.data = weight.data.clone()
    params = params_for(FIVE, folder, lora=f"{lora(FIVE, root)}:0.5")
    frames = model.generate(picture, params, Progress())
    calls: list[str] = []
    real = model.pipe.load_lora_weights
    monkeypatch.setattr(model.pipe, "load_lora_weights", lambda *a, **k: (calls.append("load"), real(*a, **k)))
    np.testing.assert_array_equal(model.generate(picture, params, Progress()), frames)
    assert not calls
    for tier in (3, 4):
        put_on(model.pipe, tier, torch.device("cpu"), offloads=True)
        np.testing.assert_array_equal(model.generate(picture, params, Progress()), frames)
    model.generate(picture, params.replace(lora=None), Progress())
    np.testing.assert_array_equal(model.generate(picture, params, Progress()), frames)
    assert calls == ["load"]


def test_a_clips_key_knows_the_files_by_their_content(root, tmp_path):
    file = tmp_path / "style.safetensors"
    shutil.copy(lora(FIVE, root), file)
    moved = shutil.copy(file, tmp_path / "other.safetensors")
    params = ClipParams(image="sample:coffee", lora=f"{file}:0.5")
    first = models.by_content(params)
    assert first == models.by_content(params.replace(lora=f"{moved}:0.5"))
    assert hashlib.sha256(file.read_bytes()).hexdigest() in first.lora
    assert models.by_content(params.replace(lora=f"{file}:0.4")) != first
    shutil.copy(lora(FIVE, root, seed=1), file)
    assert models.by_content(params) != first
    assert str(tmp_path) not in carried(params)["lora"]


@pytest.mark.slow
def test_a_run_with_a_lora_is_found_again_by_its_content_and_made_again_from_the_clip(root, tmp_path):
    file = tmp_path / "style.safetensors"
    shutil.copy(lora(FIVE, root), file)
    params = params_for(FIVE, checkpoint(FIVE, root), num_inference_steps=1, lora=f"{file}:0.5")
    store, settings = Store(tmp_path / "results"), load_settings(device="cpu")
    first = run_clip(params, store=store, settings=settings)
    assert first.status == "done", first.reason
    clip = store.directory / first.clip
    assert restore(clip, store)[0].lora == params.lora
    with pytest.raises(ModelError, match="no run of this output folder used them"):
        restore(clip, None, model=params.model)
    moved = shutil.copy(file, tmp_path / "other.safetensors")
    assert run_clip(params.replace(lora=f"{moved}:0.5"), store=store, settings=settings).id == first.id
    shutil.copy(lora(FIVE, root, seed=1), file)
    edited = run_clip(params, store=store, settings=settings)
    assert (edited.status, edited.key != first.key) == ("done", True), edited.reason
    assert edited.frames_sha256 != first.frames_sha256
    models.unload()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def rename(file: Path) -> None:
    save_file({f"unet.{key}": value for key, value in load_file(file).items()}, file)


def widen(file: Path) -> None:
    save_file({key: torch.cat([value, value], -1) if "lora_A" in key else value for key, value in load_file(file).items()}, file)


def deepen(file: Path) -> None:
    old = load_file(file)
    save_file(
        old | {key.replace("blocks.0", f"blocks.{n}"): value.clone() for key, value in old.items() for n in range(7, 19)}, file
    )


def empty(file: Path) -> None:
    save_file({"weight": torch.zeros(3)}, file)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, "cut or damaged"), (rename, f"not a LoRA for {FIVE}"), (widen, f"not a LoRA for {FIVE}"), (empty, f"not a LoRA for {FIVE}"),
        (deepen, "of its "), (Path.unlink, "there is no such file"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_one_clear_line_and_harms_no_later_clip(harm, said, root, tmp_path, picture):
    file = tmp_path / "style.safetensors"
    shutil.copy(lora(FIVE, root), file)
    harm(file)
    model, plain = loaded(FIVE, checkpoint(FIVE, root)), params_for(FIVE, checkpoint(FIVE, root), num_inference_steps=1)
    without = model.generate(picture, plain, Progress())
    with pytest.raises(ModelError) as found:
        model.generate(picture, plain.replace(lora=str(file)), Progress())
    assert said in str(found.value)
    assert "\n" not in str(found.value)
    np.testing.assert_array_equal(model.generate(picture, plain, Progress()), without)


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("closed-form", "a.safetensors", "lora: closed-form does not read it"),
        ("i2vgen-xl", "a.safetensors", "lora: i2vgen-xl does not read it"),
        ("svd-xt", "a.safetensors", "lora: svd-xt does not read it"),
        (FIVE, "high=a.safetensors", f"lora: {FIVE} has one network, got high=; leave high= out"),
    ],
)
def test_a_family_that_cannot_use_it_says_so(model, text, said):
    with pytest.raises((ParamsError, UnsupportedParams)) as found:
        models.find(model)[0].check(models.resolve(ClipParams(model=model, image="sample:coffee", lora=text)))
    assert said in str(found.value)


def test_it_is_an_axis_of_a_sweep_and_nothing_is_a_value_of_it():
    values, labels = expand("lora", ["", "a.safetensors:0.5", "a.safetensors:0.5,b.safetensors"], {})
    assert len(values) == len(labels) == 3
    assert ClipParams(image="sample:coffee", lora=values[0]) == ClipParams(image="sample:coffee")


def test_a_hub_id_is_looked_up_in_the_hubs_cache(root, tmp_path, monkeypatch):
    file = lora(FIVE, root)
    cache = tmp_path / "models--owner--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots" / "abc").mkdir(parents=True)
    shutil.copy(file, cache / "snapshots" / "abc" / "style.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    here = {text: models.by_content(ClipParams(image="sample:coffee", lora=text)) for text in
            (str(file), "owner/name", "owner/name/style.safetensors")}  # fmt: skip
    assert len({known.lora for known in here.values() if known}) == 1
    assert models.by_content(ClipParams(image="sample:coffee", lora="owner/other"), fetch=False) is None
    assert portable("owner/name:0.5") == "owner/name:0.5"
