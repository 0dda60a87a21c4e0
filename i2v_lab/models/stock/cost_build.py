"""A stock pipeline out of configs alone: no weights, no tokenizer files. Its tensors are fake where it is built under `pretend`."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from i2v_lab.models import gguf_file
from i2v_lab.models.checkpoint import network_of, quiet_libraries
from i2v_lab.models.device import DTYPES, default_dtype
from i2v_lab.models.quantize import quantize
from i2v_lab.models.sampling import import_networks, numpy_quiet
from i2v_lab.models.stock.cost_fake import outside
from i2v_lab.models.stock.load import find_class
from i2v_lab.models.stock.watch import networks

MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n\n")


def build(spec: Mapping[str, Any], dtype: str, quantization: str = "none", gguf: gguf_file.Quantized = ()) -> Any:
    """The pipeline.

    Args:
        spec: see cost_spec.py. dtype: of the networks, but for those in spec["float32"]. quantization: of those that denoise. gguf: what is quantized
            of the first of them.

    Raises:
        ModelError, TypeError, ValueError, KeyError, ...: the configs make no pipeline.
    """
    diffusers = import_networks()
    from transformers.initialization import no_init_weights

    parts = {}
    with quiet_libraries(), numpy_quiet(), no_init_weights():
        kind = getattr(diffusers, spec["pipeline"])
        for name, part in spec["parts"].items():
            number = torch.float32 if name in spec["float32"] else DTYPES[dtype]
            if name.startswith("tokenizer"):
                parts[name] = tokenizer(spec["parts"].get("text_encoder", {}).get("config", {}).get("image_token_index"))
            else:
                parts[name] = _part(part["class"], part["config"], number)
        known = inspect.signature(kind.__init__).parameters
        pipe = kind(
            **{name: part for name, part in parts.items() if name in known},
            **{name: value for name, value in spec["options"].items() if name in known},
        )
    pipe.set_progress_bar_config(disable=True)
    if gguf:
        gguf_file.pretend(getattr(pipe, spec["denoisers"][0]), gguf)
    for name, network in networks(pipe).items():
        quantize(network, quantization if name in spec["denoisers"] else "none")
        _replace_to(network)
    for module in spec["needs"]:  # what only cleans prompts need not be installed
        if importlib.util.find_spec(module) is None:
            vars(sys.modules[kind.__module__])[module] = types.SimpleNamespace(fix_text=str)
    return pipe


def _part(where: tuple[str, str], config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    kind = find_class(Path("model_index.json"), *where)
    if not issubclass(kind, torch.nn.Module):
        with outside():  # a scheduler's numbers are real
            return kind.from_dict(dict(config)) if hasattr(kind, "from_dict") else kind.from_config(config)
    with default_dtype(dtype):
        made = network_of(kind, config)
    if hasattr(made, "tie_weights"):
        made.tie_weights()
    _keep_float32(made, dtype)
    return made.eval().requires_grad_(False)


def _keep_float32(network: Any, dtype: torch.dtype) -> None:
    """What the libraries leave in float32: diffusers for float16 and bfloat16, transformers for float16 alone.

    Buffers that are in the file have the dtype that it is loaded in, whatever their class makes them in.
    """
    ours = hasattr(network, "register_to_config")
    for module in network.modules() if ours else ():
        for own, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point() and own not in module._non_persistent_buffers_set:
                module._buffers[own] = torch.empty(buffer.shape, dtype=dtype)
    kept = set(getattr(network, "_keep_in_fp32_modules_strict", None) or ())
    if ours or dtype == torch.float16:
        kept |= set(getattr(network, "_keep_in_fp32_modules", None) or ())
    if dtype == torch.float32 or not kept:
        return
    for name, module in network.named_modules():
        for own, parameter in list(module._parameters.items()):
            if parameter is not None and kept.intersection([*name.split("."), own]):
                _put(module, own, torch.float32)


def _put(module: torch.nn.Module, name: str, dtype: torch.dtype) -> None:
    old = module._parameters[name]
    assert old is not None  # noqa: S101 - its callers look
    module._parameters[name] = torch.nn.Parameter(torch.empty(old.shape, dtype=dtype), requires_grad=False)


def _replace_to(network: torch.nn.Module) -> None:
    """`network.to(dtype=...)`, which SVD calls on its VAE, puts in new parameters; a device means nothing here."""

    def to(*args: Any, **options: Any) -> torch.nn.Module:
        dtype: Any = options.get("dtype") or next((item for item in args if isinstance(item, torch.dtype)), None)
        for module in network.modules() if dtype is not None else ():
            for name, old in list(module._parameters.items()):
                if old is not None and old.is_floating_point() and old.dtype != dtype:
                    _put(module, name, dtype)
        return network

    network.__dict__["to"] = to


def tokenizer(image: int | None = None) -> Any:
    """A stand-in with a token for each word. Pipelines fill prompts up to a fixed length, so what it says counts for little.

    HunyuanVideo finds the parts of its template by these marks, and the picture by a token of the number `image`.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "<s>", *MARKS]
    numbers = dict(zip(words, (number for number in itertools.count() if number != image), strict=False))
    made = Tokenizer(models.WordLevel(numbers | ({} if image is None else {"<image>": image}), unk_token="<unk>"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", numbers["<s>"])])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    found = PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=[*MARKS, "<image>"], **special)
    found.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return found
