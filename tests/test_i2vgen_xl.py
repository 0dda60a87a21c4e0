"""I2VGen-XL with a small random checkpoint: against the stock pipeline, under every parameter, and with every fault."""

from __future__ import annotations

import gc
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
from checkpoints import SIZES, make_checkpoint
from PIL import Image

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.errors import BadFrames, ModelError, OutOfMemory, Stop, UnsupportedParams
from i2v_lab.models.base import VideoModel
from i2v_lab.models.checkpoint import choose_device
from i2v_lab.models.i2vgen_xl.model import I2VGenXL, preview
from i2v_lab.models.i2vgen_xl.parts import estimate_tokens
from i2v_lab.models.sampling import SCHEDULERS, make_scheduler


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "i2vgen-xl")


@pytest.fixture(scope="session")
def model(folder: Path) -> I2VGenXL:
    return I2VGenXL.load(folder)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return painted(tmp_path_factory.mktemp("picture") / "a.png", 0)


def painted(path: Path, seed: int) -> Picture:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return open_picture(path)


BASE = ClipParams(image="x", model="i2vgen-xl", prompt="a boat sails by", negative_prompt="blurred, static", resolution="64x96",
                  num_frames=3, num_inference_steps=3, seed=5)  # fmt: skip


# --- the stock pipeline as oracle


def stock(model: I2VGenXL, pixels: np.ndarray, params: ClipParams) -> np.ndarray:
    """The same clip by diffusers' own pipeline: its frames, float (F, H, W, 3) from 0 to 1.

    It gets the noise and the sample of the picture's latents that a seed means to us. The text tower's embeddings are
    passed in, since it looks for them where transformers no longer has them.
    """
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    pipeline = diffusers.I2VGenXLPipeline(
        vae=model.vae, text_encoder=model.text_encoder, tokenizer=model.tokenizer, image_encoder=model.image_encoder,
        feature_extractor=model.feature_extractor, unet=model.unet,
        scheduler=make_scheduler(params.scheduler, model.scheduler_config),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(params.seed)
    latent_shape = (4, params.height // 8, params.width // 8)
    sample_noise = torch.randn((1, *latent_shape), generator=generator)
    noise = torch.randn((params.num_frames, *latent_shape), generator=generator)
    encode = model.vae.encode

    class Drawn:
        def __init__(self, distribution: Any) -> None:
            self.latent_dist = self
            self.distribution = distribution

        def sample(self) -> torch.Tensor:
            return self.distribution.mean + self.distribution.std * sample_noise

    def words(text: str) -> torch.Tensor:
        tokens = model.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            return model.text_encoder.final_layer_norm(model.text_encoder(tokens, output_hidden_states=True).hidden_states[-2])

    model.vae.encode = lambda image: Drawn(encode(image).latent_dist)
    try:
        frames = pipeline(
            prompt_embeds=words(params.prompt), negative_prompt_embeds=words(params.negative_prompt), image=Image.fromarray(pixels),
            height=params.height, width=params.width, target_fps=params.condition_fps, num_frames=params.num_frames,
            num_inference_steps=params.num_inference_steps, guidance_scale=params.guidance_scale, generator=generator,
            latents=noise.permute(1, 0, 2, 3)[None], output_type="np",
        ).frames[0]  # fmt: skip
    finally:
        del model.vae.encode
    return np.asarray(frames)


class Unrounded:
    """Keeps the frames that the model decodes, before they become bytes."""

    def __init__(self, model: I2VGenXL, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[np.ndarray] = []
        decode = model.decode_frame

        def keep(latents: torch.Tensor) -> torch.Tensor:
            frame = decode(latents)
            self.frames.append((frame[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())
            return frame

        monkeypatch.setattr(model, "decode_frame", keep)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # the stock pipeline's own
@pytest.mark.parametrize("guidance", [9.0, 1.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_equals_the_stock_pipeline(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch, scheduler: str, guidance: float
) -> None:
    params = BASE.replace(scheduler=scheduler, guidance_scale=guidance, num_inference_steps=4, condition_fps=7)
    expected = stock(model, picture.crop(64, 96), params)
    unrounded = Unrounded(model, monkeypatch)
    frames = model.generate(picture, params, Progress())
    assert np.abs(np.stack(unrounded.frames) - expected).max() < 1e-4
    assert np.abs(frames.astype(int) - (expected * 255).round().astype(int)).max() <= 1
    assert expected.std() > 0.05  # else they would agree on nothing


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("resolution", ["64x64", "96x64", "72x104"])
def test_equals_the_stock_pipeline_in_any_shape(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch, resolution: str
) -> None:
    params = BASE.replace(resolution=resolution, num_inference_steps=2)
    expected = stock(model, picture.crop(params.height, params.width), params)
    unrounded = Unrounded(model, monkeypatch)
    model.generate(picture, params, Progress())
    assert np.abs(np.stack(unrounded.frames) - expected).max() < 1e-4


def test_never_touches_the_stock_pipeline(folder: Path, picture: Picture) -> None:
    code = (
        "import sys\n"
        "from i2v_lab.models.i2vgen_xl import I2VGenXL\n"
        "from i2v_lab.image import open_picture\n"
        "from i2v_lab.params import ClipParams\n"
        "from i2v_lab.progress import Progress\n"
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


# --- what decides the frames


def test_one_seed_decides_everything(model: I2VGenXL, picture: Picture, folder: Path) -> None:
    for scheduler in ("ddim", "euler-a"):
        params = BASE.replace(scheduler=scheduler)
        first = model.generate(picture, params, Progress())
        torch.manual_seed(99)  # nobody else's randomness has a say
        assert np.array_equal(first, model.generate(picture, params, Progress()))
        assert np.array_equal(first, I2VGenXL.load(folder).generate(picture, params, Progress()))
        assert not np.array_equal(first, model.generate(picture, params.replace(seed=6), Progress()))


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a cat"}, {"negative_prompt": "a cat"}, {"condition_fps": 30}, {"guidance_scale": 4.0}, {"num_inference_steps": 4},
     {"scheduler": "euler"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_each_parameter_has_a_say(model: I2VGenXL, picture: Picture, change: dict[str, Any]) -> None:
    frames = model.generate(picture, BASE, Progress())
    assert frames.shape == (3, 64, 96, 3)
    assert frames.dtype == np.uint8
    assert not np.array_equal(frames, model.generate(picture, BASE.replace(**change), Progress()))


def test_the_picture_has_a_say(model: I2VGenXL, picture: Picture, tmp_path: Path) -> None:
    other = painted(tmp_path / "b.png", 1)
    assert not np.array_equal(model.generate(picture, BASE, Progress()), model.generate(other, BASE, Progress()))


def test_playback_rate_has_none(model: I2VGenXL, picture: Picture) -> None:
    assert np.array_equal(model.generate(picture, BASE, Progress()), model.generate(picture, BASE.replace(fps=24), Progress()))


def test_without_guidance_there_is_one_pass_and_the_negative_prompt_is_not_read(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    hook = model.unet.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    try:
        one = model.generate(picture, BASE.replace(guidance_scale=1), Progress())
        assert sizes == [1, 1, 1]
        other = model.generate(picture, BASE.replace(guidance_scale=0.5, negative_prompt="a cat"), Progress())
        assert np.array_equal(one, other)
        sizes.clear()
        model.generate(picture, BASE, Progress())
        assert sizes == [2, 2, 2]
    finally:
        hook.remove()


def test_clip_tower_sees_no_black_edge(model: I2VGenXL) -> None:
    white = np.full((704, 1280, 3), 255, np.uint8)  # the native size, where the stock pipeline is a row short
    seen = model.clip_pixels(white, 1280)
    assert seen.shape == (1, 3, 224, 224)
    assert float(seen.amin((0, 2, 3)).sub(seen.amax((0, 2, 3))).abs().max()) == 0


@pytest.mark.parametrize("resolution", ["64x72", "104x88", "200x64"])
def test_any_multiple_of_eight_works_through_three_halvings(tmp_path: Path, picture: Picture, resolution: str) -> None:
    import diffusers

    config = {**SIZES["small"]["unet"], "block_out_channels": (16, 16, 16, 16), "attention_head_dim": 8}
    down, up = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",), ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3
    unet = diffusers.I2VGenXLUNet(**{**config, "down_block_types": down, "up_block_types": up}).eval()
    params = ClipParams(image="x", resolution=resolution)
    shape = (params.height // 8, params.width // 8)
    with torch.no_grad():
        out = unet(
            torch.randn(1, 4, 2, *shape), torch.tensor(500), fps=torch.tensor([8]), image_latents=torch.randn(1, 4, 2, *shape),
            image_embeddings=torch.randn(1, 1, 32), encoder_hidden_states=torch.randn(1, 77, 32), return_dict=False,
        )[0]  # fmt: skip
    assert out.shape == (1, 4, 2, *shape)


# --- what it says of itself


def test_it_is_a_video_model(model: I2VGenXL) -> None:
    assert isinstance(model, VideoModel)
    assert (model.device, model.dtype) == (("cuda:0", "float16") if torch.cuda.is_available() else ("cpu", "float32"))
    assert set(model.presets) == {"quick", "standard", "high", "extreme"}
    for fields in model.presets.values():
        I2VGenXL.check(ClipParams(image="x", **fields))


def test_sizes_that_are_no_multiples_are_refused() -> None:
    I2VGenXL.check(ClipParams(image="x", resolution="72x104"))
    with pytest.raises(UnsupportedParams, match=r"nearest: 104x96$"):
        I2VGenXL.check(ClipParams(image="x", resolution="101x99"))


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({}, []),
        ({"num_inference_steps": 49}, ["num_inference_steps"]),
        ({"num_inference_steps": 20, "scheduler": "dpm++-2m"}, []),
        ({"scheduler": "lcm"}, ["scheduler"]),
        ({"num_frames": 17}, ["num_frames"]),
        ({"resolution": "512x520"}, ["resolution"]),
        ({"resolution": "1024x512"}, ["resolution"]),
        ({"prompt": ""}, ["prompt"]),
        ({"prompt": "a boat " * 40}, ["prompt"]),
        ({"negative_prompt": "雾" * 80}, ["negative_prompt"]),
    ],
)
def test_advice(fields: dict[str, Any], about: list[str]) -> None:
    params = ClipParams(**{"image": "x", "prompt": "a boat sails by", **fields})
    assert [advice.field for advice in I2VGenXL.advice(params)] == about


def test_token_estimate() -> None:
    # What the published tokenizer makes of them: 2, 9 and 4 tokens.
    assert estimate_tokens("") == 2
    assert estimate_tokens("Papers were floating in the air.") == 9
    assert estimate_tokens("a cat") == 4


def test_another_dtype_than_it_was_loaded_with_is_refused(model: I2VGenXL, picture: Picture) -> None:
    with pytest.raises(UnsupportedParams, match=r"loaded as float32, got bfloat16; nearest: float32$"):
        model.generate(picture, BASE.replace(dtype="bfloat16"), Progress())


def test_steps_that_cannot_be_made_are_refused_before_any_work(model: I2VGenXL, picture: Picture) -> None:
    heard = Ears()
    with pytest.raises(UnsupportedParams, match=r"^num_inference_steps: .*; nearest: 999$"):
        model.generate(picture, BASE.replace(num_inference_steps=1000), heard)
    assert heard.events == []


# --- progress, preview, Stop


class Ears(Progress):
    """Writes down what it hears; raises `error` at event number `at`."""

    def __init__(self, at: int | None = None, error: BaseException | None = None) -> None:
        self.events: list[Any] = []
        self.at, self.error = at, error
        self.previews: list[np.ndarray] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self._hear((name, total))

    def step(self, preview: Preview | None = None) -> None:
        if preview is not None:
            self.previews.append(preview())
        self._hear("step")

    def _hear(self, event: Any) -> None:
        self.events.append(event)
        if self.error is not None and len(self.events) == self.at:
            raise self.error


ALL = [("encode", 3), *["step"] * 3, ("denoise", 3), *["step"] * 3, ("decode", 3), *["step"] * 3]


def test_stages_steps_and_previews(model: I2VGenXL, picture: Picture) -> None:
    ears = Ears()
    model.generate(picture, BASE, ears)
    assert ears.events == ALL
    assert [shown.shape for shown in ears.previews] == [(3, 8, 12, 3)] * 3
    assert all(shown.dtype == np.uint8 and shown.std() > 0 for shown in ears.previews)


@pytest.mark.parametrize("at", range(1, len(ALL) + 1))
def test_stop_acts_at_every_event_and_leaves_the_model_usable(model: I2VGenXL, picture: Picture, at: int) -> None:
    ears = Ears(at, Stop("enough"))
    with pytest.raises(Stop):
        model.generate(picture, BASE, ears)
    assert ears.events == ALL[:at]
    if at in (3, 6):
        assert model.generate(picture, BASE, Progress()).std() > 0


def test_preview_of_anything() -> None:
    noise = torch.randn(2, 4, 3, 5)
    assert np.abs(preview(noise).astype(int) - preview(4096 * noise)).max() <= 3  # schedulers differ in scale
    assert preview(torch.full((2, 4, 3, 5), torch.nan)).shape == (2, 3, 5, 3)


def test_a_preview_looks_like_the_latents() -> None:
    bright, dark = (torch.tensor(sign * np.array([2.0, 1.0, 0.0, -1.0])).float().view(1, 4, 1, 1) for sign in (1, -1))
    assert preview(bright).min() > preview(dark).max()


# --- failures


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())  # isinstance would ask lazy modules


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), MemoryError()])
def test_out_of_memory_is_told_and_nothing_is_kept(model: I2VGenXL, picture: Picture, error: Exception) -> None:
    before = tensors_alive()
    with pytest.raises(OutOfMemory, match=r"^3 frames of 64x96 in float32 do not fit .*; make fewer frames") as caught:
        model.generate(picture, BASE, (ears := Ears(7, error)))
    error.__traceback__ = None
    ears.previews.clear()
    assert caught.value.__context__ is None
    assert tensors_alive() <= before
    assert model.generate(picture, BASE, Progress()).std() > 0


def test_an_allocation_that_fails_for_true(folder: Path, picture: Picture) -> None:
    code = (
        "import resource, sys\n"
        "from i2v_lab.errors import OutOfMemory\n"
        "from i2v_lab.image import open_picture\n"
        "from i2v_lab.models.i2vgen_xl import I2VGenXL\n"
        "from i2v_lab.params import ClipParams\n"
        "from i2v_lab.progress import Progress\n"
        "model, picture = I2VGenXL.load(sys.argv[1], device='cpu'), open_picture(sys.argv[2])\n"
        "small = ClipParams(image='x', resolution='64x64', num_frames=2, num_inference_steps=1)\n"
        "model.generate(picture, small, Progress())\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "try:\n"
        "    model.generate(picture, small.replace(resolution='1024p', num_frames=32), Progress())\n"
        "except OutOfMemory as error:\n"
        "    print(error)\n"
        "print(model.generate(picture, small, Progress()).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder, picture.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, shape = done.stdout.splitlines()
    assert told.startswith("32 frames of 1024x1024 in float32 do not fit into the memory of cpu")
    assert shape == "(2, 64, 64, 3)"


@pytest.mark.parametrize(
    ("part", "stage"), [("vae.encoder.conv_in", "encode"), ("unet.conv_out", "denoise"), ("vae.decoder.conv_out", "decode")]
)
def test_frames_that_are_not_finite_are_a_failure(copied: Path, picture: Picture, part: str, stage: str) -> None:
    model = I2VGenXL.load(copied)
    with torch.no_grad():
        model.__dict__[part.partition(".")[0]].get_submodule(part.partition(".")[2]).weight.fill_(torch.nan)
    with pytest.raises(BadFrames, match=rf"^{stage}: expected finite numbers, .* use dtype float32 or bfloat16"):
        model.generate(picture, BASE, Progress())


# --- loading


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


def test_load_tells_its_progress(folder: Path) -> None:
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
    ("unet/diffusion_pytorch_model.fp16.safetensors", cut, "the file is cut or damaged; fetch it again"),
    ("unet/diffusion_pytorch_model.fp16.safetensors", drop_tensor, "1 are missing"),
    ("unet/diffusion_pytorch_model.fp16.safetensors", lambda path: path.write_bytes(b""), "expected a safetensors file"),
    ("unet/diffusion_pytorch_model.fp16.safetensors", lambda path: path.write_bytes(b"x" * 5000), "expected a safetensors file"),
    ("text_encoder/model.fp16.safetensors", drop_tensor, "1 are missing"),
    ("text_encoder/model.fp16.safetensors", cut, "the file is cut or damaged"),
    ("text_encoder/model.fp16.safetensors", only_bin, "expected safetensors, got weights that may run code"),
    ("text_encoder/model.fp16.safetensors", Path.unlink, "safetensors: missing"),
    ("tokenizer", shutil.rmtree, "tokenizer/vocab.json and merges.txt, or tokenizer.json: missing"),
    ("tokenizer/merges.txt", Path.unlink, "merges.txt, or tokenizer.json: missing"),
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


def test_without_cache_and_hub_the_command_to_fetch_it_is_told(hub_cache: Path) -> None:
    (hub_cache / "unet" / "config.json").unlink()
    for name in ("ali-vilab/i2vgen-xl", "somebody/else"):
        message = fault(name)
        assert f"hf download {name} --include" in message
        assert "give the path of a folder" in message


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    code = "from i2v_lab.models.i2vgen_xl import I2VGenXL; I2VGenXL.load('ali-vilab/i2vgen-xl')"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("i2v_lab.errors.ModelError: ali-vilab/i2vgen-xl: not in the hub's cache"), done.stderr
    assert "hf download ali-vilab/i2vgen-xl" in last
    assert time.monotonic() - started < 20  # it gives up soon, not after the client's own half minute of trying
