"""The components of an I2VGen-XL checkpoint, loaded one after the other; and what CLIP's tokenizer will make of a text."""

from __future__ import annotations

import re
from typing import Any

import torch

from i2v_lab.clip.progress import Progress
from i2v_lab.errors import ModelError
from i2v_lab.models.checkpoint import Checkpoint, load_component, one_line, quiet_libraries, read_json
from i2v_lab.models.quantize import quantize
from i2v_lab.models.sampling import import_networks


def classes() -> dict[str, Any]:
    """{component with weights: its class}, in the order in which they are loaded."""
    diffusers = import_networks()
    import transformers

    return {
        "text_encoder": transformers.CLIPTextModel, "image_encoder": transformers.CLIPVisionModelWithProjection,
        "vae": diffusers.AutoencoderKL, "unet": diffusers.I2VGenXLUNet,
    }  # fmt: skip


def load_components(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, progress: Progress, quantization: str = "none"
) -> dict[str, Any]:
    """The arguments of I2VGenXL that a checkpoint holds, with the weights on a device; `progress` receives a step for each network."""
    parts: dict[str, Any] = {"scheduler_config": read_json(checkpoint.folder / "scheduler" / "scheduler_config.json")}
    for part, kind in classes().items():
        network = load_component(kind, checkpoint, part, dtype=dtype)
        quantize(network, quantization if part == "unet" else "none")
        parts[part] = network.to(device)
        progress.step()
    return parts | _small_components(checkpoint, parts["text_encoder"])


def _small_components(checkpoint: Checkpoint, text_encoder: Any) -> dict[str, Any]:
    from transformers import CLIPImageProcessorPil, CLIPTokenizer  # the other image processor needs torchvision

    try:
        with quiet_libraries():
            tokenizer = CLIPTokenizer.from_pretrained(checkpoint.folder / "tokenizer", local_files_only=True)
            extractor = CLIPImageProcessorPil.from_pretrained(checkpoint.folder / "feature_extractor", local_files_only=True)
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises plain Exception
        raise ModelError(
            f"{checkpoint.folder}: its tokenizer or feature_extractor cannot be read ({one_line(error)}); fetch both again"
        ) from None
    if len(tokenizer) > (words := text_encoder.config.vocab_size):
        raise ModelError(
            f"{checkpoint.folder / 'tokenizer'}: has {len(tokenizer)} tokens, and the text encoder knows {words}; they do not "
            "belong together, fetch both again"
        )
    return {"tokenizer": tokenizer, "feature_extractor": extractor}


def estimate_tokens(text: str) -> int:
    """About how many tokens CLIP makes of a text, its begin and end marks included, without its vocabulary.

    A common English word is one token, a long one more; so is each digit and each run of signs. Of a character that is
    not in the Latin alphabet CLIP makes one or two; one is counted.
    """
    pieces = re.findall(r"[a-z]+|\d|[^\W\d_]|[^\w\s]+|_", text.lower())
    return 2 + sum(-(-len(piece) // 9) for piece in pieces)
