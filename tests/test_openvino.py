"""OpenVINO in the place of torch: what it gives, what it keeps on disk, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BASE, Ears, folder_fixture, model_fixture, picture_fixture  # noqa: F401
from conftest import finish, start
from tiny_families import loaded, make_checkpoint, params_for, small_sizes

from i2v_lab.clip.key import clip_key
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.cost import Forecaster
from i2v_lab.errors import InputError, ModelError, Stop, UnsupportedParams
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.levers import in_place
from i2v_lab.models.memory.tiers import bytes_of
from i2v_lab.models.openvino import library, store
from i2v_lab.models.openvino.convert import Call
from i2v_lab.models.openvino.export import export_model, opened
from i2v_lab.models.openvino.runner import Conversions, StandIn, forget

OPENVINO = BASE.replace(backend="openvino")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, small_sizes():
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return tmp_path / "own" / "i2v_lab" / "openvino"


class Small(torch.nn.Module):
    """A network that is converted in a moment."""

    def __init__(self, twist: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(8, 4)
            torch.nn.init.normal_(self.layer.weight, std=twist)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool = True) -> Any:
        made = torch.tanh(self.layer(sample)) * (1 + timestep)
        return made if return_dict else (made,)


def stand_in(
    network: torch.nn.Module, progress: Progress | None = None, decides: str = "small", kept: Conversions | None = None
) -> StandIn:
    return StandIn("unet", network, kept or Conversions([decides], False), rows=True, progress=progress or Progress(),
                   stage=("denoise", 3))  # fmt: skip


GIVEN = torch.linspace(-1, 1, 16).reshape(2, 8), torch.tensor(3)


def difference(made: np.ndarray, wanted: np.ndarray) -> int:
    return int(np.abs(made.astype(int) - wanted).max())


def relative(made: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((made - wanted).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt()).detach())


@pytest.mark.slow
def test_a_clip_is_that_of_torch_within_one_grey_level_and_leaves_nothing_behind(model: I2VGenXL, picture: Picture) -> None:
    plain = model.generate(picture, BASE, Progress())
    heard = Ears()
    made = model.generate(picture, OPENVINO, heard)
    assert difference(made, plain) <= 1
    assert ("convert", None) in heard.events
    again = Ears()
    assert np.array_equal(model.generate(picture, OPENVINO, again), made)
    assert ("convert", None) not in again.events
    fewer = model.generate(picture, OPENVINO.replace(guidance_scale=1.0, cache="taylor:2"), again)
    assert difference(fewer, model.generate(picture, BASE.replace(guidance_scale=1.0, cache="taylor:2"), Progress())) <= 1
    assert ("convert", None) not in again.events  # one shape, with and without guidance
    with pytest.raises(Stop):
        model.generate(picture, OPENVINO, Ears(at=7, error=Stop("now")))
    assert np.array_equal(model.generate(picture, BASE, Progress()), plain)
    assert clip_key(OPENVINO, "0", model) != clip_key(BASE, "0", model)
    assert clip_key(BASE.replace(backend="torch"), "0", model) == clip_key(BASE, "0", model)


def test_one_forward_pass_is_that_of_torch(own_cache: Path) -> None:
    network = Small()
    work = stand_in(network)
    (made,) = work(*GIVEN, return_dict=False)
    assert relative(made, network(*GIVEN)) < 1e-4
    assert relative(work(GIVEN[0], GIVEN[1].float()), network(*GIVEN)) < 1e-4  # a time in whole numbers or not
    assert [path.name for path in own_cache.glob("*/unet-*/*.xml")] == ["model.xml"] * 2  # as a tuple, and not


def test_what_is_kept_is_used_and_what_is_not_whole_is_made_again(own_cache: Path) -> None:
    network = Small()
    wanted = stand_in(network)(*GIVEN)
    forget()
    heard = Ears()
    assert torch.equal(stand_in(network, heard)(*GIVEN), wanted)
    assert heard.events == [("load", None), ("denoise", 3)]
    (weights,) = own_cache.glob("*/*/model.bin")
    os.truncate(weights, weights.stat().st_size // 2)
    forget()
    assert torch.equal(stand_in(network, heard)(*GIVEN), wanted)
    assert ("convert", None) in heard.events
    assert len(list(own_cache.glob("*/*"))) == 1
    forget()
    other = Small(twist=2.0)
    assert relative(stand_in(other, decides="other")(*GIVEN), other(*GIVEN)) < 1e-4
    assert store.clear() > 0
    assert store.size() == 0


@pytest.mark.parametrize("error", [Stop("now"), KeyboardInterrupt()])
def test_a_conversion_that_is_stopped_leaves_nothing(error: BaseException, own_cache: Path) -> None:
    def write(place: Path) -> dict[str, Any]:
        (place / "model.xml").write_text("half")
        raise error

    with pytest.raises(type(error)):
        store.keep(own_cache / "key" / "unet", write)
    assert list((own_cache / "key").iterdir()) == []
    assert store.whole(own_cache / "key" / "unet") is None


def test_what_a_killed_process_left_is_removed_after_a_day(own_cache: Path) -> None:
    for name, age in (("old", 2 * store.OLD), ("new", 60)):
        (left := own_cache / "key" / f".{name}.part").mkdir(parents=True)
        when = left.stat().st_mtime - age
        os.utime(left, (when, when))
    store.keep(own_cache / "key" / "unet", lambda place: {})
    assert {path.name for path in (own_cache / "key").iterdir()} == {".new.part", "unet"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cache": "pab:2"}, r"cache: with backend openvino expected deep, taylor, got pab:2; nearest: deep:3"),
        ({"dtype": "bfloat16"}, r"dtype: with backend openvino expected float32, got bfloat16; nearest: float32"),
        ({"quantization": "fp8"}, r"quantization: .* got fp8; nearest: int8"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedParams, match=said) as caught:
        I2VGenXL.check(OPENVINO.replace(**change))
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_here_and_a_package_that_is_not_installed(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UnsupportedParams, match=r"backend: expected a device that OpenVINO sees here .* got openvino-npu; nearest: openvino"
    ):
        model.generate(picture, OPENVINO.replace(backend="openvino-npu"), Progress())
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"openvino, which is not installed: pip install 'i2v_lab\[intel\]'; or use backend torch"):
        library.check_here(OPENVINO, "cpu")
    with pytest.raises(UnsupportedParams, match="backend: openvino takes the weights from the CPU, got device cuda:0"):
        library.check_here(OPENVINO, "cuda:0")
    library.check_here(BASE, "cuda:0")


def test_the_plan_counts_the_converted_weights_and_says_what_it_leaves_out(model: I2VGenXL, folder: Path) -> None:
    def weights(**change: str) -> int:
        stages = I2VGenXL.cost(BASE.replace(**change), checkpoint=str(folder), device="cpu", dtype="float32")
        return {stage.stage: stage.weights for stage in stages}["denoise"]

    unet, vae = bytes_of(model.unet), bytes_of(model.vae)
    assert weights(backend="openvino") - weights() == 2 * (unet + vae)
    assert weights(backend="openvino", quantization="int8") - weights() == 2 * (unet // 4 + vae)
    assert "the networks are converted once a shape" in Forecaster().plan(OPENVINO, model, timed=False).sentence()


def test_telemetry_is_never_found() -> None:
    telemetry = library.import_quiet("openvino.tools.ovc.telemetry_utils")
    assert telemetry.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
    assert type(library.import_quiet("nncf.telemetry.wrapper").telemetry).__name__ == "MagicMock"


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_deep_runs_as_two_networks(quantization: str, model: I2VGenXL, picture: Picture, capfd: pytest.CaptureFixture[str]) -> None:
    params = OPENVINO.replace(num_inference_steps=6, cache="deep:3", guidance_interval="0-0.5", quantization=quantization)
    wanted = model.generate(picture, params.replace(backend=None, quantization=None), Progress())
    made = model.generate(picture, params, Progress())
    if quantization == "none":
        assert difference(made, wanted) <= 1
    else:  # of random weights, whose ranges are wide
        assert 0 < np.abs(made.astype(int) - wanted).mean() < 25
    assert np.array_equal(model.generate(picture, params, Progress()), made)
    assert capfd.readouterr().out == ""


def test_int8_is_near_and_the_same_settings_give_the_same_network(own_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, found = Small(), []
    samples = [{"sample": torch.randn(1, 8, generator=torch.Generator().manual_seed(seed)).numpy(), "timestep": GIVEN[1].float().numpy()}
               for seed in range(4)]  # fmt: skip
    for _ in range(2):
        kept = Conversions(["small"], int8=True)
        kept.keep_inputs({"unet": samples})
        made = stand_in(network, kept=kept)(*GIVEN)
        (weights,) = own_cache.glob("*/unet-*/model.bin")
        found.append((weights.read_bytes(), made))
        forget()
        store.clear()
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert 0 < relative(found[0][1], network(*GIVEN)) < 0.2
    with pytest.raises(ModelError, match="quantization: int8 was not calibrated for this shape"):
        kept = Conversions(["small"], int8=True)
        kept.keep_inputs({"unet": [{**samples[0], "sample": np.zeros((1, 9), np.float32)}]})
        stand_in(network, kept=kept)(*GIVEN)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_another_process_takes_what_was_kept_and_makes_the_same_clip(folder: Path, tmp_path: Path, picture: Picture) -> None:
    words = ("generate", "sample:coffee", "a boat", "--model", folder, "--resolution", BASE.resolution, "--num-frames", "3",
             "--num-inference-steps", "2", "--backend", "openvino", "--force", "--json")  # fmt: skip
    own = {"XDG_CACHE_HOME": str(tmp_path / "own")}
    first, second = (json.loads(finish(start(*words, cwd=tmp_path, env=own), 400).stdout) for _ in range(2))
    assert first["status"] == second["status"] == "done"
    assert "convert" in first["seconds"]
    assert "convert" not in second["seconds"]
    assert first["frames_sha256"] == second["frames_sha256"]
    assert {"openvino", "CPU threads"} <= first["versions"].keys()
    shown = json.loads(finish(start("doctor", "--json", "--clear", cwd=tmp_path, env=own)).stdout)
    assert any(check["name"] == "converted networks" and check["found"].startswith("0.0 GiB") for check in shown)
    assert not (tmp_path / "own" / "i2v_lab" / "openvino").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantization"), [("svd", None), ("wan2.2-ti2v-5b", None), ("ltx-video", None), ("ltx-video", "int8")]
)
def test_stock_families_are_computed_too(name: str, quantization: str | None, picture: Picture, tmp_path: Path) -> None:
    at = make_checkpoint(name, tmp_path / name)
    model, params = loaded(name, at), params_for(name, at, num_inference_steps=2)
    wanted = model.generate(picture, params, Progress())
    heard = Ears()
    made = model.generate(picture, params.replace(backend="openvino", quantization=quantization), heard)
    assert ("convert", None) in heard.events
    if quantization is None:
        assert difference(made, wanted) <= 1
    else:
        assert ("calibrate", 6) in heard.events
        assert 0 < np.abs(made.astype(int) - wanted).mean() < 25
    assert np.array_equal(model.generate(picture, params, Progress()), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_exported_networks_give_the_clip_of_torch(
    to: str, model: I2VGenXL, folder: Path, picture: Picture, tmp_path: Path, i2v_lab: Any
) -> None:
    words = ("export", str(folder), "out", "--to", to, "--resolution", BASE.resolution, "--num-frames", "3", "--json")
    done = finish(start(*words, cwd=tmp_path), 400)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert all(about["error"] <= manifest["bound"] for about in manifest["networks"].values())
    networks = {name: opened(tmp_path / "out" / name, to) for name in manifest["networks"]}

    def standing(network: torch.nn.Module, name: str) -> Any:
        true = network.forward

        def forward(*args: Any, **options: Any) -> Any:
            call = Call.of(true, args, options)
            made = torch.cat([torch.from_numpy(networks[name](row.arrays())) for row in call.rows()])
            return (made,) if call.rest.get("return_dict") is False else made

        return forward

    wanted = model.generate(picture, BASE, Progress())
    with (
        in_place(model.unet, standing(model.unet, "unet")),
        in_place(model.vae.decoder, standing(model.vae.decoder, "vae_decoder")),
    ):
        made = model.generate(picture, BASE, Progress())
    assert difference(made, wanted) <= 1
    again = i2v_lab("export", str(folder), "out", "--to", to)
    assert again.returncode == 2
    assert "expected a folder that is empty or new" in again.stderr


def test_export_refuses_what_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export: closed-form cannot be exported"):
        export_model("closed-form", "onnx", tmp_path / "out", None, None, Progress())
