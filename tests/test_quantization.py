"""Weights in 8 bits and in the blocks of GGUF files, compiled blocks, kernels of attention: what they change, and that they leave nothing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import gguf
import numpy as np
import pytest
import torch
from checkpoints import BASE, Ears, folder_fixture, model_fixture, picture_fixture  # noqa: F401
from forecasts import clip, empty_cost_cache
from records import record
from tiny_families import FAMILIES, by_hand, loaded, make_checkpoint, params_for, small_sizes

from i2v_lab import models
from i2v_lab.clip.key import clip_key
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.cost import Forecaster
from i2v_lab.devices.hardware import machine
from i2v_lab.errors import ModelError, ParamsError, Stop, UnsupportedParams
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.kernels import attending
from i2v_lab.models.memory.tiers import bytes_of
from i2v_lab.models.stock.watch import networks
from i2v_lab.store import Store

WAYS = ("int8", "fp8")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with empty_cost_cache(tmp_path_factory.mktemp("cache")), small_sizes():
        yield


@pytest.fixture(scope="module")
def ltx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("ltx-video", tmp_path_factory.mktemp("stock") / "ltx-video")


def rounded(weight: torch.Tensor, how: str) -> torch.Tensor:
    """What a weight becomes, by NumPy for int8, by torch's own cast for fp8."""
    if how == "fp8":
        return weight.to(torch.float8_e4m3fn).to(weight.dtype)
    numbers = weight.numpy().reshape(len(weight), -1)
    scale = np.abs(numbers).max(1, keepdims=True) / np.float32(127)
    return torch.from_numpy((np.rint(numbers / scale) * scale).reshape(weight.shape))


def round_weights(network: torch.nn.Module, how: str, exact: tuple[str, ...] = ()) -> None:
    for name, layer in network.named_modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)) and not any(part in name for part in exact):
            layer.weight.data = rounded(layer.weight.data, how)


@pytest.mark.parametrize("how", WAYS)
def test_frames_are_those_of_a_network_whose_weights_were_rounded_by_hand(how: str, folder: Path, picture: Picture) -> None:
    plain = I2VGenXL.load(folder)
    before = plain.generate(picture, BASE, Progress())
    kept = I2VGenXL.load(folder, quantization=how)
    params = BASE.replace(quantization=how)
    frames = kept.generate(picture, params, Progress())
    assert not np.array_equal(frames, before)
    with pytest.raises(Stop):
        kept.generate(picture, params, Ears(at=7, error=Stop("now")))
    assert np.array_equal(kept.generate(picture, params, Progress()), frames)
    assert np.array_equal(plain.generate(picture, BASE, Progress()), before)  # untouched by the other one in the same process
    round_weights(plain.unet, how, ("norm",) if how == "fp8" else ())
    assert np.array_equal(plain.generate(picture, BASE, Progress()), frames)


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
def test_a_stock_pipeline_is_quantized_alike_and_its_memory_is_predicted(how: str, ltx: Path, picture: Picture) -> None:
    params = params_for("ltx-video", ltx, quantization=how)
    model = loaded("ltx-video", ltx, quantization=how)
    exact = model.pipe.transformer._skip_layerwise_casting_patterns or () if how == "fp8" else ()

    def prepare(pipe: Any) -> None:
        round_weights(pipe.transformer, how, tuple(exact))

    assert np.array_equal(
        model.generate(picture, params, Progress()),
        by_hand(ltx, FAMILIES["ltx-video"], params.replace(quantization="none"), picture, prepare),
    )
    assert_weights_are_predicted(model, params, ltx)


def assert_weights_are_predicted(model: Any, params: ClipParams, at: Path | str) -> None:
    held = sum(map(bytes_of, networks(model.pipe).values()))
    cost = type(model).cost(params, checkpoint=str(at), device="cpu", dtype=model.dtype)
    assert {stage.weights for stage in cost} == {held}
    plain = type(model).cost(params.replace(quantization="none"), checkpoint=str(at), device="cpu", dtype=model.dtype)
    assert plain[1].weights > held or params.quantization is None
    assert plain[1].flops == cost[1].flops


@pytest.mark.parametrize(("how", "dtype"), [("int8", "bfloat16"), ("fp8", "float32")])
def test_the_weights_of_i2vgen_xl_are_predicted_to_the_byte(how: str, dtype: str, folder: Path) -> None:
    model = I2VGenXL.load(folder, quantization=how, dtype=dtype)
    held = sum(bytes_of(getattr(model, name)) for name in ("text_encoder", "image_encoder", "vae", "unet"))
    cost = I2VGenXL.cost(BASE.replace(quantization=how), checkpoint=str(folder), device="cpu", dtype=dtype)
    assert {stage.weights for stage in cost} == {held}
    assert model.unet.dtype == getattr(torch, dtype)


@pytest.mark.slow
def test_a_quantized_clip_is_the_same_in_another_process_which_says_nothing(folder: Path, picture: Picture, tmp_path: Path) -> None:
    """Nor does it import torchao, which is installed here: that takes seconds, and remarks on what it does not find."""
    code = (
        "import sys, hashlib\n"
        "from i2v_lab import models\n"
        "from i2v_lab.clip.params import ClipParams\n"
        "from i2v_lab.clip.picture import open_picture\n"
        "from i2v_lab.clip.progress import Progress\n"
        "from i2v_lab.cost import plan\n"
        "params = ClipParams(**eval(sys.argv[2]))\n"
        "plan(params.replace(model=sys.argv[1], resolution='96x64'), device='cpu')\n"
        "frames = models.open(sys.argv[1], 'cpu', 'float32', 'int8').load().generate(open_picture(sys.argv[3]), params, Progress())\n"
        "assert 'torchao' not in sys.modules\n"
        "print(hashlib.sha256(frames.tobytes()).hexdigest())\n"
    )
    params = BASE.replace(quantization="int8")
    found = subprocess.run(
        [sys.executable, "-c", code, str(folder), repr(params.given()), str(picture.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    frames = I2VGenXL.load(folder, quantization="int8").generate(picture, params, Progress())
    assert found.stdout.strip() == hashlib.sha256(frames.tobytes()).hexdigest()
    assert found.stderr == ""


def test_a_neutral_value_is_no_lever(model: I2VGenXL, picture: Picture) -> None:
    neutral = BASE.replace(quantization="none", backend="torch", compile="none", attention="auto")
    assert neutral.attention == "native"
    assert clip_key(neutral, "0", model) == clip_key(BASE, "0", model)
    assert np.array_equal(model.generate(picture, neutral, Progress()), model.generate(picture, BASE, Progress()))
    keys = {clip_key(BASE.replace(**{name: value}), "0", model) for name, value in
            (("quantization", "int8"), ("quantization", "fp8"), ("compile", "regional"), ("attention", "sage"))}  # fmt: skip
    assert len(keys | {clip_key(BASE, "0", model)}) == 5


def test_a_model_that_is_loaded_is_not_quantized_behind_its_users_back(model: I2VGenXL, picture: Picture) -> None:
    with pytest.raises(UnsupportedParams, match="quantization: this model was loaded with none, got int8; load it again with int8"):
        model.generate(picture, BASE.replace(quantization="int8"), Progress())


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"quantization": "int4"}, "quantization: "), ({"backend": "tpu"}, "backend: "), ({"compile": "all"}, "compile: "),
     ({"attention": "none"}, "attention: ")],
)  # fmt: skip
def test_an_unknown_value_is_one_clear_line(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        ClipParams(image="x", **fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [("closed-form", {"quantization": "int8"}, "quantization: closed-form does not read it"),
     ("closed-form", {"compile": "regional"}, "compile: closed-form does not read it"),
     ("svd", {"attention": "flash"}, "attention: svd does not read it, got 'flash'; leave it out, or choose")],
)  # fmt: skip
def test_a_family_refuses_what_it_does_not_work_with(model: str, fields: dict[str, str], said: str) -> None:
    params = models.resolve(ClipParams(model=model, image="sample:coffee", **fields))
    with pytest.raises(UnsupportedParams, match=said):
        models.find(model)[0].check(params)


# GGUF files


def is_kept_in_blocks(name: str, weight: Any) -> bool:
    """As files of Wan and LTX have it: matrices of linear layers whose rows are made of whole blocks."""
    return name.endswith("weight") and weight.ndim == 2 and weight.shape[1] % 32 == 0


def write_gguf(network: torch.nn.Module, file: Path, kind: str) -> None:
    """A network's weights as a GGUF file: matrices quantized where their rows are made of blocks, everything else in full."""
    format = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(file), "tests")
    for name, tensor in network.state_dict().items():
        numbers = tensor.float().numpy()
        if is_kept_in_blocks(name, numbers):
            writer.add_tensor(name, gguf.quants.quantize(numbers, format), raw_dtype=format)
        else:
            writer.add_tensor(name, numbers)
    close_gguf(writer)


def close_gguf(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def at_home(ltx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the checkpoint of the family is found by its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ltx-video").symlink_to(ltx)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_gguf_file_has_the_weights_of_a_familys_network(kind: str, ltx: Path, at_home: Path, picture: Picture) -> None:
    network = loaded("ltx-video", ltx).pipe.transformer
    file = at_home / "mine.gguf"
    write_gguf(network, file, kind)
    params = params_for("ltx-video", ltx).replace(model="ltx-video:mine.gguf")
    handle = models.open(params.model)
    before = handle.identity.fingerprint
    model = handle.load()

    def prepare(pipe: Any) -> None:
        config = diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32)
        pipe.transformer = diffusers.LTXVideoTransformer3DModel.from_single_file(
            str(file), config=str(ltx / "transformer"), quantization_config=config, torch_dtype=torch.float32
        )

    expected = by_hand(ltx, FAMILIES["ltx-video"], params, picture, prepare)
    assert np.array_equal(model.generate(picture, params, Progress()), expected)
    layers = dict(model.pipe.transformer.named_modules())
    for name, weight in network.named_parameters():
        if is_kept_in_blocks(name, weight):
            numbers = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType[kind])
            whole = gguf.quants.dequantize(numbers, gguf.GGMLQuantizationType[kind])
            np.testing.assert_allclose(
                layers[name.removesuffix(".weight")].weight, whole, rtol=1e-3, atol=1e-6
            )  # diffusers computes it in float16
    assert_weights_are_predicted(model, params, handle.checkpoint)
    network.proj_in.bias.data += 1
    write_gguf(network, file, kind)
    assert models.open(params.model).identity.fingerprint != before


def test_a_wrong_gguf_file_is_one_line(ltx: Path, at_home: Path) -> None:
    network = loaded("ltx-video", ltx).pipe.transformer
    whole = at_home / "whole.gguf"
    write_gguf(network, whole, "Q8_0")
    (at_home / "cut.gguf").write_bytes(whole.read_bytes()[:-5000])
    (at_home / "none.gguf").write_bytes(b"not at all")
    write_gguf(torch.nn.Linear(64, 64), at_home / "other.gguf", "Q8_0")
    odd = gguf.GGUFWriter(
        str(at_home / "odd.gguf"), "tests"
    )  # MXFP4: blocks of 32 numbers in 17 bytes, which diffusers cannot read
    odd.add_tensor("weight", np.zeros((64, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.MXFP4)
    close_gguf(odd)
    for model, said in (
        ("ltx-video:cut.gguf", "cut.gguf: expected a whole GGUF file, got one that is cut or damaged"),
        ("ltx-video:none.gguf", "none.gguf: expected a whole GGUF file"),
        ("ltx-video:other.gguf", "other.gguf: expected the"),
        ("ltx-video:odd.gguf", "odd.gguf: diffusers does not read MXFP4; take a file of BF16, F16, F32, IQ4_NL"),
        ("ltx-video:gone.gguf", "gone.gguf: no such file"),
        ("whole.gguf", "expected a family before a file of weights, such as ltx-video:whole.gguf"),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            models.open(model).load()
        assert "\n" not in str(caught.value)
    params = params_for("ltx-video", ltx).replace(model="ltx-video:whole.gguf", quantization="int8")
    with pytest.raises(UnsupportedParams, match=r"quantization: whole\.gguf is quantized already, got int8; leave it out"):
        models.open(params.model).check(params)


# Compiled blocks, and kernels of attention


@pytest.mark.slow
def test_compiled_blocks_make_nearly_the_same_clip_and_leave_nothing(folder: Path, model: I2VGenXL, picture: Picture) -> None:
    if not model.device.startswith("cpu") or shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    before = model.generate(picture, BASE, Progress())
    params = BASE.replace(compile="regional")
    frames = model.generate(picture, params, Progress())
    assert np.abs(frames.astype(int) - before).max() <= 1
    with pytest.raises(Stop):
        model.generate(picture, params, Ears(at=7, error=Stop("now")))
    assert np.array_equal(model.generate(picture, params, Progress()), frames)
    assert np.array_equal(model.generate(picture, BASE, Progress()), before)


def test_without_a_compiler_compile_is_refused_in_one_line(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import cpp_builder

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "")
    with pytest.raises(
        UnsupportedParams, match=r"compile: torch's compiler needs a C\+\+ compiler; install it, or leave compile out"
    ):
        model.generate(picture, BASE.replace(compile="regional"), Progress())
    with pytest.raises(UnsupportedParams, match="compile: regional does not work with cache pab:2"):
        I2VGenXL.check(BASE.replace(compile="regional", cache="pab:2"))


def test_another_kernel_of_attention_is_used_for_one_run(ltx: Path, picture: Picture) -> None:
    model, params = loaded("ltx-video", ltx), params_for("ltx-video", ltx)
    before = model.generate(picture, params, Progress())
    for name in ("flash", "sage", "xformers"):
        with pytest.raises(UnsupportedParams, match=f"attention: {name} runs on CUDA alone, got cpu; nearest: native"):
            model.generate(picture, params.replace(attention=name), Progress())
    from diffusers.models import attention_dispatch

    calls = []
    with attending("_native_math", "cpu"), pytest.MonkeyPatch.context() as patch:
        registry = attention_dispatch._AttentionBackendRegistry._backends
        true = registry[attention_dispatch.AttentionBackendName._NATIVE_MATH]
        patch.setitem(
            registry, attention_dispatch.AttentionBackendName._NATIVE_MATH, lambda **given: (calls.append(1), true(**given))[1]
        )
        frames = model.generate(picture, params, Progress())
    assert calls
    assert np.abs(frames.astype(int) - before).max() <= 1
    with pytest.raises(UnsupportedParams, match="attention: flash cannot be used here"), attending("flash", "cuda:0"):
        pass
    assert np.array_equal(model.generate(picture, params, Progress()), before)


def test_what_other_code_does_to_the_time_is_a_wide_range_until_it_was_seen_here(folder: Path, tmp_path: Path) -> None:
    store, name = Store(tmp_path), str(machine("cpu")["device_name"])
    plain = clip("64x96 3", model=str(folder))
    params = plain.replace(quantization="int8")
    said = "what quantization int8 does to the time depends on the device"

    def made(params: ClipParams, seconds: float) -> None:
        stages = {"encode": 0.1 * seconds, "denoise": 0.7 * seconds, "decode": 0.1 * seconds, "write": 0.1 * seconds}
        store.save(record(params=params, model_name="i2vgen-xl", device="cpu", device_name=name, dtype="float32",
                          seconds={**stages, "total": seconds}, clip="a.mp4", actual_tier=0))  # fmt: skip

    def planned() -> Any:
        return Forecaster(device="cpu", store=store).plan(params)

    assert planned().time is None
    assert said in planned().sentence()
    made(plain, 8.0)
    wide = planned()
    assert wide.time.low < 4
    assert wide.time.high >= 16
    assert said in wide.sentence()
    made(params, 6.0)
    known = planned()
    assert known.time.expected == 6.0
    assert known.time.high < 8
    assert said not in known.sentence()
