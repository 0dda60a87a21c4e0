"""What a script says of its clip: checked texts of the record, which is not trusted, and the small files of the checkpoint."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from i2v_lab.devices.gpus import KINDS
from i2v_lab.errors import ModelError, printable
from i2v_lab.models.checkpoint import choose_weights

WORD = re.compile(r"[\w.+:-]{1,40}", re.ASCII)
PACKAGES = ("torch", "diffusers", "transformers", "numpy")  # that the frames depend on


def word(value: Any, default: str = "") -> str:
    """A value of a record as one plain word, such as a version; `default` where it is none."""
    return str(value) if isinstance(value, str | int) and WORD.fullmatch(str(value)) else default


def device_kind(device: str) -> str:
    """The kind of a device of a record; "cpu" where it is none that is known."""
    kind = device.partition(":")[0]
    return kind if kind in KINDS else "cpu"


def versions_of(record: Mapping[str, Any]) -> dict[str, str]:
    """{package: version} that the clip was made with, of what its frames depend on."""
    known = _versions(record)
    return {name: word(known[name]) for name in PACKAGES if word(known.get(name))}


def _versions(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found = record.get("versions")
    return found if isinstance(found, Mapping) else {}


def header(name: str, family: Any, record: Mapping[str, Any], needs: Iterable[str], notes: Iterable[str]) -> str:
    """The comment that a script begins with.

    Args:
        name: of the clip's file.
        family: the class of the model.
        needs: packages beside those that every script needs.
    """
    made = [f"{package} {version}" for package, version in versions_of(record).items()]
    place = [word(record.get(key)) for key in ("device", "dtype", "cpu_capability")]
    packages = ["accelerate", "diffusers", "imageio", "imageio-ffmpeg", "numpy", "pillow", "torch", "transformers", *needs]
    pinned = [
        f"{package}=={found.split('+')[0]}" if (found := versions_of(record).get(package)) else package for package in packages
    ]
    lines = [
        f"This script makes the frames of {name!r} again, with diffusers and without i2v_lab, which wrote it.",
        "",
        f"model:     {family.name}; licence: {family.licence}",
        f"made with: {', '.join(made) or 'versions that it does not say'}; on {', '.join(filter(None, place)) or 'an unknown device'}",
        f"it needs:  pip install {' '.join(pinned)}",
        "",
        "Bytes are equal with the same versions on the same kind of processor or GPU; the last line that it prints says whether they are.",
        *(f"Note: {note}" for note in notes),
    ]  # fmt: skip
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)


def folder_of(checkpoint: str) -> Path:
    """Where the small files of a checkpoint are: a folder, or the hub's cache. No network is used.

    Raises:
        ModelError: they are not here.
    """
    if (folder := Path(checkpoint).expanduser()).is_dir():
        return folder.absolute()
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(checkpoint, "model_index.json")
    if isinstance(index, str):
        return Path(index).parent
    raise ModelError(f"{printable(checkpoint)}: the script depends on its configs, and they are not on this machine; fetch them with: "
                     f"hf download {printable(checkpoint)} --include '*.json'; or give the checkpoint's folder with --model")  # fmt: skip


def variant_of(folder: Path, part: str, published: str | None = None) -> str | None:
    """The variant of a component's weights that the product loads, "fp16" or None; `published` where no weights are here."""
    names = [path.name for path in (folder / part).iterdir()] if (folder / part).is_dir() else []
    variant, files = choose_weights(names)
    return variant if files else published


def call(scheduler: Any) -> str:
    """The expression that makes a scheduler of diffusers again: its class, with the options that are not the defaults."""
    signature = inspect.signature(type(scheduler).__init__).parameters
    config: Mapping[str, Any] = scheduler.config
    options = {name: config[name] for name, one in signature.items() if name in config and config[name] != one.default}
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{type(scheduler).__name__}({given})"


def threads(record: Mapping[str, Any], matters: bool) -> str:
    """The line that sets the number of threads of the CPU as the clip had it, where its record says it.

    Args:
        matters: whether the number changes pixels of this family.
    """
    if record.get("device") != "cpu":
        return ""
    if re.fullmatch("[1-9][0-9]{0,3}", number := word(_versions(record).get("CPU threads"))):
        return f"torch.set_num_threads({number})  # as the clip had it: the number changes the last bits here\n"
    text = (
        "# torch.set_num_threads(1)  # the number of threads changes the last bits here, and the clip does not say which it had\n"
    )
    return text if matters else ""
