"""The stock families: each of the table, with a tiny checkpoint, against the same pipeline of diffusers called by hand."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from checkpoints import Ears
from PIL import Image
from safetensors.torch import save_file
from tiny_families import PIPELINES, SMALLER, WHOLE, by_hand, loaded, make_checkpoint, params_for, small, small_sizes
from tiny_hunyuan import TARGET

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture, open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.sound import sound_of
from i2v_lab.errors import ModelError, ParamsError, Stop, UnsupportedParams
from i2v_lab.models.stock.families import FAMILIES, crop_sizes
from i2v_lab.models.stock.offload import put_on
from i2v_lab.models.stock.watch import networks
from i2v_lab.run import run_clip
from i2v_lab.store import Store

NAMES = tuple(FAMILIES)
TWINS = ("wan2.1-i2v-720p", "ltx-video-13b", "svd", "hunyuanvideo-1.5-i2v-720p")  # another one runs the same code
ONE_OF_EACH = [pytest.param(name, marks=pytest.mark.slow) if name in TWINS else name for name in NAMES]
FIRST = ("wan2.2-ti2v-5b", "ltx-video", "cogvideox-5b-i2v")  # of these a fast test; of the others a slow one
EACH_BUT_FEW = [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.fixture(scope="module", autouse=True)
def _small_sizes() -> Iterator[None]:
    with small_sizes():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{family: its tiny checkpoint}."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: make_checkpoint(name, root / name) for name in PIPELINES}


@pytest.fixture(scope="module")
def picture() -> Picture:
    return open_picture("sample:coffee")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_clip_is_that_of_the_stock_pipeline_byte_for_byte(name, folders, picture):
    folder, ears = folders[name], Ears()
    params = params_for(name, folder)
    assert models.find(str(folder))[0].name == name
    model = models.open(str(folder)).load()
    before = torch.random.get_rng_state()
    frames = model.generate(picture, params, ears)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(frames, by_hand(folder, FAMILIES[name], params, picture))
    stages = [event for event in ears.events if event != "step"]
    assert [stage for stage, _ in stages] == ["encode", "denoise", "decode"]
    assert dict(stages)["denoise"] == params.num_inference_steps == len(ears.previews)
    assert all(shown.dtype == np.uint8 and shown.ndim == 4 and shown.shape[-1] == 3 for shown in ears.previews)
    assert ears.previews[-1].std() > 5


class StopInside(Progress):
    """Stops at the pulse of this number, counted over the whole run."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.pulses = at, 0

    def pulse(self) -> None:
        self.pulses += 1
        if self.pulses == self.at:
            raise Stop("enough")


@pytest.mark.parametrize("name", EACH_BUT_FEW)
def test_a_stop_inside_a_forward_pass_leaves_the_next_clip_as_it_was(name, folders, picture):
    params, model = params_for(name, folders[name]), loaded(name, folders[name])
    counting = StopInside()
    frames = model.generate(picture, params, counting)
    assert counting.pulses > 10
    for share in (0.3, 0.6, 0.95):
        with pytest.raises(Stop):
            model.generate(picture, params, StopInside(int(counting.pulses * share)))
        np.testing.assert_array_equal(model.generate(picture, params, Progress()), frames)
    assert model.pipe.scheduler is model.own_scheduler
    assert not any(network._forward_pre_hooks for network in networks(model.pipe).values())


@pytest.mark.parametrize("name", EACH_BUT_FEW)
def test_every_tier_gives_the_same_frames_with_a_cpu_in_the_place_of_the_gpu(name, folders, picture):
    params, model = params_for(name, folders[name]), loaded(name, folders[name])
    for network in networks(model.pipe).values():
        for weight in network.parameters():  # mapped from the file, where it lies at odd addresses: a copy, as a tier makes one
            weight.data = weight.data.clone()
    first = model.generate(picture, params, Progress())
    for tier in (*FAMILIES[name].tiers, 0):
        put_on(model.pipe, tier, torch.device("cpu"), offloads=True)
        model.tier = tier
        frames = model.generate(picture, params, Progress())
        if not model.pixel_changes(tier, params):
            np.testing.assert_array_equal(frames, first, err_msg=f"tier {tier}")
        else:
            assert frames.shape == first.shape


@pytest.mark.parametrize("name", EACH_BUT_FEW)
def test_the_schedulers_of_a_family_make_a_clip(name, folders, picture):
    """That they solve the family's equation was measured on an exact denoiser; here: each takes the family's config."""
    model = loaded(name, folders[name])
    for scheduler in FAMILIES[name].scheduler_classes:
        frames = model.generate(picture, params_for(name, folders[name], scheduler=scheduler, num_inference_steps=4), Progress())
        assert frames.std() > 1, scheduler


@pytest.mark.slow
def test_two_processes_make_the_same_clip_and_ffprobe_agrees_with_it(folders, i2v_lab, tmp_path):
    name = "wan2.2-ti2v-5b"
    command = ["generate", "--model", folders[name], "--image", "sample:coffee", "--prompt", "a boat sails by", "--json"]
    command += ["--resolution", "64x96", "--num-frames", "9", "--num-inference-steps", "2", "--force"]
    records = [json.loads(i2v_lab(*command).stdout) for _ in range(2)]
    assert records[0]["status"] == "done", records[0]["reason"]
    assert records[0]["frames_sha256"] == records[1]["frames_sha256"]
    assert records[0]["model_name"] == name
    assert records[0]["params"]["guidance_scale"] == 5.0  # the family's default
    assert records[0]["params"]["negative_prompt"].startswith("色调艳丽")
    probed = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", records[0]["clip"]],
        capture_output=True,
        check=True,
    )
    stream = json.loads(probed.stdout)["streams"][0]
    assert (stream["width"], stream["height"], stream["nb_read_frames"], stream["r_frame_rate"]) == (96, 64, "9", "24/1")


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("wan2.2-ti2v-5b", {"num_frames": 10}, "num_frames: wan2.2-ti2v-5b makes 4k+1 frames, 5 to 121, got 10; nearest: 9"),
        ("wan2.2-ti2v-5b", {"resolution": "48x80"}, "expected sides of 64"),
        ("wan2.2-ti2v-5b", {"resolution": "80x96"}, "multiples of 32 pixels, got 80x96; nearest: 64x96"),
        ("ltx-video", {"num_frames": 12}, "8k+1 frames, 9 to 257, got 12; nearest: 9"),
        ("cogvideox1.5-5b-i2v", {"scheduler": "lcm"}, "scheduler: cogvideox1.5-5b-i2v works with ddim, dpm++-2m"),
        ("svd-xt", {"prompt": "zoom in"}, "prompt: svd-xt does not read it, got 'zoom in'; leave it out, or choose any model but svd, svd-xt"),
        ("svd-xt", {"num_frames": 26}, "num_frames: svd-xt makes 2 to 25 frames, got 26; nearest: 25"),
        ("svd", {"flow_shift": 3.0}, "choose a model that does: wan2.2-ti2v-5b, wan2.2-i2v-a14b"),
        ("wan2.1-i2v-480p", {"guidance_scale_2": 3.0}, "choose a model that does: wan2.2-i2v-a14b"),
        ("wan2.1-i2v-480p", {"resolution": "256p"}, "resolution: wan2.1-i2v-480p has 480p, 720p, auto and HEIGHTxWIDTH, got 256p"),
        ("wan2.1-i2v-480p", {"seconds": 3}, "seconds: expected seconds or num_frames, got both"),
    ],
)  # fmt: skip
def test_what_a_family_cannot_make_is_one_clear_line(name, fields, said, folders):
    with pytest.raises((UnsupportedParams, ParamsError)) as found:
        models.find(str(folders[name]))[0].check(params_for(name, folders[name], **fields))
    assert said in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        ("wan2.2-i2v-a14b", {}, {"num_frames": 81, "fps": 16, "guidance_scale_2": 3.5, "scheduler": "unipc", "resolution": "784x1184"}),
        ("wan2.2-i2v-a14b", {"resolution": "480p"}, {"resolution": "480x832"}),
        ("wan2.2-ti2v-5b", {"seconds": 3}, {"num_frames": 73}),
        ("ltx-video", {"seconds": 3, "fps": 24}, {"num_frames": 73, "fps": 24}),
        ("cogvideox-5b-i2v", {"seconds": 3}, {"num_frames": 25, "scheduler": "ddim"}),
        ("svd-xt", {"seconds": 60}, {"num_frames": 25, "motion_bucket_id": 127}),
        ("closed-form", {"seconds": 3}, {"num_frames": 24, "resolution": "512p"}),
        ("i2vgen-xl", {"seed": 3}, {"num_frames": 16, "condition_fps": 16, "guidance_scale": 9.0}),
    ],
)  # fmt: skip
def test_what_is_not_given_is_the_default_of_the_family(model, fields, expected):
    params = models.resolve(ClipParams(model=model, image="sample:coffee", **fields))
    plain = params.plain()
    assert {name: plain[name] for name in expected} == expected
    assert models.resolve(params) == params
    models.find(model)[0].check(params)


@pytest.mark.parametrize("model", ["closed-form", "i2vgen-xl", *NAMES])
def test_auto_and_named_sizes_follow_the_picture(model, tmp_path, monkeypatch):
    if model in SMALLER:
        monkeypatch.setitem(FAMILIES, model, WHOLE[model])
    kind = models.family(model)
    for width, height in ((900, 1600), (1600, 900), (1000, 1000), (300, 2000)):
        path = tmp_path / f"{width}.png"
        Image.new("RGB", (width, height)).save(path)
        params = models.resolve(ClipParams(model=model, image=str(path), resolution="auto"))
        kind.check(params)
        if len(kind.only_sizes) != 1:
            assert params.height * params.width == pytest.approx(np.prod(kind.native_size), rel=0.2)
            assert (params.height > params.width) == (height > width) or width == height
            seen = min(max(height / width, 1 / 3), 3)
            assert params.height / params.width == pytest.approx(seen, rel=0.15)
            for name in kind.sizes:
                named = models.resolve(ClipParams(model=model, image=str(path), resolution=name))
                kind.check(named)
                assert named.height >= named.width or width >= height


@pytest.mark.parametrize("area", [640, 960, TARGET])
def test_the_sizes_of_hunyuanvideo_1_5_are_those_that_its_pipeline_keeps(area):
    from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor, generate_crop_size_list

    made = HunyuanVideo15ImageProcessor().calculate_default_height_width
    assert list(crop_sizes(area)) == [size for size in generate_crop_size_list(area, 16) if made(*size, area) == size]


def test_a_drawn_seed_is_recorded(tmp_path):
    drawn = {models.resolve(ClipParams(image="sample:coffee", seed=-1)).seed for _ in range(5)}
    assert len(drawn) == 5
    assert all(seed >= 0 for seed in drawn)


def test_a_family_is_added_by_an_entry_alone(monkeypatch, tmp_path, picture):
    """SkyReels-V2, which the table does not have: its pipeline is Wan's with another class."""
    from tiny_families import wan_21

    wan = FAMILIES["wan2.1-i2v-480p"]
    entry = dataclasses.replace(
        wan, name="skyreels-v2", hub="Skywork/SkyReels-V2-I2V-14B-540P-Diffusers", pipeline="SkyReelsV2ImageToVideoPipeline",
        indexed=(), native_size=(544, 960), sizes={"540p": (544, 960)},
    )  # fmt: skip
    monkeypatch.setitem(FAMILIES, entry.name, entry)
    parts = dict(wan_21(3.0).components)
    parts["transformer"] = diffusers.SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16, text_dim=32, freq_dim=256,
        ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32, image_dim=4,
    )  # fmt: skip
    known = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler", "image_encoder", "image_processor")
    diffusers.SkyReelsV2ImageToVideoPipeline(**{name: parts[name] for name in known}).save_pretrained(tmp_path / "skyreels")
    params = models.resolve(ClipParams(model=str(tmp_path / "skyreels"), image="sample:coffee", **small("wan")))
    model = models.open(params.model).load()
    assert model.name == "skyreels-v2"
    np.testing.assert_array_equal(
        model.generate(picture, params, Progress()), by_hand(tmp_path / "skyreels", entry, params, picture)
    )


def test_the_sound_of_ltx_2_is_that_of_the_stock_pipeline(folders, picture):
    params = params_for("ltx-2", folders["ltx-2"])
    frames = models.open(params.model).load().generate(picture, params, Progress())
    heard: list[Any] = []

    def listen(pipe: Any) -> None:
        pipe.vocoder.register_forward_hook(lambda module, given, made: heard.append(made[0].numpy()))

    np.testing.assert_array_equal(frames, by_hand(folders["ltx-2"], FAMILIES["ltx-2"], params, picture, listen))
    sound = sound_of(frames)
    assert sound is not None
    assert (sound.rate, sound.fps, sound.samples.shape) == (16000, 24, (2, 9 * 16000 // 24))
    count = min(heard[0].shape[1], 6000)
    np.testing.assert_array_equal(sound.samples[:, :count], heard[0][:, :count])
    assert sound.samples[:, :count].std() > 0.01


@pytest.mark.slow
def test_framepack_makes_two_sections(folders, picture):
    params, ears = params_for("framepack", folders["framepack"], num_frames=73), Ears()
    frames = models.open(params.model).load().generate(picture, params, ears)
    assert frames.shape == (73, 64, 64, 3)
    stages = [stage for stage, _ in (event for event in ears.events if event != "step")]
    assert stages == ["encode", *["denoise", "decode"] * 2]
    assert len(ears.previews) == 2 * params.num_inference_steps


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def change_index(folder: Path, **fields: Any) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **fields}))


def rename(folder: Path, pipeline: str) -> None:
    change_index(folder, _class_name=pipeline)


def foreign(folder: Path) -> None:
    change_index(folder, vae=["os", "system"])


FAULTS = [
    ("wan2.1-i2v-480p", lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer"),
    ("ltx-video", lambda folder: (folder / "vae" / "config.json").unlink(), "vae/config.json: missing"),
    ("svd", lambda folder: cut(next((folder / "unet").glob("*.safetensors"))), "cut or damaged"),
    ("svd", lambda folder: rename(folder, "StableDiffusionPipeline"), "got StableDiffusionPipeline"),
    ("cogvideox1.5-5b-i2v", foreign, "expected classes of diffusers and transformers"),
]


@pytest.mark.parametrize(("name", "harm", "said"), FAULTS)
def test_a_damaged_checkpoint_is_one_clear_line(name, harm, said, folders, tmp_path):
    folder = tmp_path / name
    shutil.copytree(folders[name], folder)
    harm(folder)
    with pytest.raises(ModelError) as found:
        models.open(str(folder)).load()
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_the_table_is_read_without_torch():
    code = "import sys; import i2v_lab.models.registry as r; assert len(r.LISTED) > 8; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_network_of_a_family_may_come_from_a_file_of_its_authors(folders, picture, tmp_path, monkeypatch):
    """The weights of LTX's network under the names that its authors give them; the rest from the family's checkpoint."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders["ltx-video"], tmp_path / "checkpoints" / "ltx-video")
    whole = models.open("ltx-video").load()
    params = params_for("ltx-video", Path("ltx-video"))
    expected = whole.generate(picture, params, Progress())
    names = {"proj_in": "patchify_proj", "time_embed": "adaln_single", "norm_q": "q_norm", "norm_k": "k_norm"}
    weights = {}
    for name, weight in whole.pipe.transformer.state_dict().items():
        theirs = functools.reduce(lambda text, pair: text.replace(*pair), names.items(), name)
        weights[f"model.diffusion_model.{theirs}"] = weight.clone()
    save_file(weights, tmp_path / "mine.safetensors")
    (tmp_path / "checkpoints" / "ltx-video" / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    handle = models.open("ltx-video:mine.safetensors")
    before = handle.identity.fingerprint
    np.testing.assert_array_equal(handle.load().generate(picture, params, Progress()), expected)
    weights["model.diffusion_model.patchify_proj.bias"] += 1
    save_file(weights, tmp_path / "mine.safetensors")
    assert models.open("ltx-video:mine.safetensors").identity.fingerprint != before
    for wrong, said in (("mine.safetensors", "such as ltx-video:mine.safetensors"), ("ltx-video:no.safetensors", "no such file")):
        with pytest.raises(ModelError, match=said):
            models.open(wrong).load()
    save_file({"nothing": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors: expected the"):
        models.open("ltx-video:other.safetensors").load()


@pytest.mark.slow
def test_the_number_of_threads_is_recorded_where_it_changes_pixels(folders, tmp_path):
    store = Store(tmp_path / "results")
    records = {name: run_clip(ClipParams(model=str(folders[name]), image="sample:coffee", **small(name)), None, store)
               for name in ("svd", "ltx-video")}  # fmt: skip
    assert records["svd"].versions["CPU threads"] == str(torch.get_num_threads())
    assert "CPU threads" not in records["ltx-video"].versions
