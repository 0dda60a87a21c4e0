"""Requests and answers of the API as pydantic models made from ClipParams, which describes each parameter once.

A request takes less than ClipParams: the picture is data (never a path), the model is one that is known here (never a folder
or a hub id), and the numbers are within the limits of this server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, create_model
from pydantic.fields import FieldInfo

from i2v_lab import models
from i2v_lab.clip.params import FPS_MAX, SIDE_MIN, SQUARES, ClipParams, resolution_size
from i2v_lab.clip.picture import SAMPLES
from i2v_lab.settings import Settings
from i2v_lab.store.jobs import JobState

DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)
PICTURE_FORMAT = "picture-data-url"
ID_PATTERN = r"^[0-9]{8}T[0-9]{6}\.[0-9]{6}-[0-9a-f]{8}$"
FPS_PATTERN = r"^(([1-9][0-9]?|1[01][0-9])(\.[0-9]{1,2})?|120(\.00?)?|(24000|30000|60000)/1001)$"


class Limits(NamedTuple):
    """What a request may ask for: {name of a model: what run_clip gets}, the default model, the largest clip."""

    models: Mapping[str, str]
    default_model: str
    num_frames: int
    side: int


def limits_of(settings: Settings) -> Limits:
    """The limits as they are now, with the checkpoints that are on this machine now."""
    known = {name: name for name in models.LISTED if name not in models.CHECKPOINTS}
    here = models.local_checkpoints()
    known.update({Path(place).name if Path(place).is_dir() else place: place for place in here})
    known.update({family: family for family in here.values()})
    names = {value: name for name, value in known.items()}
    default = names.get(settings.model, settings.model)  # the operator's own choice, whatever it is
    return Limits({**known, default: settings.model}, default, settings.server.max_num_frames, settings.server.max_side)


def number_pattern(low: int, high: int) -> str:
    """A regular expression for the whole numbers from low to high, which have 2 to 4 digits."""
    parts = []
    while low <= high:
        # The widest block of nines that starts at low: 64-69, 70-99, 100-999, ...
        size = 1
        while low % (size * 10) == 0 and low + size * 10 - 1 <= high:
            size *= 10
        last = low
        while last % (size * 10) // size < 9 and last + 2 * size - 1 <= high:
            last += size
        zeros = len(str(size)) - 1
        head, first, final = str(low // size)[:-1], str(low // size)[-1], str(last // size)[-1]
        parts.append(head + (first if first == final else f"[{first}-{final}]") + "[0-9]" * zeros)
        low = last + size
    return "(" + "|".join(parts) + ")"


def _whole(value: Any) -> Any:
    """5.0 is the whole number 5 in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _halves(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("expected a number, or text such as 24000/1001")
    if isinstance(value, str):
        if not re.fullmatch(FPS_PATTERN[1:-1], value):
            raise ValueError("expected a decimal such as 12.5, or 24000/1001, 30000/1001 or 60000/1001")
        return value
    if not (1 <= value <= FPS_MAX and (2 * value) % 1 == 0):
        raise ValueError(f"expected 1 to {FPS_MAX} in steps of 0.5 (others as text, such as 24000/1001)")
    return value


def _picture(value: str) -> str:
    if value.startswith("sample:"):
        if value.removeprefix("sample:") not in SAMPLES:
            raise ValueError(f"expected one of {', '.join('sample:' + name for name in SAMPLES)}")
    elif not DATA_URL.match(value):
        raise ValueError("expected the picture itself as data:image/png;base64,... or sample:coffee, never a path of the server")
    return value


DataUrl = Annotated[
    str,
    AfterValidator(_picture),
    WithJsonSchema({
        "anyOf": [{"type": "string", "format": PICTURE_FORMAT},
                  {"enum": [f"sample:{name}" for name in SAMPLES]}],
        "description": "the picture: data:image/png;base64,... (or jpeg, webp, ...), or a shipped photograph",
    }),
]  # fmt: skip
ApiFps = Annotated[
    Any,
    BeforeValidator(_halves),
    WithJsonSchema({
        "anyOf": [{"type": "number", "minimum": 1, "maximum": 120, "multipleOf": 0.5}, {"type": "string", "pattern": FPS_PATTERN}],
        "description": "playback rate of the file, frames/s; 24000/1001 is exact",
    }),
]  # fmt: skip
_ABOUT = ("description", "title")


def _field(name: str, about: FieldInfo, limits: Limits) -> tuple[Any, Any]:
    """The type and default of a field of ClipParams, as the API takes it."""
    default: Any = ... if about.is_required() else about.get_default(call_default_factory=True)
    if name == "image":
        return DataUrl, ...
    if name == "fps":
        return ApiFps, 8
    help = about.description
    if name == "model":
        return Annotated[Literal[tuple(limits.models)], Field(description="a model of GET /api/models")], limits.default_model
    if name == "resolution":
        side = number_pattern(SIDE_MIN, limits.side)
        squares = "|".join(str(square) for square in SQUARES if square <= limits.side)
        pattern = rf"^(({squares})p?|{side}x{side})$"
        fits = default if resolution_size(default)[0] <= limits.side else f"{limits.side}x{limits.side}"
        return Annotated[str, StringConstraints(pattern=pattern), Field(description=help)], fits
    if name == "num_frames":
        few = Field(ge=2, le=limits.num_frames, description=help)
        return Annotated[int, few, BeforeValidator(_whole)], min(default, limits.num_frames)
    kind: Any = Annotated[(about.annotation, *about.metadata, Field(description=help))]
    return (Annotated[kind, BeforeValidator(_whole)] if about.annotation is int else kind), default


_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_QUERY = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def clip_request(limits: Limits) -> type[BaseModel]:
    """The model of `POST /api/clips` in JSON: every field of ClipParams."""
    return _request("ClipRequest", limits, [])


def plan_request(limits: Limits) -> type[BaseModel]:
    """The model of the query of `GET /api/plan`: all but the picture. A query is text, so it is not strict."""
    return _request("PlanRequest", limits, ["image"], _QUERY)


def _request(title: str, limits: Limits, without: list[str], config: ConfigDict = _STRICT) -> type[BaseModel]:
    chosen: dict[str, Any] = {
        name: _field(name, about, limits) for name, about in ClipParams.model_fields.items() if name not in without
    }
    return create_model(title, __config__=config, __doc__="The parameters of one clip.", **chosen)


class PredictPicture(BaseModel):
    """A picture as browsers read it: its file name, and its bytes as a data URL."""

    model_config = _STRICT

    name: Annotated[str, Field(max_length=255, description="the file's name; it is not used")] = ""
    data: DataUrl


PREDICT_NAMES = ("image", "prompt", "resolution", "num_frames", "fps", "num_inference_steps", "guidance_scale")


def predict_request(limits: Limits) -> type[BaseModel]:
    """The model of `POST /api/predict`: the seven values in their order."""
    fields = ClipParams.model_fields
    squares: Any = Literal[tuple(square for square in SQUARES if square <= limits.side)]
    resolution = Annotated[squares, BeforeValidator(_whole), Field(description="side of the square clip in pixels")]
    kinds = [_field(name, fields[name], limits)[0] for name in PREDICT_NAMES[3:]]
    prompt = _field("prompt", fields["prompt"], limits)[0]
    kind: Any = tuple.__class_getitem__((PredictPicture, prompt, resolution, *kinds))
    # Not strict: an array of JSON is a list. What is in it is strict.
    data: Any = Annotated[kind, Field(strict=False, description=f"in this order: {', '.join(PREDICT_NAMES)}")]
    return create_model(
        "PredictRequest",
        __config__=_STRICT,
        __doc__="What scripts for web pages with a picture and a prompt send.",
        data=(data, ...),
    )


class PredictQuery(BaseModel):
    """The query of `POST /api/predict`."""

    model_config = _QUERY

    urls: Annotated[Literal["absolute", "relative"], Field(description="how the clip's URL is written")] = "absolute"


class ListQuery(BaseModel):
    """The query of `GET /api/clips`."""

    model_config = _QUERY

    limit: Annotated[int, Field(ge=1, le=1000, description="so many at most")] = 100
    # Not `| None`: a query has no null, and the error of a union would name its branches.
    state: Annotated[JobState, Field(description="only these")] = None  # type: ignore[assignment]


# Answers


class Result(BaseModel):
    """The clip of a done job. `made_before`: an equal clip was there already, and is the answer."""

    url: Annotated[str, Field(description="path of the MP4 on this server")]
    seconds: Annotated[float, Field(description="what the run took")]
    peak_gib: Annotated[float | None, Field(description="highest memory, GiB")]
    file_bytes: int | None
    frames_sha256: str
    made_before: bool
    run: Annotated[str, Field(description="id of the run in the record of runs")]


class JobAnswer(BaseModel):
    """One clip that was asked for, and how far it is."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    state: JobState
    reason: Annotated[str, Field(description="why there is no clip; empty otherwise")]
    stage: Annotated[str, Field(description="wait (for the device), load, encode, denoise, decode, write or measure; empty before")]
    step: Annotated[int, Field(ge=0)]
    steps: Annotated[int | None, Field(description="of the stage; null where it is not known")]
    place: Annotated[int | None, Field(description="in the queue: 0 runs, 1 is next; null once it ended")]
    seconds_left: Annotated[float | None, Field(description="until the clip is done, about; null where it is not known")]
    params: dict[str, Any]
    created: datetime
    started: datetime | None
    finished: datetime | None
    result: Result | None


class JobList(BaseModel):
    """The newest jobs, the newest first."""

    clips: list[JobAnswer]


class PredictAnswer(BaseModel):
    """The clip: `data` is its URL and the parameters."""

    data: Annotated[list[str | dict[str, Any]], Field(min_length=2, max_length=2)]
    duration: Annotated[float, Field(description="seconds from the request to the clip")]


class ModelAnswer(BaseModel):
    """One model that clips can be made with."""

    name: str
    about: str
    licence: str
    native_size: tuple[int, int]
    size_multiple: int
    presets: dict[str, dict[str, Any]]


class ModelsAnswer(BaseModel):
    """The models of this server, and the one that is used where none is named."""

    default: str
    models: list[ModelAnswer]


class Near(BaseModel):
    """A smaller clip that would fit."""

    resolution: str
    num_frames: int


class PlanAnswer(BaseModel):
    """What a clip would take, before it is made; null where it cannot be predicted."""

    fits: Annotated[bool | None, Field(description="whether it fits into the memory that is free now")]
    sentence: Annotated[str, Field(description="the plan in words")]
    tier: Annotated[int | None, Field(description="tier of the memory ladder on which it fits")]
    peak_gib: float | None
    free_gib: float | None
    flops: float | None
    seconds: float | None
    nearest: Annotated[list[Near], Field(description="where it does not fit: smaller clips that do")]


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"
    version: str


class Fault(BaseModel):
    """What is wrong: the field (or the part of the request), and what was expected, what came, what to do."""

    field: str
    message: str


class ErrorAnswer(BaseModel):
    """Every answer with a status of 400 or more."""

    error: Fault


def moment(seconds: float) -> datetime:
    """A time of the queue in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
