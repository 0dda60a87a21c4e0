"""Reading requests: JSON, a form with a picture, pictures in data URLs.

Whatever is wrong is one ApiError that names the field. A picture is written into the output folder under its sha256, and
nowhere else. Of its file name only a known suffix is used.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ModelError, ParamsError, PictureError, UnsupportedParams, explain
from i2v_lab.rights import make_file, make_folder
from i2v_lab.run import portable
from i2v_lab.server.schemas import PREDICT_NAMES
from i2v_lab.settings import Server
from i2v_lab.store import Store

M = TypeVar("M", bound=BaseModel)

_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "heic", "heif", "ppm", "jp2", "tga"})
# A path of this machine in a sentence: only its last part is shown.
_PATH = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/:;,'\"]+[\\/])+")


class ApiError(HTTPException):
    """A request that is refused: status, field ("" for the whole request), message in a user's words."""

    def __init__(self, status: int, field: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.field = field


def without_paths(text: str) -> str:
    """The text without the folders of this machine."""
    return _PATH.sub("", text)


def read(model: type[M], sent: bytes | Mapping[str, Any]) -> M:
    """A body in JSON, or the texts of a form.

    Raises:
        ApiError: 400 where it is not JSON, 422 where the model does not take it.
    """
    try:
        return model.model_validate_json(sent) if isinstance(sent, bytes) else model.model_validate(sent, strict=False)
    except ValidationError as error:
        raise refused(error.errors(), model) from None


def refused(faults: Sequence[Any], model: type[BaseModel]) -> ApiError:
    """The answer to a request that `model` does not take: the first field that is wrong, and all that is wrong."""
    if faults[0]["type"] == "json_invalid":
        reason = faults[0].get("ctx", {}).get("error", "") or faults[0]["msg"]
        return ApiError(400, "body", f"expected JSON, got: {reason}")
    place = list(faults[0]["loc"])
    if len(place) > 1 and place[0] == "data" and isinstance(place[1], int) and place[1] < len(PREDICT_NAMES):
        place.insert(2, f"({PREDICT_NAMES[place[1]]})")
    field = ".".join(str(part)[:60] for part in place).replace(".(", " (") or "body"
    found: Any = SimpleNamespace(errors=lambda: faults)
    return ApiError(422, field, without_paths(explain(found, model)))


def check_once(names: Sequence[str]) -> None:
    """A parameter may be given once."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ApiError(422, twice[:60], f"expected it once, got it {names.count(twice)} times")


async def read_form(request: Request, limit: int) -> dict[str, str | UploadFile]:
    """The fields of a multipart form. A form has no null: "null" leaves a field out that may be none.

    Args:
        limit: of one text, in bytes; a picture may be a data URL.
    """
    try:
        items = (await request.form(max_part_size=limit)).multi_items()
    except StarletteHTTPException as error:
        raise ApiError(400, "body", f"expected multipart/form-data: {error.detail}") from None
    if not items:
        raise ApiError(400, "body", "expected multipart/form-data with a field, got none")
    check_once([name for name, _ in items])
    optional = {name for name, field in ClipParams.model_fields.items() if field.default is None}
    return {name: value for name, value in items if value != "null" or name not in optional}


def keep_image(image: str, field: str, store: Store) -> str:
    """What `ClipParams.image` is for the picture of a checked request: a sample as it is; data is kept in the output folder."""
    if image.startswith("sample:"):
        return image
    head, _, text = image.partition(";base64,")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise ApiError(422, field, "expected base64 after the comma, got something else") from None
    return keep_bytes(data, head.lower().removeprefix("data:image/").removeprefix("x-"), field, store)


def keep_bytes(data: bytes, kind: str, field: str, store: Store) -> str:
    """Check that the bytes are a picture, and keep them in pictures/ under their sha256. Returns the path."""
    part = store.pictures / f".{secrets.token_hex(8)}{f'.{kind}' if kind in _SUFFIXES else ''}"
    try:
        make_folder(store.pictures)
        make_file(part)
        part.write_bytes(data)
        return str(store.keep_picture(part, open_picture(part).sha256))
    except PictureError as error:
        message = str(error).removeprefix(f"{part}: ").replace(str(part), "the picture")
        raise ApiError(422, field, without_paths(message)) from None
    except OSError as error:
        raise ApiError(507, field, f"the picture cannot be kept: {error.strerror or 'error'}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def to_params(values: Mapping[str, Any], limits: Server, *, check: bool = True) -> ClipParams:
    """ClipParams of a checked request with nothing left open, checked again by ClipParams and (`check`) by the model's family.

    Args:
        values: what was asked for; see `schemas.asked`. The picture is looked at where its shape decides the size.
        limits: of this server; a family's own defaults may be above them.

    Raises:
        ApiError: 422; 409 where the model cannot make this clip, or it is longer than this server allows.
    """
    try:
        params = models.resolve(ClipParams(**values))
        if max(params.height, params.width) > limits.max_side:
            came = f"{params.height}x{params.width}"
            raise ParamsError(
                f"resolution: expected sides of at most {limits.max_side} pixels on this server, got {came}; name a smaller one"
            )
        most = limits.max_num_frames
        if params.num_frames > most and values.get("seconds") is not None:
            raise UnsupportedParams(
                f"seconds: expected at most {most} frames on this server, got {params.num_frames} at {float(params.fps):g} frames/s; "
                "ask for less"
            )
        if params.num_frames > most:
            raise ParamsError(f"num_frames: expected at most {most} on this server, got {params.num_frames}; name fewer")
        if check:
            models.find(params.model)[0].check(params)
    except (ParamsError, UnsupportedParams) as error:
        name = str(error).partition(":")[0]
        # 409: each value is legal, but this model or this server cannot make a clip of all of them.
        status = 409 if isinstance(error, UnsupportedParams) else 422
        raise ApiError(status, name if name in ClipParams.model_fields else "body", without_paths(str(error))) from None
    except ModelError as error:
        raise ApiError(422, "model", without_paths(str(error))) from None
    return params


def shown_params(params: str) -> dict[str, Any]:
    """The params of a job as they are shown: without the folders of this machine."""
    try:
        return portable(ClipParams(**json.loads(params)))
    except ParamsError:
        return {}
