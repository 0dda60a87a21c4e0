"""Reading requests: JSON, a form with a picture, pictures in data URLs.

Whatever is wrong is one ApiError that names the field. A picture is written into the output folder under its sha256, and
nowhere else. Of its file name only a known suffix is used.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import ParamsError, PictureError, explain
from i2v_lab.server.schemas import DATA_URL, PREDICT_NAMES, Limits
from i2v_lab.store import Store

M = TypeVar("M", bound=BaseModel)

_SUFFIXES = {
    "jpeg": ".jpg", "jpg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "tiff": ".tif", "bmp": ".bmp", "avif": ".avif",
    "heic": ".heic", "heif": ".heif",    "x-portable-pixmap": ".ppm", "jp2": ".jp2", "x-tga": ".tga",
}  # fmt: skip
_FORM = "image"  # the field of a form that is a file
# A path of this machine in a sentence: only its last part is shown.
_PATH = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/:;,'\"]+[\\/])+")


class ApiError(HTTPException):
    """A request that is refused: status, field ("" for the whole request), message in a user's words."""

    def __init__(self, status: int, field: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.field = field


class Faults(NamedTuple):
    """Faults of a validation, as `errors.explain` reads them."""

    found: Sequence[Any]

    def errors(self) -> Sequence[Any]:
        return self.found

    def error_count(self) -> int:
        return len(self.found)


def without_paths(text: str) -> str:
    """The text without the folders of this machine."""
    return _PATH.sub("", text)


def read_json(model: type[M], body: bytes) -> M:
    """A body in JSON.

    Raises:
        ApiError: 400 where it is not JSON, 422 where the model does not take it.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise refused(error.errors(), model) from None


def read_texts(model: type[M], values: Mapping[str, Any]) -> M:
    """The values of a form, which are texts."""
    try:
        return model.model_validate(values, strict=False)
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
    return ApiError(422, field, without_paths(explain(Faults(faults), model)))  # type: ignore[arg-type]


async def read_form(request: Request, limit: int) -> tuple[dict[str, str], bytes, str]:
    """A multipart form: (its texts, the bytes of the picture, the name of its file).

    Args:
        limit: of one text, in bytes; a picture may be a data URL.
    """
    try:
        items = (await request.form(max_part_size=limit)).multi_items()
    except StarletteHTTPException as error:
        raise ApiError(400, "body", f"expected multipart/form-data: {error.detail}") from None
    if not items:
        raise ApiError(400, "body", "expected multipart/form-data with a field, got none")
    names = [name for name, _ in items]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ApiError(422, twice[:60], f"expected it once, got it {names.count(twice)} times")
    texts = {name: value for name, value in items if isinstance(value, str)}
    files = {name: value for name, value in items if isinstance(value, UploadFile)}
    if odd := next((name for name in files if name != _FORM), None):
        raise ApiError(422, odd[:60], f"expected one file, called {_FORM}")
    if _FORM not in names:
        raise ApiError(422, _FORM, "missing: expected the picture's file")
    file = files.get(_FORM)
    return texts, (await file.read() if file else b""), (file.filename or "" if file else "")


def keep_image(image: str, field: str, store: Store) -> str:
    """What `ClipParams.image` is for the picture of a request: a sample as it is; data is kept in the output folder."""
    if image.startswith("sample:"):
        return image
    head = DATA_URL.match(image)
    if head is None:
        raise ApiError(422, field, "expected data:image/png;base64,...")
    try:
        data = base64.b64decode(image[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(422, field, "expected base64 after the comma, got something else") from None
    kind = head[0].lower().removeprefix("data:image/").partition(";")[0]
    return _keep_bytes(data, _SUFFIXES.get(kind, ""), field, store)


def keep_file(data: bytes, name: str, store: Store) -> str:
    """As `keep_image`, for a file of a form."""
    suffix = Path(name).suffix.lower().removeprefix(".").replace("tif", "tiff").replace("tifff", "tiff")
    return _keep_bytes(data, _SUFFIXES.get(suffix, ".tga" if suffix == "tga" else ""), _FORM, store)


def _keep_bytes(data: bytes, suffix: str, field: str, store: Store) -> str:
    """Check that the bytes are a picture, and keep them in pictures/ under their sha256. Returns the path."""
    part = store.pictures / f".{secrets.token_hex(8)}{suffix}"
    try:
        store.pictures.mkdir(parents=True, exist_ok=True)
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


def to_params(values: Mapping[str, Any], limits: Limits, *, check: bool = True) -> ClipParams:
    """ClipParams of a checked request, checked again by ClipParams and (`check`) by the model's family.

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
        # 409: each value is legal, but this model cannot make a clip of all of them.
        status = 409 if isinstance(error, UnsupportedParams) else 422
        raise ApiError(status, name if name in ClipParams.model_fields else "body", without_paths(str(error))) from None
    except ModelError as error:
        raise ApiError(422, "model", without_paths(str(error))) from None
    return params


def shown_params(params: str) -> dict[str, Any]:
    """The params of a job as they are shown: without the folders of this machine."""
    from i2v_lab.run import portable

    try:
        return portable(ClipParams(**json.loads(params)))
    except ParamsError:
        return {}
