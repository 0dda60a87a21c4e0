"""Loading an I2VGen-XL checkpoint: the layouts that people have, and every fault."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import BASE, Ears, folder_fixture, make_checkpoint, model_fixture, picture_fixture  # noqa: F401

from i2v_lab import models
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import BadFrames, ModelError, Stop
from i2v_lab.models.device import choose_device
from i2v_lab.models.i2vgen_xl.model import I2VGenXL


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.slow
def test_never_touches_the_stock_pipeline(folder: Path, picture: Picture) -> None:
    code = (
        "import sys\n"
        "from i2v_lab.models.i2vgen_xl.model import I2VGenXL\n"
        "from i2v_lab.clip.picture import open_picture\n"
        "from i2v_lab.clip.params import ClipParams\n"
        "from i2v_lab.clip.progress import Progress\n"
        "assert 'diffusers' not in sys.modules and 'transformers' not in sys.modules\n"
        "model = I2VGenXL.load(sys.argv[1])\n"
        "params = ClipParams(image='x', resolution='64x64', num_frames=2, num_inference_steps=2)\n"
        "model.generate(open_picture(sys.argv[2]), params, Progress())\n"
        "assert not [name for name in sys.modules if 'pipeline_i2vgen' in name]\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, folder, picture.path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""  # libraries keep quiet


@pytest.mark.parametrize(
    ("part", "stage"), [("vae.encoder.conv_in", "encode"), ("unet.conv_out", "denoise"), ("vae.decoder.conv_out", "decode")]
)
def test_frames_that_are_not_finite_are_a_failure(copied: Path, picture: Picture, part: str, stage: str) -> None:
    model = I2VGenXL.load(copied)
    with torch.no_grad():
        model.__dict__[part.partition(".")[0]].get_submodule(part.partition(".")[2]).weight.fill_(torch.nan)
    with pytest.raises(BadFrames, match=rf"^{stage}: expected finite numbers, .* use dtype float32 or bfloat16"):
        model.generate(picture, BASE, Progress())


@pytest.mark.slow
def test_loads_in_other_dtypes(folder: Path, picture: Picture) -> None:
    in_full = I2VGenXL.load(folder, dtype="float32").generate(picture, BASE, Progress())
    half = I2VGenXL.load(folder, dtype="bfloat16")
    assert half.dtype == "bfloat16"
    in_half = half.generate(picture, BASE.replace(dtype="bfloat16"), Progress())
    assert 0 < np.abs(in_full.astype(float) - in_half).mean() < 12  # grey levels; the same clip, more roughly


def test_variant_without_float16_and_shards(tmp_path: Path, picture: Picture) -> None:
    whole = make_checkpoint(tmp_path / "whole", dtype=torch.float32)
    model = I2VGenXL.load(whole)
    split = Path(shutil.copytree(whole, tmp_path / "split"))
    (split / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    model.unet.save_pretrained(split / "unet", max_shard_size="1MB", variant="fp16")
    assert len(list((split / "unet").glob("*-of-*.safetensors"))) > 2
    again = I2VGenXL.load(split)
    assert np.array_equal(model.generate(picture, BASE, Progress()), again.generate(picture, BASE, Progress()))
    assert model.fingerprint != again.fingerprint
    lost = next((split / "unet").glob("*-00002-of-*.safetensors"))
    lost.unlink()
    assert lost.name in fault(split)


def test_the_half_size_variant_is_preferred(folder: Path, copied: Path) -> None:
    plain = make_checkpoint(copied.parent / "plain", dtype=torch.float32, seed=3)
    for path in plain.rglob("*.safetensors"):
        shutil.copy(path, copied / path.relative_to(plain))
    both, half = I2VGenXL.load(copied), I2VGenXL.load(folder)
    assert torch.equal(both.unet.conv_in.weight, half.unet.conv_in.weight)
    assert both.fingerprint == half.fingerprint


def test_a_checkpoint_that_is_replaced_under_its_name_is_loaded_again(copied: Path) -> None:
    first = models.open(str(copied))
    model = first.load()
    assert models.open(str(copied)).load() is model
    file = next((copied / "unet").glob("*.safetensors"))
    weights = safetensors.torch.load_file(file)
    safetensors.torch.save_file({name: weight + 1 for name, weight in weights.items()}, file)
    again = models.open(str(copied))
    assert again.loaded is None
    assert again.load() is not model
    assert again.load().fingerprint == again.identity.fingerprint != first.identity.fingerprint
    with pytest.raises(ModelError, match="its files changed while it was loaded; try again"):
        first.load()
    models.unload()


def test_loading_reports_its_progress(folder: Path) -> None:
    ears = Ears()
    I2VGenXL.load(str(folder), progress=ears)
    assert ears.events == [("load", 4), *["step"] * 4]
    with pytest.raises(Stop):
        I2VGenXL.load(folder, progress=Ears(3, Stop("enough")))


def test_it_needs_no_gradients(model: I2VGenXL) -> None:
    for part in (model.text_encoder, model.image_encoder, model.vae, model.unet):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_fingerprint(folder: Path, copied: Path, model: I2VGenXL) -> None:
    def fingerprint(path: Path) -> str:
        return I2VGenXL.load(path).fingerprint

    assert re.fullmatch(r"[0-9a-f]{64}", model.fingerprint)
    assert fingerprint(copied) == model.fingerprint
    (copied / "README.md").write_text("what people add")
    assert fingerprint(copied) == model.fingerprint
    weights = copied / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # a fine-tune: the same tensors, other numbers
    weights.write_bytes(data)
    assert fingerprint(copied) != model.fingerprint
    data[-1] ^= 1
    weights.write_bytes(data)
    assert fingerprint(copied) == model.fingerprint
    config = json.loads((copied / "scheduler" / "scheduler_config.json").read_text())
    (copied / "scheduler" / "scheduler_config.json").write_text(json.dumps({**config, "timestep_spacing": "trailing"}))
    assert fingerprint(copied) != model.fingerprint
    assert fingerprint(make_checkpoint(copied.parent / "plain", dtype=torch.float32)) != model.fingerprint


def test_keys_of_older_transformers(copied: Path, model: I2VGenXL) -> None:
    # The published checkpoint's text tower has names that begin with "text_model.".
    path = copied / "text_encoder" / "model.fp16.safetensors"
    renamed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(renamed, path, {"format": "pt"})
    weight = I2VGenXL.load(copied).text_encoder.final_layer_norm.weight
    assert torch.equal(weight, model.text_encoder.final_layer_norm.weight)


def fault(where: Path | str, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        I2VGenXL.load(where, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def drop_tensor(path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    tensors.pop(sorted(tensors)[0])
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


def only_bin(path: Path) -> None:
    path.rename(path.with_name("pytorch_model.bin"))


def wrong_class(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "StableDiffusionPipeline"}))


def wider(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": 48}))


def more_words(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **{f"word{number}": 514 + number for number in range(100)}}))


FAULTS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("model_index.json", Path.unlink, "model_index.json: missing"),
    ("model_index.json", wrong_class, "expected a checkpoint of I2VGenXLPipeline, got StableDiffusionPipeline"),
    ("model_index.json", lambda path: path.write_text("[]"), "expected a JSON object, got list"),
    ("unet", shutil.rmtree, "unet/config.json: missing"),
    ("unet/config.json", lambda path: path.write_text("{"), "unet/config.json: expected a JSON file"),
    ("unet/config.json", wider, "unet: I2VGenXLUNet cannot be made of it"),
    ("unet/diffusion_pytorch_model.fp16.safetensors", cut, "got one that is cut or damaged"),
    ("unet/diffusion_pytorch_model.fp16.safetensors", drop_tensor, "1 are missing"),
    ("unet/diffusion_pytorch_model.fp16.safetensors", lambda path: path.write_bytes(b""), "expected a whole safetensors file"),
    (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        lambda path: path.write_bytes(b"x" * 5000),
        "expected a whole safetensors file",
    ),
    ("text_encoder/model.fp16.safetensors", drop_tensor, "1 are missing"),
    ("text_encoder/model.fp16.safetensors", cut, "got one that is cut or damaged"),
    ("text_encoder/model.fp16.safetensors", only_bin, "expected safetensors, got weights that may run code"),
    ("text_encoder/model.fp16.safetensors", Path.unlink, "safetensors: missing"),
    ("tokenizer", shutil.rmtree, "tokenizer/vocab.json and merges.txt, or tokenizer.json, or spiece.model: missing"),
    ("tokenizer/merges.txt", Path.unlink, "merges.txt, or tokenizer.json, or spiece.model: missing"),
    ("tokenizer/vocab.json", lambda path: path.write_text("{"), "tokenizer or feature_extractor cannot be read"),
    ("tokenizer/vocab.json", more_words, "has 614 tokens, and the text encoder knows 600"),
    ("scheduler/scheduler_config.json", Path.unlink, "scheduler_config.json: missing"),
    ("feature_extractor/preprocessor_config.json", Path.unlink, "preprocessor_config.json: missing"),
]


@pytest.mark.parametrize(("file", "spoil", "told"), FAULTS)
def test_a_spoilt_checkpoint_is_one_clear_line(copied: Path, file: str, spoil: Callable[[Path], Any], told: str) -> None:
    spoil(copied / file)
    message = fault(copied)
    assert told in message
    assert str(copied) in message


def test_what_is_no_checkpoint_at_all(tmp_path: Path, picture: Picture) -> None:
    assert "no such folder" in fault(tmp_path / "nowhere")
    assert "model_index.json: missing" in fault(tmp_path)
    assert "got a file" in fault(picture.path)
    assert "expected cpu, cuda" in fault(tmp_path, device="gpu")
    assert "expected auto, float32, float16, bfloat16, got 'int8'" in fault(tmp_path, dtype="int8")
    assert "CUDA devices" in fault(tmp_path, device="cuda:99")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.fixture
def hub_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub cache with a whole checkpoint in it as ali-vilab/i2vgen-xl, and no way to the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--ali-vilab--i2vgen-xl"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    yield repository / "snapshots" / ("0" * 40)


def test_the_cache_of_the_hub_is_enough(hub_cache: Path, model: I2VGenXL) -> None:
    assert I2VGenXL.load("ali-vilab/i2vgen-xl").fingerprint == model.fingerprint


def test_without_cache_and_hub_the_error_names_the_command_to_fetch_it(hub_cache: Path) -> None:
    (hub_cache / "unet" / "config.json").unlink()
    for name in ("ali-vilab/i2vgen-xl", "somebody/else"):
        message = fault(name)
        assert f"hf download {name} --include" in message
        assert "give the path of a folder" in message


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    code = "from i2v_lab.models.i2vgen_xl.model import I2VGenXL; I2VGenXL.load('ali-vilab/i2vgen-xl')"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("i2v_lab.errors.ModelError: ali-vilab/i2vgen-xl: not in the hub's cache"), done.stderr
    assert "hf download ali-vilab/i2vgen-xl" in last
    assert time.monotonic() - started < 20  # it gives up soon, not after the client's own half minute of trying
