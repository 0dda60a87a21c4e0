"""What I2VGen-XL takes, predicted: its own methods are run once, on fake tensors, with no weights and no GPU.

A model is built from configs under torch's FakeTensorMode and followed by a Tracker. Each part (text tower, vision tower,
VAE encoder, UNet, VAE decoder) is run by itself and its result kept on disk, so what two clips share is run once. Stages
are then put together as `I2VGenXL.make` puts them together: what it still refers to counts.

The tensors are fake CPU tensors, whatever the device: a torch without CUDA has no others. Shapes, types and lifetimes are
those of any device; workspaces of its kernels (cuDNN, oneDNN) are not seen.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from i2v_lab.clip.levers import Cache, Step, cache_of, kept_as, steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ModelError
from i2v_lab.models import levers
from i2v_lab.models import quantize as quantized
from i2v_lab.models.base import StageCost, VideoModel
from i2v_lab.models.checkpoint import network_of, one_line, quiet_libraries, read_json
from i2v_lab.models.device import DTYPES, default_dtype
from i2v_lab.models.i2vgen_xl import networks, parts
from i2v_lab.models.i2vgen_xl.networks import CELL, CLIP_TOKENS, Conditions, Networks, prompts
from i2v_lab.models.levers import Clock, caching
from i2v_lab.models.memory import tiers, tracker
from i2v_lab.models.memory.cost_cache import code_of, kept
from i2v_lab.models.memory.tracker import Tracker
from i2v_lab.models.openvino import library as openvino
from i2v_lab.models.quantize import quantize
from i2v_lab.models.sampling import calls_of

Configs = Mapping[str, Mapping[str, Any]]
CONFIGS: Configs = json.loads(Path(__file__).with_name("configs.json").read_text("utf-8"))
"""The published checkpoint, part by part. An empty config for the UNet: the class's defaults are the real thing."""

# float32 latents that are alive while the UNet runs, beside those it is given: the first noise, and what a scheduler
# remembers of the steps before.
_REMEMBERED = {"dpm++-2m": 3, "dpm++-2s": 3, "unipc": 4, "heun": 3, "kdpm2": 2, "kdpm2-a": 2, "lms": 5}
SEEN = {"predict": 2, "again": 2, "latents": 5, "decode": 5}
"""Of the code of a tier a part sees what this one adds: the UNet chunks, the VAE tiles, the towers see nothing."""


def cost(
    params: ClipParams, *, checkpoint: str, device: str, dtype: str, tier: int = 0, loaded: VideoModel | None = None
) -> tuple[StageCost, ...]:
    """See `VideoModel.cost`. Some 2 s for a new shape, milliseconds for one whose parts are on disk."""
    return _stages(params, _Runner(find_configs(checkpoint, loaded), dtype, kept_as(params)), tier, device)


def find_configs(checkpoint: str, loaded: VideoModel | None = None) -> Configs:
    """The configs of the four networks: of the loaded model, of the checkpoint if it is here, or the published ones."""
    if loaded is not None:
        return {part: _plain(getattr(loaded, part).config) for part in CONFIGS}
    if not checkpoint:
        return CONFIGS
    if (folder := Path(checkpoint).expanduser()).is_dir():
        return {part: read_json(folder / part / "config.json") for part in CONFIGS}
    from huggingface_hub import try_to_load_from_cache

    found = {part: try_to_load_from_cache(checkpoint, f"{part}/config.json") for part in CONFIGS}
    here = {part: read_json(Path(path)) for part, path in found.items() if isinstance(path, str)}
    return here if len(here) == len(CONFIGS) else CONFIGS


def _plain(config: Any) -> dict[str, Any]:
    return dict(config.to_dict() if hasattr(config, "to_dict") else config)


def make_network(part: str, config: Mapping[str, Any]) -> torch.nn.Module:
    """One of the four networks from its config, in torch's default dtype; weights as its class draws them."""
    if part == "text_encoder":  # what the config leaves open is the last two tokens
        words = config.get("vocab_size", 49408)
        config = {"bos_token_id": words - 2, "eos_token_id": words - 1, **config}
    network: torch.nn.Module = network_of(parts.classes()[part], config)
    return network


@functools.lru_cache(maxsize=2)
def _fake(configs: str, dtype: str, quantization: str) -> tuple[Networks, Any]:
    """Networks of fake tensors, and the mode that they live in; half a second for the full size.

    Args:
        configs: as JSON.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    try:
        with mode, default_dtype(DTYPES[dtype]), quiet_libraries():
            made: dict[str, Any] = {
                part: make_network(part, config).eval().requires_grad_(False) for part, config in json.loads(configs).items()
            }
            quantize(made["unet"], quantization)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"expected configs of an I2VGen-XL, got such as no network can be built of ({one_line(error)}); fetch it again"
        ) from None
    return Networks(**made, tokenizer=None, feature_extractor=None, scheduler_config={}, fingerprint="fake"), mode


class PartCost(NamedTuple):
    """What one part of a model takes.

    Attributes:
        peak: bytes at the highest point, what it is given and what it returns included, weights not.
        out: bytes of what it returns.
        flops: floating-point operations.
    """

    peak: int
    out: int
    flops: int


CODE = (
    __file__,
    Path(__file__).parents[1] / "checkpoint.py",
    *(str(module.__file__) for module in (networks, levers, parts, quantized, tiers, tracker)),
)


class _Runner:
    """Runs the parts of one model on fake tensors, or reads from disk what they gave before."""

    def __init__(self, configs: Configs, dtype: str, quantization: str) -> None:
        self.configs, self.dtype = json.dumps(configs, sort_keys=True, default=str), dtype
        self.network = self.configs, dtype, quantization
        self.tokens = min(CLIP_TOKENS, int(configs["text_encoder"].get("max_position_embeddings", CLIP_TOKENS)))

    def part(self, name: str, tier: int, *shape: int | str) -> PartCost:
        """What a part takes at a shape, in the code that it runs on this tier."""
        seen = SEEN.get(name, 0)
        code = seen if tiers.code(tier) >= seen else 0

        def run() -> dict[str, int]:
            model, mode = _fake(*self.network)
            weights = tiers.tensors_of(getattr(model, part) for part in CONFIGS)
            work: Callable[..., torch.Tensor] = getattr(self, f"_{name}")
            try:
                model.use_tier(code)
                with mode, torch.no_grad(), Tracker(weights) as tracked:
                    out = work(model, *shape).untyped_storage().nbytes()
            except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
                raise ModelError(f"expected a network that can be run, got one whose {name} fails ({one_line(error)})") from None
            return PartCost(tracked.peak, out, tracked.flops)._asdict()

        return PartCost(**kept([code_of(CODE), *self.network, name, code, shape], run))

    def weights(self, tier: int, stage: str, device: str) -> int:
        """The most bytes of weights that are on the device in a stage."""
        kind = device.partition(":")[0]

        def run() -> dict[str, int]:
            return {"weights": tiers.resident(_fake(*self.network)[0], stage, tier, kind)}

        return kept([code_of(CODE), *self.network, "weights", tier, stage, kind], run)["weights"]

    # The parts: each makes its arguments, as fake as the model, and returns what goes on to the next.

    def _text(self, model: Networks, batch: int) -> torch.Tensor:
        return model.encode_prompt(torch.zeros(batch, self.tokens, dtype=torch.int64))

    def _look(self, model: Networks) -> torch.Tensor:
        side = model.image_encoder.config.image_size
        return model.look(torch.zeros(1, 3, side, side, dtype=model.torch_dtype))

    def _latents(self, model: Networks, height: int, width: int) -> torch.Tensor:
        noise = torch.zeros(1, model.unet.config.in_channels, height // CELL, width // CELL)
        return model.to_latents(torch.zeros(1, 3, height, width, dtype=model.torch_dtype), noise)

    def _predict(self, model: Networks, batch: int, frames: int, height: int, width: int) -> torch.Tensor:
        size, dtype, channels = (height // CELL, width // CELL), model.torch_dtype, model.unet.config.in_channels
        conditions = Conditions(
            torch.zeros(batch, self.tokens, model.text_encoder.config.hidden_size, dtype=dtype),
            torch.zeros(batch, 1, model.image_encoder.config.projection_dim, dtype=dtype),
            torch.zeros(batch, channels, frames, *size, dtype=dtype),
            torch.zeros(batch, dtype=torch.int64),
        )
        return model.predict(conditions, torch.zeros(frames, channels, *size), torch.zeros((), dtype=torch.int64))

    def _again(self, model: Networks, kind: str, batch: int, frames: int, height: int, width: int) -> torch.Tensor:
        """Two steps of the UNet with a cache: the first is computed, the second reuses what was kept of it."""
        clock = Clock([Step(guided=batch > 1, reused=reused) for reused in (False, True)])
        with caching([model.unet], Cache(kind, 2), clock):
            self._predict(model, batch, frames, height, width)
            clock.next_step()
            return self._predict(model, batch, frames, height, width)

    def _decode(self, model: Networks, frames: int, height: int, width: int) -> torch.Tensor:
        return model.decode_frame(torch.zeros(frames, model.unet.config.in_channels, height // CELL, width // CELL))


def _denoising(params: ClipParams, runner: _Runner, tier: int) -> tuple[int, int]:
    """(bytes at the highest point, FLOPs) of all steps of the UNet, with the levers of a clip."""
    peak = flops = 0
    cache, shape = cache_of(params), (params.num_frames, params.height, params.width)
    for step, count in Counter(steps_of(params, calls_of(params))).items():
        batch = 2 if step.guided else 1
        once = runner.part("predict", tier, batch, *shape)
        if cache is None or not step.reused:
            peak, flops = max(peak, once.peak), flops + count * once.flops
        else:
            both = runner.part("again", tier, cache.kind, batch, *shape)
            peak, flops = max(peak, both.peak), flops + count * (both.flops - once.flops)
    return peak, flops


def _stages(params: ClipParams, runner: _Runner, tier: int, device: str) -> tuple[StageCost, ...]:
    """The stages of one clip, out of the parts."""
    batch, frames, size = len(prompts(params)), params.num_frames, (params.height, params.width)
    height, width = size
    text, seen = runner.part("text", tier, batch), runner.part("look", tier)
    first = runner.part("latents", tier, height, width)
    networks_peak, networks_flops = _denoising(params, runner, tier)
    vae = runner.part("decode", tier, 1, height, width)

    noise = 4 * frames * first.out // DTYPES[runner.dtype].itemsize  # float32, (F, 4, h, w)
    timed = frames * first.out  # the picture's latents over time, (1, 4, F, h, w)
    conditions = text.out + batch * seen.out + batch * timed  # Conditions
    looking = text.out + (1 + batch) * seen.out + first.peak
    encode = max(text.peak, text.out + seen.peak, looking, conditions + timed + first.out)
    denoise = networks_peak + noise * _REMEMBERED.get(params.scheduler, 2)
    # Decoding holds one frame at work, and those that are done; see `decode`. As bytes of uint8 all frames are `clip`.
    clip = 3 * height * width * frames
    decode = vae.peak + (clip if device == "cpu" else 0)
    if tier == 0:  # all frames in float32 from the beginning; at the end they and two copies in uint8
        decode = 4 * clip + max(vae.peak, 2 * clip)
    found = {
        "encode": (encode, text.flops + seen.flops + first.flops),
        "denoise": (denoise, networks_flops),
        "decode": (conditions + 2 * noise + decode, vae.flops * frames),
    }
    # With model offload a stage has the weights of its own network alone.
    more = openvino.resident(params, *(runner.weights(3, stage, "cuda") for stage in ("denoise", "decode")))
    return tuple(StageCost(name, runner.weights(tier, name, device) + more, *taken) for name, taken in found.items())
