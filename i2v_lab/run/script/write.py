"""script_of: the plain script that makes a clip's frames again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from i2v_lab import models
from i2v_lab.clip.levers import LEVERS, NEUTRAL
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ClipError, ModelError
from i2v_lab.models.stock.families import FAMILIES as STOCK
from i2v_lab.run.restore import restore
from i2v_lab.store import Store


@dataclass(frozen=True)
class Script:
    """A script and what its reader should know before it runs, in sentences. The text begins with them too."""

    text: str
    notes: tuple[str, ...] = ()


def script_of(clip: Path, store: Store | None = None, image: str | None = None, model: str | None = None) -> str:
    """The script that makes a clip's frames again, byte for byte, with diffusers alone.

    Args:
        clip, store, image, model: as for `restore`.

    Raises:
        ClipError: as `restore`; or the clip's family has no networks of diffusers, so there is no script.
        PictureError: as `restore`; or the picture is of a kind that Pillow alone opens otherwise.
        ModelError: as `restore`; or the configs of the checkpoint are not here.
    """
    return script_for(*restore(clip, store, image, model), name=clip.name).text


def script_for(params: ClipParams, record: Mapping[str, Any], name: str, *, to_send: bool = False) -> Script:
    """As `script_of`, from the settings of a clip.

    Args:
        params: with a picture and a model that are here.
        record: as the clip carries it. It is not trusted.
        name: of the clip's file.
        to_send: it is for other people: of the paths of this machine it has the last part alone.
    """
    from i2v_lab.run.script.facts import folder_of, header

    kind, checkpoint = models.find(params.model)
    if kind.name not in STOCK and kind.name != "i2vgen-xl":
        raise ClipError(f"{name}: {kind.name} is a model of i2v_lab itself, with no pipeline in diffusers, so there is no script: "
                        "make the clip again with i2v-lab again")  # fmt: skip
    if levers := [name for name in LEVERS if getattr(params, name) not in (None, NEUTRAL[name])]:
        raise ClipError(f"{name}: it was made with {' and '.join(levers)}, which i2v_lab does itself, so there is no script: "
                        "make the clip again with i2v-lab again")  # fmt: skip
    file = kind.layout.file  # type: ignore[attr-defined]
    if file and file.suffix == ".gguf":
        raise ClipError(
            f"{name}: its network is of a GGUF file, for which there is no script: make the clip again with i2v-lab again"
        )
    picture = open_picture(params.image)
    params = models.resolve(params, lambda: picture, kind)
    kind.check(params)
    folder = folder_of(checkpoint)
    notes = _notes(params.model, record)
    needs = [*(STOCK[kind.name].needs if kind.name in STOCK else ()), *(["peft"] if params.lora else [])]

    def shown(path: Path) -> str:
        return path.name if to_send else str(path)

    template, fields = _fields(kind.name, params, record, folder, shown(file.absolute()) if file else "")
    from i2v_lab.run.script.picture import recipe

    common = {
        **recipe(picture, params.height, params.width),
        "header": header(name, kind, record, needs, notes),
        "model": repr(shown(folder) if Path(checkpoint).expanduser().is_dir() else checkpoint),
        "picture": repr(shown(picture.path)),
        "picture_sha256": repr(picture.sha256),
        "frames_sha256": repr(_hash(record.get("frames_sha256"))),
        "height": str(params.height),
        "width": str(params.width),
        "seed": str(params.seed),
        "fps": str(params.fps),
        "output": repr(f"{_stem(name)}_again.mp4"),
    }
    common["ending"] = _template("ending").substitute(common)
    return Script(_tidy(_template(template).substitute(common, **fields)), tuple(notes))


def _fields(name: str, params: ClipParams, record: Mapping[str, Any], folder: Path, file: str) -> tuple[str, dict[str, str]]:
    """The name of the template, and what of it the family decides."""
    from i2v_lab.run.script.i2vgen_xl import i2vgen_xl_fields
    from i2v_lab.run.script.stock import stock_fields

    dtype = str(record.get("dtype"))
    dtype = dtype if dtype in ("float32", "float16", "bfloat16") else "float32"
    tier = record.get("actual_tier")
    tier = tier if isinstance(tier, int) and 0 <= tier <= 6 else 0
    if name in STOCK:
        return "stock", stock_fields(STOCK[name], params, record, folder, file, dtype, tier)
    return "i2vgen_xl", i2vgen_xl_fields(params, record, folder, dtype, tier)


def _notes(model: str, record: Mapping[str, Any]) -> list[str]:
    """Why the frames may be others, where it can be seen already."""
    notes = []
    try:
        known = models.open(model, "cpu").identity_here
    except ModelError:
        known = None
    if known is None:
        notes.append("the weights are not on this machine, so it was not checked that they are those of the clip")
    elif known.fingerprint != record.get("model_fingerprint"):
        notes.append("the checkpoint here is not the one that the clip was made with: the frames will differ")
    return notes


def _template(name: str) -> Template:
    return Template(files(__package__).joinpath(f"{name}.py.txt").read_text(encoding="utf-8"))


def _hash(value: Any) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else ""


def _stem(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", Path(name).stem, flags=re.ASCII)[:100].lstrip(".-") or "clip"


def _tidy(text: str) -> str:
    """No more than two empty lines on end, and one newline at the end."""
    return re.sub(r"\n{4,}", "\n\n\n", text).strip() + "\n"
