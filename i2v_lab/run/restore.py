"""restore: the settings that made a clip, with a picture and a model that are here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from i2v_lab import models
from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ClipError, ModelError, ParamsError, PictureError
from i2v_lab.store import Store


def restore(
    clip: Path, store: Store | None = None, image: str | None = None, model: str | None = None
) -> tuple[ClipParams, Mapping[str, Any]]:
    """The settings that made a clip, with a picture and a model that are here: (params, the record that the clip carries).

    What a clip carries is not trusted. The picture is identified by its hash, and is searched for in the store, beside the
    clip and in the current folder. Nothing is fetched from a hub id that only the clip names.

    Args:
        image: the picture, instead of looking for it. It must be the same.
        model: the model, instead of the one that the clip names.

    Raises:
        ClipError: not a clip, no settings inside, or such as this version does not take.
        PictureError: the picture is not here, or `image` is another. ModelError: the model is not here.
    """
    inside = video.read_settings(clip)
    record, carried = inside.get("record"), inside.get("params")
    sha256 = record.get("image_sha256") if isinstance(record, dict) else None
    if not isinstance(carried, dict) or not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ClipError(f"{clip}: expected the settings of a clip of i2v_lab, got other metadata")
    try:
        params = ClipParams(**carried)
    except ParamsError as error:
        raise ClipError(f"{clip}: carries settings that this version does not take: {error}") from None
    assert isinstance(record, dict)  # noqa: S101 - it had the hash
    made = store.find_done(str(record.get("key"))) if store else None
    here = model or _model_here(params.model, made.params.model if made and made.params else "")
    changes = {"model": here, "image": _picture_here(clip, params.image, sha256, store, image)}
    if params.lora:
        changes["lora"] = _loras_here(params.lora, (made.params.lora if made and made.params else None) or "")
    return params.replace(**changes), record


def _picture_here(clip: Path, carried: str, sha256: str, store: Store | None, image: str | None) -> str:
    """A picture with this hash."""
    if image is not None:
        if (found := open_picture(image).sha256) != sha256:
            raise PictureError(f"{image}: expected the picture that the clip was made from, sha256 {sha256[:16]}…, "
                               f"got another, {found[:16]}…; name that one")  # fmt: skip
        return image
    # Of the path in the clip only the last part is used.
    name = carried if carried.startswith("sample:") else Path(carried).name
    kept = store.find_picture(sha256) if store else None
    for candidate in (kept, name if carried.startswith("sample:") else clip.parent / name, name):
        with suppress(PictureError):
            if candidate and open_picture(candidate).sha256 == sha256:
                return str(candidate)
    raise PictureError(f"expected the picture with sha256 {sha256[:16]}… that the clip was made from; {name!r} was not found in "
                       "the output folder, beside the clip or in the current folder: name it with --image")  # fmt: skip


def _loras_here(carried: str, made_with: str) -> str:
    """The LoRAs of a clip; `made_with` is what the store says. No other file is opened or fetched because a clip names it."""
    if made_with:
        return made_with
    raise ModelError(f"expected the LoRAs that the clip was made with, {carried!r}; no run of this output folder used them: take its "
                     "other settings (i2v-lab show), and make it with i2v-lab generate --lora FILE")  # fmt: skip


def _model_here(carried: str, made_with: str) -> str:
    """The model that a clip names, if it is known without trusting the clip; `made_with` is what the store says."""
    file = made_with.partition(":")[2]
    if made_with and (
        (Path(made_with).expanduser() / "model_index.json").is_file() or (file and Path(file).expanduser().is_file())
    ):
        return made_with
    if models.is_family(carried) or carried in models.CHECKPOINTS.values():
        return carried
    raise ModelError(f"expected the checkpoint that the clip was made with, {carried!r}; no run of this output folder used it, "
                     "and no folder is opened because a clip names it: give its folder or hub id with --model")  # fmt: skip
