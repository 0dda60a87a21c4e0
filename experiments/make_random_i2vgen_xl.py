"""Make an I2VGen-XL checkpoint of random weights, in the layout of the published one.

    python experiments/make_random_i2vgen_xl.py FOLDER --small    # a few MB, for tests
    python experiments/make_random_i2vgen_xl.py FOLDER --full     # the true size: 1.4 billion parameters in the UNet, 4.7 GB

It makes noise for clips; what it is good for is to load, run, time and measure without fetching anything. The tokenizer
is a true CLIP tokenizer with a vocabulary of single bytes, so texts become more tokens than with the published one.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from i2v_lab.models.i2vgen_xl.cost import CONFIGS, make_network
from i2v_lab.verify.networks import CLIP_MEAN, CLIP_STD, SCHEDULER

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

MODEL_INDEX = {
    "_class_name": "I2VGenXLPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "I2VGenXLUNet"],
    "vae": ["diffusers", "AutoencoderKL"],
}

# The configs, part by part; "full" are those of the published checkpoint.
SIZES: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "full": CONFIGS,
    "small": {
        "unet": {
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
            "norm_num_groups": 8,
            "cross_attention_dim": 32,
            "attention_head_dim": 8,
        },
        "vae": {
            "block_out_channels": (16, 16, 32, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "norm_num_groups": 8,
            "sample_size": 64,
        },
        "text_encoder": {
            "vocab_size": 600,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "hidden_act": "gelu",
            "projection_dim": 32,
        },
        "image_encoder": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "patch_size": 32,
            "image_size": 224,
            "hidden_act": "gelu",
            "projection_dim": 32,
        },
    },
}


def make_checkpoint(folder: Path, size: str = "small", dtype: torch.dtype = torch.float16, seed: int = 0) -> Path:
    """Write a whole checkpoint, a component at a time; returns the folder.

    Args:
        folder: made if missing; files of an earlier checkpoint in it are overwritten.
        size: a key of SIZES.
        dtype: of the weights. float16 is saved as the variant "fp16", the others without a variant.
        seed: of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    for part, config in SIZES[size].items():
        save(build(part, config, dtype), folder / part, dtype)
    write_tokenizer(folder / "tokenizer")
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(
        folder / "feature_extractor" / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 224},
            "crop_size": {"height": 224, "width": 224},
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
        },
    )
    write_json(folder / "model_index.json", MODEL_INDEX)  # last: a folder without it is not taken for a checkpoint
    return folder


def build(part: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """A component with random weights, made in its own dtype, since float32 would take twice the memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        module = make_network(part, config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            randomize(name, parameter)
    return module.eval()


def randomize(name: str, parameter: torch.Tensor) -> None:
    """Weights that keep activations near size 1, and leave nothing at the zero that residual branches start from.

    So each input of the network shows in its output, which is what tests need.
    """
    if parameter.ndim > 1:
        inputs = parameter[0].numel()
        parameter.copy_(torch.randn(parameter.shape) / math.sqrt(inputs))
    elif name.endswith("weight"):  # of norms
        parameter.fill_(1)
    else:
        parameter.copy_(0.02 * torch.randn(parameter.shape))


def save(module: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write config.json and safetensors; float16 as the variant fp16, in one file as the published checkpoint has it."""
    module.save_pretrained(folder, variant="fp16" if dtype == torch.float16 else None, max_shard_size="10GB")


def write_tokenizer(folder: Path) -> None:
    """vocab.json and merges.txt of a CLIP tokenizer that knows single bytes, each inside a word and at its end."""
    alphabet = byte_alphabet()
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    write_json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "!"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **marks})
    write_json(folder / "special_tokens_map.json", marks)


def byte_alphabet() -> list[str]:
    """The 256 characters by which byte-level BPE writes bytes: printable ones as they are, the rest from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write the checkpoint")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--small", dest="size", action="store_const", const="small", help="a few MB, for tests")
    size.add_argument("--full", dest="size", action="store_const", const="full", help="the true size, 4.7 GB in float16")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of the weights (default: float16)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    given = parser.parse_args()
    made = make_checkpoint(given.folder, given.size, DTYPES[given.dtype], given.seed)
    total = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    print(f"{made}: {total / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
