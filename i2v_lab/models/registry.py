"""The model families, found by name, folder or hub id, and loaded once.

To add a family that diffusers has a pipeline for: an entry in stock/families.py. Any other: a package here with a class like
`ClosedForm` (see VideoModel in base.py), and one line in FAMILIES.
"""

from __future__ import annotations

import gc
import importlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from i2v_lab.clip.params import Advice, ClipParams, params_advice
from i2v_lab.clip.picture import BLURRED_BELOW, Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.errors import Message, ModelError, ParamsError, meant
from i2v_lab.models.parallel.rules import TIERS as SHARED_TIERS
from i2v_lab.models.parallel.rules import check
from i2v_lab.models.stock.families import FAMILIES as STOCK
from i2v_lab.textfile import parse_yaml, read_text

if TYPE_CHECKING:
    from i2v_lab.models.base import VideoModel

FAMILIES = {
    "closed-form": "i2v_lab.models.closed_form.model:ClosedForm",
    "i2vgen-xl": "i2v_lab.models.i2vgen_xl.model:I2VGenXL",
    "fake": "i2v_lab.models.fake:FakeModel",  # for tests only, so it is not listed
}
"""Families with a sampling loop of their own, {name: module:class}; the others are in stock/families.py."""
LISTED = ("closed-form", "i2vgen-xl", *STOCK)
CHECKPOINTS = {"i2vgen-xl": "ali-vilab/i2vgen-xl", **{family.name: family.hub for family in STOCK.values() if family.hub}}
"""The hub id that a family's name means."""
I2VGEN_XL = "I2VGenXLPipeline"  # `_class_name` in its model_index.json
CHECKPOINT_FOLDER = Path("checkpoints")  # looked into first, so that a machine without network needs no hub cache

CUT_SHOWN = 20  # % of a picture cut off by a size that is turned, from which on it is said

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Asked(NamedTuple):
    """By what a loaded model is found again: see `open`."""

    model: str
    device: str
    dtype: str
    quantization: str
    parallel: int


_loaded: dict[Asked, VideoModel] = {}


def family(name: str) -> type[VideoModel]:
    """The class of a family by its name; its attributes say what it is, nothing is loaded."""
    if name in STOCK:
        from i2v_lab.models.stock.model import model_class

        return model_class(STOCK[name])
    module, _, attribute = FAMILIES[name].partition(":")
    found: type[VideoModel] = getattr(importlib.import_module(module), attribute)
    return found


def is_family(name: str) -> bool:
    """Whether a `ClipParams.model` is the name of a family."""
    return name in FAMILIES or name in STOCK


def find(model: str) -> tuple[type[VideoModel], str]:
    """What a `ClipParams.model` means: (family class, folder or hub id of the checkpoint, "" where there is none).

    FAMILY:FILE.safetensors (or .gguf) is the family with the weights of its network from that file. A folder, or a hub id whose checkpoint is in
    the hub's cache, is of the family that its configs show; other hub ids that no family has are taken for I2VGen-XL's.

    Raises:
        ModelError: no such family, folder or hub id.
    """
    if is_family(model):
        local = CHECKPOINT_FOLDER / model
        return family(model), str(local) if (local / "model_index.json").is_file() else CHECKPOINTS.get(model, "")
    name, colon, file = model.partition(":")
    if colon and name in STOCK and file.endswith((".safetensors", ".gguf")):
        return _with_file(name, Path(file).expanduser())
    try:
        folder = Path(model).expanduser()
        there, is_checkpoint = folder.exists(), (folder / "model_index.json").is_file()
    except (OSError, RuntimeError):  # too long for a path; no such home
        raise ModelError(f"expected a checkpoint's folder, got {model!r}, which cannot be one; check its name") from None
    if is_checkpoint:
        return family(_family_of(folder)), str(folder)
    if there and folder.suffix in (".safetensors", ".gguf"):
        raise ModelError(f"expected a family before a file of weights, such as ltx-video:{model}, got the file alone")
    if there:
        raise ModelError(f"expected a folder with a model_index.json (diffusers layout), got {model}: it has none")
    if _HUB_ID.fullmatch(model):
        return family(_family_of_hub_id(model)), model
    raise ModelError(f"expected {', '.join(LISTED)}, a checkpoint's folder or a hub id such as ali-vilab/i2vgen-xl, got {model!r}")


def _with_file(name: str, file: Path) -> tuple[type[VideoModel], str]:
    """A family with its network's weights from a file; the other components are those of its checkpoint."""
    from i2v_lab.models.stock.model import model_class

    if not file.is_file():
        raise ModelError(f"{file}: no such file; check the name after {name}:")
    return model_class(STOCK[name], file), find(name)[1]


def _family_of_hub_id(hub_id: str) -> str:
    for name, known in CHECKPOINTS.items():
        if known == hub_id:
            return name
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(hub_id, "model_index.json")
    return _family_of(Path(index).parent) if isinstance(index, str) else "i2vgen-xl"


def _family_of(folder: Path) -> str:
    from i2v_lab.models.stock.recognise import recognise

    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"expected a model_index.json with a _class_name, got {index}: {error}; fetch the checkpoint again"
        ) from None
    if name == I2VGEN_XL:
        return "i2vgen-xl"
    if found := recognise(folder):
        return found[0]
    raise ModelError(f"expected a checkpoint of {', '.join(CHECKPOINTS)}, got {name} in {index}; choose another checkpoint")


class Identity(NamedTuple):
    """The part of a model that decides pixels, known without loading it; see VideoModel."""

    name: str
    fingerprint: str
    device: str
    dtype: str


class Handle:
    """One model as a run needs it: who it is, what it can make, what that costs; and the model itself, loaded when asked for.

    Get one from `open`. The model that was loaded last is kept, so that clip after clip pays for loading once.

    Attributes:
        family: the class of the model; its attributes say what it is.
        checkpoint: folder or hub id; "" where the family has none.
        parallel: on how many devices.
    """

    def __init__(self, family: type[VideoModel], checkpoint: str, asked: Asked, loaded: VideoModel | None = None) -> None:
        self.family, self.checkpoint = family, checkpoint
        self._asked, self.parallel = asked, asked.parallel
        self._given = loaded

    @property
    def loaded(self) -> VideoModel | None:
        """The model, if it is in memory already: as its files are now, since a checkpoint may be replaced under its name."""
        kept = _loaded.get(self._asked)
        if self._given or kept is None or not self.checkpoint:
            return self._given or kept
        return kept if kept.fingerprint == self.identity.fingerprint else None

    @cached_property
    def identity(self) -> Identity:
        """Who the model is. A checkpoint that is not on this machine yet is fetched for it.

        Raises:
            ModelError: it cannot be found or fetched.
        """
        if (found := self.identity_here) is None:
            if not self.checkpoint:
                raise ModelError(f"{self.family.name}: no repository of the hub holds all its parts; put them into "
                                 f"{CHECKPOINT_FOLDER / self.family.name} as docs/models.md says, or give their folder")  # fmt: skip
            from i2v_lab.models.checkpoint import open_checkpoint

            open_checkpoint(self.checkpoint, self._layout)
            found = self._identify()
        if found is None:
            raise ModelError(f"{self._asked.model}: was fetched and is not there; try again")
        return found

    @cached_property
    def identity_here(self) -> Identity | None:
        """As `identity`; None where the checkpoint would have to be fetched first."""
        return self._identify()

    def _identify(self) -> Identity | None:
        if self._given or not self.checkpoint:
            known = self._given or self.family
            if known is self.family and known.name in STOCK:
                return None
            return Identity(known.name, known.fingerprint, known.device, known.dtype)
        from i2v_lab.models.checkpoint import identify

        asked = self._asked
        known_here = identify(self.checkpoint, self._layout, None if asked.device == "auto" else asked.device, asked.dtype)
        return Identity(self.family.name, *known_here) if known_here else None

    @property
    def tiers(self) -> tuple[int, ...]:
        """The tiers of the memory ladder that it has on its device, in the order they are tried."""
        tiers = self.family.tiers(self.identity.device)
        return tiers if self.parallel == 1 else tuple(tier for tier in tiers if tier in SHARED_TIERS)

    def check(self, params: ClipParams) -> None:
        """Raise UnsupportedParams, naming the nearest params that work, if the family cannot make the clip."""
        self.family.check(params)
        check(self.family, params, self.parallel, self.checkpoint)

    def load(self, progress: Progress | None = None, tier: int = 0) -> VideoModel:
        """The model, loaded.

        Args:
            progress: receives the stage "load".
            tier: the tier of the memory ladder to load it for; a model that is loaded already stays on its own.

        Raises:
            ModelError: it cannot be found or loaded. OutOfMemory: the weights do not fit.
        """
        if (model := self.loaded) is None:
            unload()  # before the next one is loaded: two rarely fit
            loader: Any = self.family
            asked = self._asked
            if asked.parallel > 1:
                from i2v_lab.models.parallel.model import SharedModel

                shared: Any = SharedModel(asked.model, self.identity, asked.parallel)
                shared.load(progress or Progress(), tier)
                _loaded[asked] = shared
            elif self.checkpoint:
                where = None if asked.device == "auto" else asked.device
                kept = {} if asked.quantization == "none" else {"quantization": asked.quantization}
                _loaded[asked] = loader.load(self.checkpoint, device=where, dtype=asked.dtype, progress=progress, tier=tier, **kept)
            else:
                _loaded[asked] = loader()
            model = _loaded[asked]
            if self.checkpoint and model.fingerprint != self.identity.fingerprint:
                unload()
                raise ModelError(f"{self.checkpoint}: its files changed while it was loaded; try again")
        return model

    @property
    def _layout(self) -> Any:
        return self.family.layout  # type: ignore[attr-defined]


def open(
    model: str | VideoModel, device: str = "auto", dtype: str = "auto", quantization: str = "none", parallel: int = 1
) -> Handle:
    """A model by its name, or one that is loaded already; nothing is loaded or fetched here.

    Args:
        model: as in ClipParams.
        device: auto, cpu, cuda, cuda:N, xpu, xpu:N or mps.
        dtype: as in ClipParams.
        quantization: how its weights are kept (clip/levers.py:kept_as).
        parallel: on how many devices, from `device` on. A loaded model stays on its own.

    Raises:
        ModelError: no such family, folder or hub id.
    """
    if isinstance(model, str):
        return Handle(*find(model), Asked(model, device, dtype, quantization, parallel))
    return Handle(type(model), "", Asked("", "", "", "", 1), model)


def unload() -> None:
    """Let go of the kept model, so that its memory can be used."""
    if _loaded:
        _loaded.clear()
        gc.collect()  # pipelines of diffusers hold their networks in cycles


def local_checkpoints() -> dict[str, str]:
    """Checkpoints that can be used without a network: folder or hub id -> family."""
    found = {}
    for index in sorted(CHECKPOINT_FOLDER.glob("*/model_index.json")):
        try:
            found[str(index.parent)] = _family_of(index.parent)
        except ModelError:
            continue  # another pipeline's folder is no fault
    from huggingface_hub import try_to_load_from_cache

    for name, hub_id in CHECKPOINTS.items():
        if isinstance(try_to_load_from_cache(hub_id, "model_index.json"), str):
            found[hub_id] = name
    return found


def preset(model: str, name: str) -> Mapping[str, Any]:
    """The fields of ClipParams that a preset sets for a model: quick, few-steps, fast, fast-cpu, standard, high or extreme; or a file, such as
    winner.yaml of a tune.

    A file may set the model too. Raises ParamsError: no such preset, or the file has something else than fields of ClipParams.
    """
    if name.lower().endswith((".yaml", ".yml", ".json")):
        return _preset_file(Path(name))
    presets = find(model)[0].presets
    if name not in presets:
        raise ParamsError(f"preset: expected {', '.join(presets)} or a file such as winner.yaml, got {name!r}")
    return presets[name]


def _preset_file(path: Path) -> Mapping[str, Any]:
    expected = "fields such as guidance_scale: 9"
    found = parse_yaml(read_text(path, ParamsError, expected), ParamsError, expected)
    if unknown := [field for field in found if field not in ClipParams.model_fields]:
        raise ParamsError(f"{path}: {unknown[0]}: unknown name; {meant(unknown[0], ClipParams.model_fields)}")
    try:
        ClipParams(**{"image": "x", **found})
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    return found


def advice(params: ClipParams, image: Picture | None = None) -> list[Advice]:
    """What is allowed and will probably disappoint: of any model, of this model's family, and of the picture."""
    found = []
    with suppress(ModelError):  # a model that cannot be found is an error, raised where it is loaded
        kind = find(params.model)[0]
        found = (params_advice(params) if params.model not in STOCK and kind.name not in STOCK else []) + kind.advice(params)
        if image and len(kind.only_sizes) != 1:
            found += _shape_advice(params, image)
    return found + (_picture_advice(params, image) if image else [])


def _shape_advice(params: ClipParams, image: Picture) -> list[Advice]:
    """A size that is higher than wide for a picture that is wider than high, or the other way round: mostly a slip."""
    height, width = params.height, params.width
    if (height - width) * (image.height - image.width) >= 0:
        return []
    kept = image.crop_box(height, width)
    cut = round(100 * (1 - (kept[2] - kept[0]) * (kept[3] - kept[1]) / (image.width * image.height)))
    what = Message(f"{params.resolution} is {height} high x {width} wide, and the picture is {image.height} high x {image.width} wide",
                   "resolution.turned", height=height, width=width, high=image.height, wide=image.width, cut=cut)  # fmt: skip
    if cut < CUT_SHOWN:
        return []
    return [Advice("resolution", what, f"{cut} % of the picture is cut off", "auto takes the picture's own shape")]


def _picture_advice(params: ClipParams, image: Picture) -> list[Advice]:
    found = []
    enlarged = image.upscale(params.height, params.width)
    if enlarged > 1.05:
        times = f"{enlarged:.1f}"
        what = Message(f"{image.width}x{image.height} pixels are enlarged {times} times", "picture.enlarged", width=image.width,
                       height=image.height, times=times)  # fmt: skip
        why, remedy = "the clip is no sharper than the picture", "use a larger picture or a smaller resolution"
        found.append(Advice("image", what, why, remedy))
    if enlarged < 4 and image.sharpness(params.height, params.width) < BLURRED_BELOW:
        what = Message("blurred", "picture.blurred")
        found.append(Advice("image", what, "a blurred picture gives a blurred clip", "use a sharper picture"))
    return found
