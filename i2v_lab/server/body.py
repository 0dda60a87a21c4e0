"""Reading what a request brings: JSON, a form with a picture, a query; and pictures out of data URLs.

Whatever is wrong is one ApiError that names the field. A picture is written into the output folder under its sha256, and
nowhere else; its name only tells the decoder what it may be.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from tornado import httputil, web

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ParamsError, PictureError, explain
from i2v_lab.server.schemas import DATA_URL, PREDICT_NAMES, Limits
from i2v_lab.store import Store

M = TypeVar("M", bound=BaseModel)

_SUFFIXES = {
    "jpeg": ".jpg", "jpg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "tiff": ".tif", "bmp": ".bmp", "avif": ".avif",
    "x-portable-pixmap": ".ppm", "jp2": ".jp2", "x-tga": ".tga",
}  # fmt: skip
_FORM = "image"  # the field of a form that is a file
# A path of this machine in a sentence: of it only the last part is told.
_PATH = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/:;,'\"]+[\\/])+")


class ApiError(web.HTTPError):
    """A request that cannot be served, as it is told: status, field ("" for the whole), message in a user's words."""

    def __init__(self, status: int, field: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.field, self.message, self.more_headers = field, message, headers or {}


def without_paths(text: str) -> str:
    """The text, with the folders of this machine left out."""
    return _PATH.sub("", text)


def read_json(model: type[M], body: bytes) -> M:
    """A body in JSON.

    Raises:
        ApiError: 400 where it is not JSON, 422 where it is not what `model` says.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error, model) from None


def read_texts(model: type[M], values: Mapping[str, Any]) -> M:
    """The values of a form or a query, which are texts."""
    try:
        return model.model_validate(values, strict=False)
    except ValidationError as error:
        raise _refused(error, model) from None


def _refused(error: ValidationError, model: type[BaseModel]) -> ApiError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "body", f"expected JSON, got {first['msg'].removeprefix('Invalid JSON: ')}")
    place = list(first["loc"])
    if len(place) > 1 and place[0] == "data" and isinstance(place[1], int) and place[1] < len(PREDICT_NAMES):
        place.insert(2, f"({PREDICT_NAMES[place[1]]})")
    field = ".".join(str(part)[:60] for part in place).replace(".(", " (") or "body"
    return ApiError(422, field, without_paths(explain(error, model)))


def read_form(body: bytes, headers: httputil.HTTPHeaders) -> tuple[dict[str, str], bytes, str]:
    """A multipart form: (its texts, the bytes of the picture, the name of its file)."""
    texts: dict[str, list[bytes]] = {}
    files: dict[str, list[httputil.HTTPFile]] = {}
    try:
        httputil.parse_body_arguments(headers["Content-Type"], body, texts, files, headers)
        values = {name: _once(name, found).decode() for name, found in texts.items()}
    except (httputil.HTTPInputError, ValueError, KeyError) as error:
        raise ApiError(400, "body", f"expected multipart/form-data in UTF-8, got {str(error)[:120] or 'another text'}") from None
    if odd := [name for name in files if name != _FORM]:
        raise ApiError(422, odd[0][:60], f"expected one file, called {_FORM}")
    file = _once(_FORM, files[_FORM]) if files else None
    if file is None and _FORM not in values:
        raise ApiError(422, _FORM, "missing: expected the picture's file")
    if file is not None and _FORM in values:
        raise ApiError(422, _FORM, "expected it once, got it twice")
    return values, (file["body"] if file else b""), (file["filename"] if file else "")


def _once(name: str, found: list[Any]) -> Any:
    if len(found) != 1:
        raise ApiError(422, name[:60], f"expected it once, got it {len(found)} times")
    return found[0]


def keep_image(image: str, field: str, store: Store) -> str:
    """What `ClipParams.image` is for the picture of a request: a sample as it is, data kept in the output folder."""
    if image.startswith("sample:"):
        return image
    head = DATA_URL.match(image)
    if head is None:
        raise ApiError(422, field, "expected data:image/png;base64,...")
    try:
        data = base64.b64decode(image[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(422, field, "expected base64 behind the comma, got something else") from None
    kind = head[0].lower().removeprefix("data:image/").partition(";")[0]
    return keep_bytes(data, _SUFFIXES.get(kind, ""), field, store)


def keep_file(data: bytes, name: str, store: Store) -> str:
    """As `keep_image`, for a file of a form; of its name only a known suffix is used."""
    suffix = Path(name).suffix.lower().removeprefix(".").replace("tif", "tiff").replace("tifff", "tiff")
    return keep_bytes(data, _SUFFIXES.get(suffix, ".tga" if suffix == "tga" else ""), _FORM, store)


def keep_bytes(data: bytes, suffix: str, field: str, store: Store) -> str:
    """Check that the bytes are a picture, and keep them in pictures/ under their sha256. Returns the path."""
    part = store.pictures / f".{secrets.token_hex(8)}{suffix}"
    try:
        store.pictures.mkdir(exist_ok=True)
        part.write_bytes(data)
        return str(store.keep_picture(part, open_picture(part).sha256))
    except PictureError as error:
        told = str(error).removeprefix(f"{part}: ").replace(str(part), "the picture")
        raise ApiError(422, field, without_paths(told)) from None
    except OSError as error:
        raise ApiError(507, field, f"the picture cannot be kept: {error.strerror or 'error'}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def to_params(values: Mapping[str, Any], limits: Limits, *, check: bool = True) -> ClipParams:
    """ClipParams of a checked request, once more checked by ClipParams and (`check`) by the model's family.

    Raises:
        ApiError: 422; 409 where the model cannot make this clip.
    """
    from i2v_lab import models
    from i2v_lab.errors import ModelError, UnsupportedParams

    try:
        params = ClipParams(**{**values, "model": limits.models[values["model"]]})
        if check:
            models.find(params.model)[0].check(params)
    except (ParamsError, UnsupportedParams) as error:
        name = str(error).partition(":")[0]
        # 409: each value is one that may be given, and this model cannot make a clip of them.
        status = 409 if isinstance(error, UnsupportedParams) else 422
        raise ApiError(status, name if name in ClipParams.model_fields else "body", without_paths(str(error))) from None
    except ModelError as error:
        raise ApiError(422, "model", without_paths(str(error))) from None
    return params


def shown_params(params: str) -> dict[str, Any]:
    """The params of a job as they are told: no folder of this machine."""
    from i2v_lab.run import portable

    try:
        return portable(ClipParams(**json.loads(params)))
    except ParamsError:
        return {}
