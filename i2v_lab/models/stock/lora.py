"""LoRAs: small files that change the weights of a network. `ClipParams.lora` names them; a clip's key knows them by their content."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ModelError, ParamsError
from i2v_lab.models.stock.families import Family

EXPERTS = ("high", "low")  # the networks of a family that has two, in their order
WEIGHT_MAX = 10.0
_ONE = re.compile(r"(?:(high|low)=)?((?:[A-Za-z]:[\\/])?[^:]+?)(?::\s*([+-]?(?:\d+\.?\d*|\.\d+)))?")
HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(.+\.safetensors))?")


@dataclass(frozen=True)
class Lora:
    """One LoRA as the params name it.

    Attributes:
        source: a file; a hub id (`owner/name`), or one with the name of a file in it (`owner/name/file.safetensors`).
        weight: how strongly it counts; 1 is what it was trained for.
        expert: "high" or "low": that network of a family that has two; "": every network.
    """

    source: str
    weight: float = 1.0
    expert: str = ""

    def text(self, source: str) -> str:
        """As the params have it, with another source."""
        return f"{self.expert}={source}:{self.weight!r}" if self.expert else f"{source}:{self.weight!r}"


def parse(text: str | None) -> tuple[Lora, ...]:
    """The LoRAs that `ClipParams.lora` names; ParamsError where it cannot be read."""
    found = []
    for part in text.split(",") if text else ():
        match = _ONE.fullmatch(part.strip())
        if match is None or abs(float(match[3] or 1)) > WEIGHT_MAX:
            raise ParamsError(
                f"lora: expected FILE:WEIGHT, high=FILE:WEIGHT or low=FILE:WEIGHT with a weight of -{WEIGHT_MAX:g} to {WEIGHT_MAX:g} "
                f"(no weight: 1), and commas between several, got {part.strip()!r}"
            )
        found.append(Lora(match[2].strip(), float(match[3] or 1), match[1] or ""))
    return tuple(found)


def check(family: Family, text: str | None) -> None:
    """Raise ParamsError where the family cannot read what `ClipParams.lora` says; no file is opened."""
    experts = {lora.expert for lora in parse(text)} - {""}
    if experts and len(family.denoisers) < len(EXPERTS):
        word = min(experts)
        raise ParamsError(f"lora: {family.name} has one network, got {word}=; leave {word}= out")


def by_content(params: ClipParams, *, fetch: bool = True) -> ClipParams | None:
    """The params with each LoRA named by the sha256 of its file, as a clip's key has to have them.

    Args:
        fetch: whether a file that is not on this machine is fetched; otherwise the answer is then None.

    Raises:
        ModelError: a file is missing, damaged or cannot be fetched.
    """
    texts = []
    for lora in parse(params.lora):
        if (file := find(lora.source, fetch=fetch)) is None:
            return None
        texts.append(lora.text(_sha256(file)))
    return params.replace(lora=",".join(texts)) if texts else params


def portable(text: str) -> str:
    """The LoRAs as a clip carries them: of the path of a file, the last part alone."""
    return ",".join(lora.text(Path(lora.source).name if _is_file(lora.source) else lora.source) for lora in parse(text))


def _is_file(source: str) -> bool:
    path = Path(source).expanduser()
    return path.exists() or path.is_absolute() or not HUB.fullmatch(source)


def find(source: str, *, fetch: bool = True) -> Path | None:
    """The file of a LoRA: on disk, in the hub's cache, or else from the hub; None where it would have to be fetched and may not be."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"lora: expected a safetensors file, got {source}: other formats may run code when they are opened")
        return path
    match = HUB.fullmatch(source)
    if path.exists() or match is None:
        what = "is a folder; name the file in it" if path.exists() else "there is no such file"
        raise ModelError(f"lora: expected a .safetensors file, or a hub id such as owner/name, got {source}: {what}")
    return _in_cache(match[1], match[2]) or (_download(match[1], match[2]) if fetch else None)


def _in_cache(hub_id: str, name: str | None) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    except (OSError, HfHubHTTPError):
        return None
    here = [folder / name] if name else sorted(folder.rglob("*.safetensors"))
    return here[0] if len(here) == 1 and here[0].is_file() else None


def _download(hub_id: str, name: str | None) -> Path:
    import huggingface_hub

    from i2v_lab.models.checkpoint import one_line

    try:
        listed = [] if name else [file.rfilename for file in huggingface_hub.HfApi().model_info(hub_id, timeout=15).siblings or []]
        names = [name] if name else [file for file in listed if file.endswith(".safetensors")]
        if len(names) == 1:
            return Path(huggingface_hub.hf_hub_download(hub_id, names[0]))
    except Exception as error:  # noqa: BLE001 - the hub's client changes its HTTP library, and so its errors, now and then
        raise ModelError(
            f"lora: {hub_id}: neither a file here, nor in the hub's cache, and the hub does not give it ({type(error).__name__}: "
            f"{one_line(error, 150)}); check the name, or fetch it with: hf download {hub_id}{f' {name}' if name else ''}"
        ) from None
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    raise ModelError(f"lora: {hub_id} holds {len(names)} safetensors files; name one as {hub_id}/FILE: {shown or 'there is none'}")


def _sha256(file: Path) -> str:
    about = file.stat()
    return _hashed(file.resolve(), about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hashed(file: Path, size: int, changed: int) -> str:
    """The sha256 of a file that is as large and as old as said: a run asks for it several times, and it takes a second a GB."""
    from i2v_lab.models.checkpoint import header

    header(file)
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def put_into(pipe: Any, family: Family, loras: Sequence[Lora]) -> None:
    """Take all LoRAs out of a pipeline that is on no tier, and put these into it.

    Raises:
        ModelError: peft is missing, or a file is none for this family; then the pipeline has no LoRA.
    """
    from i2v_lab.models.checkpoint import one_line, quiet_libraries
    from i2v_lab.models.memory.ladder import is_out_of_memory

    if loras and importlib.util.find_spec("peft") is None:
        raise ModelError("lora: LoRAs need peft: pip install 'i2v_lab[families]'")
    if any(getattr(getattr(pipe, name), "peft_config", None) for name in family.denoisers):
        pipe.unload_lora_weights()
    for number, lora in enumerate(loras):
        file = find(lora.source)
        assert file is not None  # noqa: S101 - it is fetched where it is not here
        try:
            with quiet_libraries(), warnings.catch_warnings(action="ignore", category=UserWarning):  # peft's, of a second one
                for network in networks(family, lora):
                    second = {"load_into_transformer_2": True} if network == "transformer_2" else {}
                    pipe.load_lora_weights(
                        str(file.parent), weight_name=file.name, adapter_name=f"i2v_{number}", use_safetensors=True, **second
                    )
                    _check_used(pipe, network, file, f"i2v_{number}")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, NotImplementedError) as error:
            pipe.unload_lora_weights()
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"lora: {file}: not a LoRA for {family.name} ({one_line(error, 200)}); choose one made for it"
            ) from None
    for network in family.denoisers:
        mine = {f"i2v_{number}": lora.weight for number, lora in enumerate(loras) if network in networks(family, lora)}
        if mine:
            getattr(pipe, network).set_adapters(list(mine), list(mine.values()))


def networks(family: Family, lora: Lora) -> tuple[str, ...]:
    """The components of a pipeline that a LoRA goes into."""
    return (family.denoisers[EXPERTS.index(lora.expert)],) if lora.expert else family.denoisers


def _check_used(pipe: Any, network: str, file: Path, adapter: str) -> None:
    """Raise ValueError unless at least half of the file's layers are now in the network: diffusers drops others without an error."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        asked = sum(key.endswith((".lora_A.weight", ".lora_down.weight", ".lora.down.weight")) for key in opened.keys())  # noqa: SIM118
    used = sum(adapter in getattr(module, "lora_A", ()) for module in getattr(pipe, network).modules())
    if used == 0 or 2 * used < asked:
        raise ValueError(f"{used} of its {asked} layers are in {network}")
