"""Scripts of clips: run where i2v_lab cannot be imported, they make the frames of the clip again, byte for byte."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
from checkpoints import make_checkpoint as make_i2vgen_xl
from commands import complaint
from PIL import Image
from tiny_families import PIPELINES, make_checkpoint, small, small_sizes

from i2v_lab import models
from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import ClipError, ModelError, PictureError
from i2v_lab.models.stock.families import FAMILIES
from i2v_lab.run import run_clip, script_of
from i2v_lab.run.script import script_for
from i2v_lab.settings import Settings
from i2v_lab.store import Store

HOSTILE = "\"\"\" ''' \\ \\N{x} {seed} $seed ${seed} %s \n# Note\r\u2028\u202e\x00 雪 'quoted\" \\"
XL = {
    "prompt": "a boat sails by",
    "negative_prompt": "blurred",
    "resolution": "64x96",
    "num_frames": 3,
    "num_inference_steps": 4,
    "seed": 5,
}
# {name of a clip: (family, fields)}
CLIPS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, small(name)) for name in PIPELINES},
    "hostile": ("wan2.2-ti2v-5b", small("wan", prompt=HOSTILE, negative_prompt="'''\\", scheduler="dpm++-2m", flow_shift=3.0)),
    "tiled": ("svd", small("svd")),
    "xl": ("i2vgen-xl", XL),
    "xl-plain": ("i2vgen-xl", {**XL, "guidance_scale": 1, "scheduler": "euler-a", "resolution": "96x64"}),
    "xl-lcm": ("i2vgen-xl", {**XL, "scheduler": "lcm", "prompt": HOSTILE}),
    "xl-tiled": ("i2vgen-xl", {**XL, "scheduler": "heun", "resolution": "64x264", "num_frames": 2}),
}
TILED = ("tiled", "xl-tiled")


@pytest.fixture(scope="module", autouse=True)
def _small_sizes() -> Iterator[None]:
    with small_sizes():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a family. That of wan2.1-i2v-480p says what published ones say of their classes."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(name: str) -> Path:
        path = root / f"tiny-{name}"  # not as a family is called: a clip that names that means the published checkpoint
        if not path.exists():
            make_i2vgen_xl(path) if name == "i2vgen-xl" else make_checkpoint(name, path)
        if name == "wan2.1-i2v-480p":
            index = json.loads((path / "model_index.json").read_text())
            index |= {"_class_name": "WanPipeline", "image_processor": ["transformers", "CLIPImageProcessor"]}
            (path / "model_index.json").write_text(json.dumps(index))
        return path

    return folder


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph with transparent parts, which lies on its side."""
    path = tmp_path_factory.mktemp("picture") / "a \"b\" '雪'.png"
    image = Image.fromarray(open_picture("sample:coffee").rgb).resize((300, 200)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def made(folders: Any, turned: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[RunRecord, str]]:
    """The record of a clip of CLIPS, and its script; made once."""
    store, found = Store(tmp_path_factory.mktemp("results")), {}

    def make(name: str) -> tuple[RunRecord, str]:
        if name not in found:
            family, fields = CLIPS[name]
            params = ClipParams(model=str(folders(family)), image=str(turned), **fields)
            record = run_clip(params, None, store, settings=Settings(), tier=5 if name in TILED else 0)
            assert record.status == "done", record.reason
            found[name] = record, script_of(store.directory / record.clip, store)
        return found[name]

    return make


# Runs scripts one after the other in one process, each as `python script.py` would, with the frames that it says it made.
RUNNER = """
import contextlib, io, json, runpy, sys, warnings
from diffusers.utils import logging
logging.disable_progress_bar()
found = {}
for path in sys.argv[1:]:
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        frames = runpy.run_path(path, run_name="__main__")["frames"]
    found[path] = told.getvalue().splitlines(), frames.shape
assert not [name for name in sys.modules if name.startswith("i2v_lab")]
print(json.dumps(found))
"""


def run_scripts(folder: Path, scripts: dict[str, str]) -> dict[str, Any]:
    """{name: (what it printed, shape of its frames)}, of scripts that run in a folder where i2v_lab cannot be imported."""
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    blocked = folder / "blocked" / "i2v_lab"  # the package is installed here for development: this one comes first
    blocked.mkdir(parents=True, exist_ok=True)
    (blocked / "__init__.py").write_text("raise ImportError('a script imports i2v_lab')")
    variables = {**os.environ, "PYTHONPATH": str(blocked.parent), "HF_HUB_OFFLINE": "1"}
    names = [f"{name}.py" for name in scripts]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *names], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[f"{name}.py"] for name in scripts}


FAST = ("hostile",)


def check(names: Sequence[str], made: Any, folder: Path) -> None:
    """Run the scripts of clips, and compare what they made with the clips."""
    clips = {name: made(name) for name in names}
    found = run_scripts(folder, {name: script for name, (_, script) in clips.items()})
    for name, (record, script) in clips.items():
        printed, shape = found[name]
        assert printed[-2:] == [f"frames {record.frames_sha256}", "equal to those of the clip"], name
        assert shape == [record.params.num_frames, record.params.height, record.params.width, 3]
        assert "i2v_lab" not in "".join(line for line in script.splitlines() if not line.startswith("#"))
        probed = video.probe(folder / f"{Path(record.clip).stem}_again.mp4")
        assert (probed.frames, probed.height, probed.width, probed.fps) == (*shape[:3], record.params.fps), name


@pytest.mark.slow
def test_a_script_makes_the_frames_of_its_clip_byte_for_byte(made, tmp_path):
    check(FAST, made, tmp_path)


@pytest.mark.slow
def test_so_do_those_of_all_families(made, tmp_path):
    check([name for name in CLIPS if name not in FAST], made, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PIPELINES, "xl", "hostile"])
def test_a_script_in_a_process_of_its_own_makes_the_frames_of_its_clip(name, made, tmp_path):
    record, script = made(name)
    assert run_scripts(tmp_path, {"script": script})["script"][0][-1] == "equal to those of the clip", record.clip


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.0, 9.0])
def test_every_scheduler_of_i2vgen_xl(guidance, folders, tmp_path):
    store, scripts = Store(tmp_path / "results"), {}
    for scheduler in models.family("i2vgen-xl").schedulers:
        fields = {**XL, "scheduler": scheduler, "guidance_scale": guidance, "num_inference_steps": 5}
        params = ClipParams(model=str(folders("i2vgen-xl")), image="sample:cat", **fields)
        record = run_clip(params, None, store, settings=Settings())
        scripts[scheduler] = script_of(store.directory / record.clip, store)
    assert {printed[-1] for printed, _ in run_scripts(tmp_path, scripts).values()} == {"equal to those of the clip"}


@pytest.mark.slow
def test_every_scheduler_of_the_stock_families(folders, tmp_path):
    store, scripts = Store(tmp_path / "results"), {}
    for name in ("wan2.2-ti2v-5b", "cogvideox1.5-5b-i2v"):
        for scheduler in FAMILIES[name].scheduler_classes:
            fields = small(name, scheduler=scheduler, num_inference_steps=4)
            record = run_clip(ClipParams(model=str(folders(name)), image="sample:cat", **fields), None, store, settings=Settings())
            scripts[f"{name}-{scheduler}"] = script_of(store.directory / record.clip, store)
    assert {printed[-1] for printed, _ in run_scripts(tmp_path, scripts).values()} == {"equal to those of the clip"}


@pytest.mark.slow
def test_weights_of_the_network_from_a_file(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders("ltx-video"), tmp_path / "checkpoints" / "ltx-video")
    weights = next((tmp_path / "checkpoints" / "ltx-video" / "transformer").glob("*.safetensors"))
    weights.rename(tmp_path / "it's mine.safetensors")
    store = Store(tmp_path / "results")
    params = ClipParams(model="ltx-video:it's mine.safetensors", image="sample:cat", **small("ltx"))
    record = run_clip(params, None, store, settings=Settings())
    assert record.status == "done", record.reason
    script = script_of(store.directory / record.clip, store)
    assert "# Note" not in script
    assert run_scripts(tmp_path, {"script": script})["script"][0][-1] == "equal to those of the clip"


@pytest.mark.slow
def test_what_comes_from_a_clip_is_text_in_the_script_and_nothing_else(made):
    for name in ("hostile", "xl-lcm"):
        record, script = made(name)
        assert script.isascii() or all(line.isprintable() for line in script.splitlines())
        tree = ast.parse(script)
        literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert record.params.prompt in literals
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        plain = {ast.unparse(node.func) for node in ast.walk(ast.parse(made("xl" if name == "xl-lcm" else "wan2.2-ti2v-5b")[1]))
                 if isinstance(node, ast.Call)}  # fmt: skip
        assert calls - plain <= {"DPMSolverMultistepScheduler", "LCMScheduler"}


def test_a_record_that_lies_reaches_no_line_of_code(made, tmp_path):
    record, _ = made("svd")
    evil = "x'\nimport os; os.system('touch pwned')\n'"
    carried = {"frames_sha256": evil, "versions": {"torch": evil, evil: "1", "CPU threads": evil}, "device": evil, "dtype": evil, "actual_tier": evil,
               "cpu_capability": evil, "model_fingerprint": evil}  # fmt: skip
    text = script_for(record.params, carried, name=f"{evil}.mp4").text
    assert "os" not in {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert "dtype=torch.float32," in text


@pytest.mark.parametrize(
    ("carried", "expected"),
    [
        ({"device": "cuda:0", "dtype": "bfloat16", "actual_tier": 3}, ['"default": torch.bfloat16, "vae": torch.float32', 'pipe.to("cuda")',
                                                                      "(the clip was made so): pipe.enable_model_cpu_offload()"]),
        ({"device": "cuda:0", "dtype": "bfloat16", "actual_tier": 4}, ["(the clip was made so): pipe.enable_group_offload("]),
        ({"device": "cuda:0", "dtype": "bfloat16", "actual_tier": 5}, ["\npipe.vae.enable_tiling()"]),
        ({"device": "cpu", "dtype": "float32", "versions": {"CPU threads": "4"}}, ["\ntorch.set_num_threads(4)  #", "dtype=torch.float32,"]),
    ],
)  # fmt: skip
def test_a_script_says_how_the_clip_was_made(carried, expected, made):
    record, _ = made("wan2.1-i2v-480p")
    text = script_for(record.params, carried, name="clip.mp4").text
    assert [part for part in expected if part not in text] == []
    ast.parse(text)


def test_loras_are_loaded_with_their_weights(made):
    record, _ = made("wan2.1-i2v-480p")
    text = script_for(record.params.replace(lora="a's.safetensors:0.8, owner/name"), {}, name="clip.mp4").text
    assert """pipe.load_lora_weights("a's.safetensors", adapter_name='i2v_0')""" in text
    assert "pipe.transformer.set_adapters(['i2v_0', 'i2v_1'], [0.8, 1.0])" in text


def test_a_clip_with_a_lever_has_no_script(made):
    record, _ = made("wan2.1-i2v-480p")
    with pytest.raises(ClipError, match=r"clip.mp4: it was made with guidance_interval and cache, which i2v_lab does itself"):
        script_for(record.params.replace(guidance_interval="0-0.5", cache="pab:2"), {}, name="clip.mp4")
    assert script_for(record.params.replace(guidance_interval="0-1"), {}, name="clip.mp4").text


def test_another_checkpoint_than_the_clips_is_remarked(made, folders, tmp_path):
    record, text = made("svd")
    assert "# Note" not in text
    script = script_for(record.params.replace(model=str(folders("svd-xt"))), dict(record), name="clip.mp4")
    assert "not the one that the clip was made with" in script.notes[0]
    assert f"# Note: {script.notes[0]}" in script.text
    small_files = tmp_path / "configs"
    shutil.copytree(folders("svd"), small_files, ignore=shutil.ignore_patterns("*.safetensors"))
    script = script_for(record.params.replace(model=str(small_files)), dict(record), name="clip.mp4")
    assert "not on this machine" in script.notes[0]
    with pytest.raises(ModelError, match=r"hf download .* --include '\*.json'"):
        script_for(record.params.replace(model="svd"), dict(record), name="clip.mp4")


def test_a_damaged_scheduler_is_one_line(made, folders, tmp_path):
    folder = tmp_path / "svd"
    shutil.copytree(folders("svd"), folder)
    index = (folder / "model_index.json").read_text()
    params = made("svd")[0].params.replace(model=str(folder))
    (folder / "model_index.json").write_text(index.replace("EulerDiscreteScheduler", "NoScheduler"))
    with pytest.raises(ModelError, match="svd/scheduler: cannot be read"):
        script_for(params, {}, name="clip.mp4")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelError, match=r"scheduler_config\.json: missing"):
        script_for(params, {}, name="clip.mp4")


def jpeg(mode: str, **options: Any) -> bytes:
    return pictures.encode(pictures.blocks(mode), "JPEG", quality=95, **options)


PICTURES: dict[str, Callable[[], bytes]] = {
    **{f"turned {way} {kind}": partial(pictures.oriented, kind, way) for way in (1, 3, 6, 7) for kind in ("JPEG", "PNG", "TIFF", "WEBP")},
    "HEIC": pictures.heic, "HEIC turned": partial(pictures.oriented, "HEIF", 6), "HEIC of 10 bits": partial(pictures.heic, bits=10),
    "CMYK": partial(jpeg, "CMYK"), "grey": partial(jpeg, "L"), "16 bits RGB": pictures.grey16_rgb,
    "profile": partial(jpeg, "RGB", icc_profile=pictures.swapped_profile()),
    "sRGB profile": partial(jpeg, "RGB", icc_profile=pictures.srgb_profile()),
    "alpha": lambda: pictures.encode(pictures.with_alpha(), "PNG"),
    "alpha and profile": lambda: pictures.encode(pictures.with_alpha(), "PNG", icc_profile=pictures.swapped_profile()),
    "grey alpha": lambda: pictures.encode(pictures.with_alpha().convert("LA"), "PNG"),
    "palette": partial(pictures.palette, kind="PNG"), "transparent palette": partial(pictures.palette, kind="PNG", transparency=0),
    "GIF": partial(pictures.animation, "GIF"), "MPO": partial(pictures.animation, "MPO"), "WEBP": partial(pictures.animation, "WEBP"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_opened_as_the_clip_had_it(kind, made, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(PICTURES[kind]())
    text = script_for(made("svd")[0].params.replace(image=str(path), resolution="64x128"), {}, name="clip.mp4").text
    code, space = text[text.index("import hashlib") : text.index("# The pipeline")], {}
    exec(code, space)  # noqa: S102 - it is what is tested
    np.testing.assert_array_equal(np.asarray(space["picture"]), open_picture(path).crop(64, 128))


@pytest.mark.parametrize("make", [pictures.white_is_zero, lambda: pictures.key16(pictures.RAMP16)])
def test_a_picture_that_takes_more_than_pillow_is_refused(make, made, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(make())
    with pytest.raises(PictureError, match=r"16-bit values brought to 8 bits.*save it as PNG") as found:
        script_for(made("svd")[0].params.replace(image=str(path)), {}, name="clip.mp4")
    assert "\n" not in str(found.value)


def test_the_command_prints_the_script_and_nothing_else(made, inside, tmp_path, folders):
    record, _ = made("svd")
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    carried = {"params": {**record.params.plain(), "model": "gone"}, "record": json.loads(record.model_dump_json())}
    clip = video.write(frames, tmp_path, stem="sent", fps=Fraction(7), settings=carried).path
    assert "--model" in complaint(inside("code", clip, "--image", record.params.image), code=1)
    done = inside("code", clip, "--image", record.params.image, "--model", folders("svd"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == script_of(clip, None, record.params.image, str(folders("svd")))


@pytest.mark.parametrize("model", ["closed-form", "fake"])
def test_a_model_without_a_pipeline_is_one_line(model, inside, tmp_path):
    params = {"image": "sample:coffee", "model": model}
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    carried = {"params": params, "record": {"image_sha256": open_picture("sample:coffee").sha256}}
    clip = video.write(frames, tmp_path, stem="own", fps=Fraction(8), settings=carried).path
    assert f"own.mp4: {model} is a model of i2v_lab itself" in complaint(inside("code", clip), code=2)
    with pytest.raises(ClipError, match="no script"):
        script_of(clip)
