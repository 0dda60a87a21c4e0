"""The script of a clip that a pipeline of diffusers makes as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ModelError
from i2v_lab.models.checkpoint import components, one_line, read_json
from i2v_lab.models.sampling import import_diffusers, numpy_quiet
from i2v_lab.models.stock import lora
from i2v_lab.models.stock.families import Family
from i2v_lab.models.stock.schedulers import make_scheduler
from i2v_lab.run.script.facts import call, device_kind, threads, variant_of

PROCESSORS = ("feature_extractor", "image_processor")
OFFLOAD = {
    3: "pipe.enable_model_cpu_offload()",
    4: 'pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="block_level", num_blocks_per_group=1)',
}


def stock_fields(
    family: Family, params: ClipParams, record: Mapping[str, Any], folder: Path, file: str, dtype: str, tier: int
) -> dict[str, str]:
    """What the template stock.py.txt needs beside what every script needs.

    Args:
        params: with nothing left open.
        folder: of the checkpoint. file: that has the weights of the network in its place, as the script shows it; "": there is none.
        dtype, tier: as the clip was made.
    """
    index = components(read_json(folder / "model_index.json"))
    processor = next((name for name in PROCESSORS if index.get(name, ("", ""))[1].startswith("CLIPImageProcessor")), "")
    scheduler = _scheduler(family, params, folder, index.get("scheduler", ("", ""))[1])
    network = index[family.denoisers[0]][1] if file else ""
    classes = {family.pipeline, scheduler.partition("(")[0], network} - {""}
    arguments = family.arguments(params, tier)
    return {
        "classes": ", ".join(sorted(classes)),
        "processor_import": "from transformers import CLIPImageProcessorPil\n" if processor else "",
        "pipeline": family.pipeline,
        "loading": _lines(_loading(family, folder, index, dtype, processor) | _from_file(family, network, dtype)),
        "file": f"FILE = {file!r}  # the weights of its network\n" if file else "",
        "scheduler": f"pipe.scheduler = {scheduler}" if scheduler else "# The scheduler is the checkpoint's own.",
        "device": "\n".join([*_loras(family, params), *_device(family, str(record.get("device")), tier)]) + "\n",
        "arguments": _lines({name: repr(value) for name, value in arguments.items()}),
        "threads": threads(record, family.threads),
    }


def _lines(arguments: Mapping[str, str]) -> str:
    return "\n".join(f"    {name}={value}," for name, value in arguments.items())


def _loading(family: Family, folder: Path, index: Mapping[str, Any], dtype: str, processor: str) -> dict[str, str]:
    """Arguments of from_pretrained: number formats, variant, and the picture processor that needs no torchvision."""
    kept = [name for name in family.float32 if name in index] if dtype != "float32" else []
    formats = {"default": dtype, **dict.fromkeys(kept, "float32")}
    several = ", ".join(f'"{name}": torch.{number}' for name, number in formats.items())
    published = "fp16" if family.cuda_dtype == "float16" else None  # the repositories of these families have both
    halves = [variant_of(folder, part, published) for part in index if (folder / part / "config.json").is_file()]
    return {
        "dtype": f"{{{several}}}" if kept else f"torch.{dtype}",
        "use_safetensors": "True",
        **({"variant": '"fp16"'} if "fp16" in halves else {}),
        **({processor: f'CLIPImageProcessorPil.from_pretrained(MODEL, subfolder="{processor}")'} if processor else {}),
    }


def _from_file(family: Family, network: str, dtype: str) -> dict[str, str]:
    part = family.denoisers[0]
    call = f'{network}.from_single_file(FILE, config=MODEL, subfolder="{part}", dtype=torch.{dtype})'
    return {part: call} if network else {}


def _scheduler(family: Family, params: ClipParams, folder: Path, class_name: str) -> str:
    """The expression that makes the clip's scheduler; "" where it is the checkpoint's own."""
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    try:
        with numpy_quiet():
            own = getattr(import_diffusers(), class_name).from_config(config)
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'scheduler'}: cannot be read ({one_line(error)}); fetch it again") from None
    made = call(make_scheduler(family.scheduler_classes[params.scheduler], own, params.flow_shift))
    return "" if made == call(own) else made


def _loras(family: Family, params: ClipParams) -> list[str]:
    """The LoRAs, and the components that are made again with a value of the params."""
    lines = []
    for field, argument in family.takes.items():
        part, dot, name = argument.partition(".")
        if dot:
            lines.append(f"pipe.{part} = pipe.{part}.new({name}={getattr(params, field)!r})")
    chosen: dict[str, dict[str, float]] = {}
    for number, one in enumerate(lora.parse(params.lora)):
        where = {"adapter_name": f"i2v_{number}"}
        source = one.source
        if (hub := lora.HUB.fullmatch(source)) and hub[2] and not Path(source).exists():
            source, where["weight_name"] = hub[1], hub[2]
        for network in lora.networks(family, one):
            second = {"load_into_transformer_2": True} if network == "transformer_2" else {}
            options = ", ".join(f"{name}={value!r}" for name, value in {**where, **second}.items())
            lines.append(f"pipe.load_lora_weights({source!r}, {options})")
            chosen.setdefault(network, {})[where["adapter_name"]] = one.weight
    lines += [f"pipe.{network}.set_adapters({list(found)!r}, {list(found.values())!r})" for network, found in chosen.items()]
    return lines


def _device(family: Family, device: str, tier: int) -> list[str]:
    """Where the pipeline runs, with what saves memory: as a remark where pixels stay as they are."""
    if not device.startswith("cuda"):
        lines = [f'pipe.to("{device_kind(device)}")']
    else:
        lines = ['pipe.to("cuda")']
        made = " (the clip was made so)" if tier in (3, 5) else ""
        lines.append(f"# Short of memory? In place of the line above{made}: {OFFLOAD[3]}")
        if tier in (4, 5):
            lines.append(f"# Still less, one block at a time (the clip was made so): {OFFLOAD[4]}")
    if tier == 5 and not family.decode_chunk:
        lines.append("pipe.vae.enable_tiling()  # as the clip was made; it changes pixels a little")
    return lines
