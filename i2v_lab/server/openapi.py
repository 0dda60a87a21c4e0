"""The description of the API in OpenAPI 3.1, made from the models that check what is asked and answered."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from i2v_lab.server.handlers import Clips, Predict
from i2v_lab.server.schemas import (
    ID_PATTERN,
    ErrorAnswer,
    Health,
    JobAnswer,
    JobList,
    Limits,
    ModelsAnswer,
    PlanAnswer,
    PredictAnswer,
    clip_request,
    plan_request,
    predict_request,
)
from i2v_lab.settings import Settings
from i2v_lab.store.jobs import STATES

_REF = "#/components/schemas/{model}"
_JSON = "application/json"
_ANSWERS = (ErrorAnswer, Health, JobAnswer, JobList, ModelsAnswer, PlanAnswer, PredictAnswer)
_FAULTS = {
    400: "not to be understood", 403: "without the token, or from another site", 404: "there is no such thing",
    405: "not with this method", 409: "the model cannot make it; or it has ended",
    413: "too large", 415: "another content type", 422: "a field is wrong",
    429: "as many clips wait as may", 503: "the worker died", 507: "the disk is full",
}  # fmt: skip


def describe(limits: Limits, settings: Settings, *, with_token: bool) -> dict[str, Any]:
    """The whole description, as JSON has it."""
    requests = {"ClipRequest": clip_request(limits), "PredictRequest": predict_request(limits)}
    asked = models_json_schema([(model, "validation") for model in requests.values()], ref_template=_REF)[1]["$defs"]
    told = models_json_schema([(model, "serialization") for model in _ANSWERS], ref_template=_REF)[1]["$defs"]
    paths = _paths(limits, asked["ClipRequest"])
    security: list[dict[str, list[str]]] = [{"bearer": []}, {"query": []}] if with_token else []
    for path, calls in paths.items():
        for call in calls.values():
            if path == "/api/health":
                call["security"] = []
            elif with_token:
                call["responses"]["403"] = _fault(403)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "i2v_lab",
            "version": importlib.metadata.version("i2v_lab"),
            "description": f"Clips from pictures. At most {settings.server.queue_limit} clips wait; a body has at most "
            f"{settings.server.body_mib} MiB. Every error is an ErrorAnswer that names the field.",
        },
        "paths": paths,
        "components": {
            "schemas": {**asked, **told},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            }
            if with_token
            else {},
        },
        "security": security,
    }


def _paths(limits: Limits, clip: dict[str, Any]) -> dict[str, dict[str, Any]]:
    id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": ID_PATTERN}}
    event = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"},
             "description": "the last event that was seen; what it told is not told again"}  # fmt: skip
    form = {**clip, "title": "ClipForm", "properties": {**clip["properties"], "image": {
        "type": "string", "format": "binary", "description": "the picture's file"}}}  # fmt: skip
    video = {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}
    told = {
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"enum": list(STATES)},
            "data": {"type": "string", "contentMediaType": _JSON, "contentSchema": {"$ref": _REF.format(model="JobAnswer")}},
        },
    }
    job = ("the job", JobAnswer)
    return {
        "/api/predict": {"post": _call(
            "predict", "Make a clip, and answer when it is done", {200: ("the clip", PredictAnswer)},
            (400, 405, 409, 413, 415, 422, 429, 503, 507), parameters=_query(Predict.Query),
            body={_JSON: {"schema": {"$ref": _REF.format(model="PredictRequest")}}},
        )},
        "/api/clips": {
            "post": _call(
                "create_clip", "Ask for a clip", {202: job}, (400, 405, 409, 413, 415, 422, 429, 507),
                body={
                    _JSON: {"schema": {"$ref": _REF.format(model="ClipRequest")}},
                    "multipart/form-data": {"schema": form, "encoding": {"image": {"contentType": "image/png"}}},
                },
            ),
            "get": _call("list_clips", "List the newest clips", {200: ("the jobs", JobList)}, (400, 405, 422), parameters=_query(Clips.Query)),
        },
        "/api/clips/{id}": {
            "get": _call("get_clip", "Say where a clip stands", {200: job}, (400, 404, 405), parameters=[id]),
            "delete": _call("stop_clip", "Stop a clip; it is 404 then, and stopped in the list", {200: job, 202: ("at its next step", JobAnswer)},
                            (400, 404, 405, 409), parameters=[id]),
        },
        "/api/clips/{id}/events": {"get": _call(
            "follow_clip", "Say where a clip stands, again and again, until it ends", {}, (400, 404, 405), parameters=[id, event],
            more={"200": {"description": "an event a change: its data is a JobAnswer, its name the state", "content": {
                      "text/event-stream": {"schema": told}}},
                  "204": {"description": "it has ended, and Last-Event-ID was the end"}},
        )},
        "/api/clips/{id}/clip.mp4": {"get": _call(
            "download_clip", "The clip as MP4; a Range of bytes may be asked for", {}, (400, 404, 405), parameters=[id],
            more={"200": {"description": "the file", **video}, "206": {"description": "the part that a Range names", **video},
                  "304": {"description": "it has not changed"}, "416": {"description": "it is shorter than that"}},
        )},
        "/api/models": {"get": _call("list_models", "List the models", {200: ("the models", ModelsAnswer)}, (405,))},
        "/api/plan": {"get": _call(
            "plan_clip", "Say what a clip would take", {200: ("the plan", PlanAnswer)}, (400, 405, 422),
            parameters=_query(plan_request(limits)),
        )},
        "/api/health": {"get": _call("health", "Say that the server answers; needs no token", {200: ("it does", Health)}, (405,))},
        "/api/openapi.json": {"get": _call(
            "describe", "This description", {}, (405,),
            more={"200": {"description": "OpenAPI 3.1", "content": {_JSON: {"schema": {"type": "object"}}}}},
        )},
    }  # fmt: skip


def _call(
    name: str,
    summary: str,
    answers: Mapping[int, tuple[str, type[BaseModel]]],
    faults: Iterable[int],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    call: dict[str, Any] = {"operationId": name, "summary": summary, "responses": {
        **{str(status): {"description": text, "content": {_JSON: {"schema": {"$ref": _REF.format(model=model.__name__)}}}}
           for status, (text, model) in answers.items()},
        **(more or {}), **{str(status): _fault(status) for status in faults},
    }}  # fmt: skip
    if parameters:
        call["parameters"] = parameters
    if body:
        call["requestBody"] = {"required": True, "content": dict(body)}
    return call


def _fault(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": _FAULTS[status],
        "content": {_JSON: {"schema": {"$ref": _REF.format(model=ErrorAnswer.__name__)}}},
    }
    if status == 429:
        about = {"description": "seconds until a place is likely to be free", "schema": {"type": "integer", "minimum": 1}}
        found["headers"] = {"Retry-After": about}
    return found


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of a model as parameters of a query."""
    schema = model.model_json_schema()
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(about)}
        for name, about in schema["properties"].items()
    ]


def _without_null(about: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: what is not given is left out."""
    kinds = [kind for kind in about.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**{name: value for name, value in about.items() if name not in ("anyOf", "default")}, **kinds[0]}
    return about
