"""Requests and answers of the API as pydantic models made from ClipParams, which describes each parameter once.

A request takes less than ClipParams: the picture is data (never a path), the model is one that is known here (never a folder
or a hub id), and the numbers are within the limits of this server.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from i2v_lab import models
from i2v_lab.clip.params import AUTO, SQUARES, ClipParams, parse_fps, resolution_size
from i2v_lab.clip.picture import SAMPLES
from i2v_lab.models.stock.families import FAMILIES as STOCK
from i2v_lab.settings import Settings
from i2v_lab.store.jobs import JobState

DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)
ID_PATTERN = r"^[0-9]{8}T[0-9]{6}\.[0-9]{6}-[0-9a-f]{8}$"


def known_models(settings: Settings) -> dict[str, str]:
    """{name of a model: what run_clip gets}, the default first, with the checkpoints that are on this machine now."""
    known = {name: name for name in models.LISTED if name not in models.CHECKPOINTS and name not in STOCK}  # without weights
    here = models.local_checkpoints()
    known.update({Path(place).name if Path(place).is_dir() else place: place for place in here})
    # Not a family whose only checkpoint here has another name: its own would be fetched.
    known.update({family: family for family in here.values() if models.find(family)[1] in here})
    names = {value: name for name, value in known.items()}
    default = names.get(settings.model, settings.model)  # the operator's own choice, whatever it is
    return {default: settings.model, **known}


def _whole(value: Any) -> Any:
    """5.0 is the whole number 5 in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _half_steps(value: Any) -> Any:
    if isinstance(value, float) and not (2 * value).is_integer():
        raise ValueError("expected steps of 0.5; other rates as text, such as 24000/1001")
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
        "anyOf": [{"type": "string", "format": "picture-data-url"}, {"enum": [f"sample:{name}" for name in SAMPLES]}],
        "description": "the picture: data:image/png;base64,... (or jpeg, webp, ...), or a shipped photograph",
    }),
]  # fmt: skip
ApiFps = Annotated[
    Any,
    BeforeValidator(parse_fps),
    BeforeValidator(_half_steps),
    WithJsonSchema({
        "anyOf": [{"type": "number", "minimum": 1, "maximum": 120, "multipleOf": 0.5}, {"type": "string", "format": "frame-rate"}],
        "description": "playback rate of the file, frames/s; 24000/1001 is exact",
    }),
]  # fmt: skip


def _fields(settings: Settings) -> dict[str, tuple[Any, Any]]:
    """{name: (type, default)} of the fields of ClipParams, as the API takes them."""
    side, longest = settings.server.max_side, settings.server.max_num_frames

    def known(model: str) -> str:
        found = known_models(settings)
        if model not in found:
            raise ValueError(f"expected one of {', '.join(found)}")
        return found[model]

    def fits(resolution: str) -> str:
        if resolution != AUTO and max(resolution_size(resolution)) > side:  # auto: once the picture is known
            raise ValueError(f"expected sides of at most {side} pixels, got {resolution!r}")
        return resolution

    def of(name: str, *more: Any) -> Any:
        about = ClipParams.model_fields[name]
        whole = [BeforeValidator(_whole)] if about.annotation is int else []
        return Annotated[(about.annotation, *about.metadata, *more, Field(description=about.description), *whole)]

    found = {name: (of(name), about.get_default()) for name, about in ClipParams.model_fields.items()}
    model = Field(description="a model of GET /api/models", json_schema_extra={"format": "model-name"}, validate_default=True)
    size = Field(json_schema_extra={"format": "clip-size"})
    return found | {
        "image": (DataUrl, ...),
        "model": (Annotated[str, AfterValidator(known), model], next(iter(known_models(settings)))),
        "resolution": (of("resolution", AfterValidator(fits), size), "512p" if side >= 512 else f"{side}x{side}"),
        "num_frames": (of("num_frames", Field(le=longest)), min(16, longest)),
        "fps": (ApiFps, 8),
    }


def asked(sent: BaseModel) -> dict[str, Any]:
    """{field: value} of what a request gave, with its model; all else is left to the defaults of the model's family.

    A server whose limits are below the usual clip names the size and the length itself.
    """
    lower = {name for name in ("resolution", "num_frames") if _default(type(sent), name) != _default(ClipParams, name)}
    if getattr(sent, "seconds", None) is not None:
        lower.discard("num_frames")
    return {name: value for name, value in sent if name in {*sent.model_fields_set, "model", *lower}}


def _default(model: type[BaseModel], name: str) -> Any:
    return model.model_fields[name].default


_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_QUERY = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def clip_request(settings: Settings) -> type[BaseModel]:
    """The model of `POST /api/clips` in JSON: every field of ClipParams."""
    return create_model("ClipRequest", __config__=_STRICT, __doc__="The parameters of one clip.", **_fields(settings))  # type: ignore[call-overload]


def plan_request(settings: Settings) -> type[BaseModel]:
    """The model of the query of `GET /api/plan`: all but the picture. A query is text, so it is not strict."""
    fields = _fields(settings)
    del fields["image"]
    return create_model("PlanRequest", __config__=_QUERY, **fields)  # type: ignore[call-overload]


class PredictPicture(BaseModel):
    """A picture as browsers read it: its file name, and its bytes as a data URL."""

    model_config = _STRICT

    name: Annotated[str, Field(max_length=255, description="the file's name; it is not used")] = ""
    data: DataUrl


PREDICT_NAMES = ("image", "prompt", "resolution", "num_frames", "fps", "num_inference_steps", "guidance_scale")


def predict_request(settings: Settings) -> type[BaseModel]:
    """The model of `POST /api/predict`: the seven values in their order."""
    fields = _fields(settings)
    squares: Any = Literal[tuple(square for square in SQUARES if square <= settings.server.max_side)]
    resolution = Annotated[squares, BeforeValidator(_whole), Field(description="side of the square clip in pixels")]
    kinds = {name: fields[name][0] for name in PREDICT_NAMES} | {"image": PredictPicture, "resolution": resolution}
    kind: Any = tuple.__class_getitem__(tuple(kinds.values()))
    # Not strict: an array of JSON is a list. What is in it is strict.
    data: Any = Annotated[kind, Field(strict=False, description=f"in this order: {', '.join(PREDICT_NAMES)}")]
    about = "What scripts for web pages with a picture and a prompt send."
    return create_model("PredictRequest", __config__=_STRICT, __doc__=about, data=(data, ...))


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
    worker: Annotated[str, Field(description="HOST:PID of the process, here or on a cluster, that makes or made it; empty before")]
    params: dict[str, Any]
    created: datetime
    started: datetime | None
    finished: datetime | None
    result: Result | None


class JobList(BaseModel):
    """The newest jobs, the newest first."""

    clips: list[JobAnswer]


class WorkerAnswer(BaseModel):
    """One process that makes clips, or the place of one."""

    number: Annotated[int, Field(ge=1)]
    device: Annotated[str, Field(description="as torch calls it; cluster: its clips are made by a worker of a Ray cluster")]
    pid: Annotated[int | None, Field(description="null while there is none: it is started when there is a job for it")]
    state: Annotated[
        Literal["off", "idle", "waits", "works"],
        Field(description="waits: for the device, or for a worker of the cluster that does not answer"),
    ]
    note: Annotated[str, Field(description="what it waits for; empty otherwise")]
    job: Annotated[str | None, Field(description="id of the clip or sweep that it makes")]
    where: Annotated[str, Field(description="HOST:PID of the worker of the cluster that makes it; empty otherwise")]
    stage: Annotated[str, Field(description="of that job, as in JobAnswer")]
    step: Annotated[int, Field(ge=0)]
    steps: int | None


class WorkersAnswer(BaseModel):
    """The workers of this server, by their number."""

    workers: list[WorkerAnswer]


class PredictAnswer(BaseModel):
    """The clip: `data` is its URL and the parameters."""

    data: Annotated[list[str | dict[str, Any]], Field(min_length=2, max_length=2)]
    duration: Annotated[float, Field(description="seconds from the request to the clip")]


class FrameAnswer(BaseModel):
    """step * k + first frames, from least to most."""

    step: int
    first: int
    least: int
    most: int


class ModelAnswer(BaseModel):
    """One model that clips can be made with."""

    name: str
    about: str
    licence: str
    native_size: tuple[int, int]
    native_fps: int
    size_multiple: int
    sizes: Annotated[dict[str, tuple[int, int]], Field(description="what 480p and the like mean, {name: [height, width]}")]
    only_sizes: Annotated[
        list[tuple[int, int]], Field(description="the sizes that it makes, where they are few; empty: any in multiples")
    ]
    frames: Annotated[FrameAnswer, Field(description="the numbers of frames that it makes")]
    reads: Annotated[list[str], Field(description="of the parameters that not every model has, those that it reads")]
    schedulers: list[str]
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
