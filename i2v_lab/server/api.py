"""The API: a FastAPI application. Each call answers at once; what takes time happens in a thread or another process."""

# Annotations are values here: the models of requests are made at run time.

import importlib.metadata
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyQuery, HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.staticfiles import StaticFiles

from i2v_lab import models
from i2v_lab.clip.params import OPTIONAL
from i2v_lab.errors import I2VLabError, StoreError
from i2v_lab.jobs import DIED, JobStatus
from i2v_lab.server import schemas
from i2v_lab.server.body import ApiError, check_once, keep_bytes, keep_image, read, read_form, refused, to_params, without_paths
from i2v_lab.server.state import ApiState, job_answer

log = logging.getLogger(__name__)
STOPPED = "stopped by a client"
_JSON, _FORM = "application/json", "multipart/form-data"
_FAULTS = {
    400: "The request cannot be read.", 403: "No token, or a request from another site.", 404: "There is no such clip.",
    405: "Another method was expected.",
    409: "The model or this server cannot make this clip, or the job has ended.", 413: "The body is too large.",
    415: "Another content type was expected.",
    422: "A field is wrong.", 429: "The queue is full.", 503: "The record of runs cannot be used, or the worker died.", 507: "The disk is full.",
}  # fmt: skip
_RETRY = {"Retry-After": {"description": "seconds until a place is likely to be free", "schema": {"type": "integer", "minimum": 1}}}
_VIDEO = {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}
_FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", **_VIDEO}, 206: {"description": "The bytes that the Range header names.", **_VIDEO},
    304: {"description": "It has not changed."}, 416: {"description": "It is shorter than that."},
}  # fmt: skip


class AsciiResponse(JSONResponse):
    """JSON that cannot steer a terminal, and without NaN, which other readers of JSON refuse."""

    def render(self, content: Any) -> bytes:
        return _json(content)


def _json(content: Any) -> bytes:
    return to_json(content, ensure_ascii=True, inf_nan_mode="null")


def make_app(state: ApiState, *, with_token: bool) -> FastAPI:
    """The ASGI application.

    Args:
        with_token: say in the description that the calls need a token. It is checked by the server in front.
    """
    server = state.settings.server
    app = FastAPIOffline(
        title="i2v_lab", version=importlib.metadata.version("i2v_lab"), openapi_url="/api/openapi.json", redirect_slashes=False,
        docs_url="/api/docs", redoc_url=None, static_url="/api/docs/static", swagger_ui_oauth2_redirect_url="/api/docs/redirect",
        default_response_class=AsciiResponse,
        description=f"Clips from pictures. At most {server.queue_limit} clips wait; a body has at most {server.body_mib} MiB. "
        "Every error is an ErrorAnswer that names the field.",
    )  # fmt: skip
    security = [Depends(HTTPBearer(auto_error=False)), Depends(APIKeyQuery(name="token", auto_error=False))] if with_token else []
    faults = _faults(400, 405, 422, 503, *((403,) if with_token else ()))
    calls = APIRouter(
        dependencies=[Depends(_each_once), *security], responses=faults, generate_unique_id_function=lambda route: route.name
    )
    asked: dict[str, type[BaseModel]] = {"predict": _add_predict(calls, state), "plan_clip": _add_plan(calls, state)}
    asked["list_clips"] = schemas.ListQuery
    _add_clips(calls, state)
    _add_clip(calls, state)
    _add_clip_file(calls, state)
    _add_models(calls, state)
    _add_workers(calls, state)
    app.include_router(calls)

    @app.get(
        "/api/health",
        summary="Say that the server works; needs no token",
        operation_id="health",
        responses={status: {"model": schemas.ErrorAnswer, "description": _FAULTS[status]} for status in (405, 503)},
    )
    def health() -> schemas.Health:
        state.runner.jobs.last_version()  # raises StoreError
        return schemas.Health(version=app.version)

    _add_handlers(app, [*calls.routes, *app.routes], asked)
    return app


def _faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a call, for its description."""
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    return {
        status: {"description": _FAULTS[status], "content": content, **({"headers": _RETRY} if status == 429 else {})}
        for status in statuses
    }


def _each_once(request: Request) -> None:
    """A parameter of the query may be given once."""
    check_once([name for name, _ in request.query_params.multi_items()])


def _kind(request: Request) -> str:
    """The content type without its parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _only_json(request: Request) -> None:
    if _kind(request) != _JSON:
        raise ApiError(415, "Content-Type", f"expected {_JSON}")


def _answer(status: JobStatus, request: Request) -> schemas.JobAnswer:
    return job_answer(status, request.scope["root_path"])


# The calls


def _add_predict(calls: APIRouter, state: ApiState) -> type[BaseModel]:
    model = schemas.predict_request(state.settings)

    @calls.post(
        "/api/predict", summary="Make a clip, and answer when it is done", responses=_faults(409, 413, 415, 429, 507),
        dependencies=[Depends(_only_json), Depends(state.check_room)],
    )  # fmt: skip
    async def predict(sent: model, asked: Annotated[schemas.PredictQuery, Query()], request: Request) -> schemas.PredictAnswer:  # type: ignore[valid-type]
        began = time.monotonic()
        picture, *rest = sent.data  # type: ignore[attr-defined]
        values = {"model": state.settings.model, **dict(zip(schemas.PREDICT_NAMES[1:], rest, strict=True))}
        values["image"] = await state.with_picture(partial(keep_image, picture.data, "data.0.data", state.store))
        job = await state.ask_for(values)
        async for status in state.follow(job.id):
            last = status
        found = _answer(last, request)
        if found.result is None:
            raise ApiError(503 if found.reason == DIED else 422, "clip", f"{found.state}: {found.reason}")
        host = f"{request.url.scheme}://{request.url.netloc}" if asked.urls == "absolute" else ""
        return schemas.PredictAnswer(data=[host + found.result.url, found.params], duration=round(time.monotonic() - began, 3))

    return model


def _add_clips(calls: APIRouter, state: ApiState) -> None:
    model = schemas.clip_request(state.settings)
    schema = model.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "the picture's file"}
    form = {**schema, "title": "ClipForm", "properties": {**schema["properties"], "image": file}}
    body = {_JSON: {"schema": schema}, _FORM: {"schema": form, "encoding": {"image": {"contentType": "image/png"}}}}

    @calls.post(
        "/api/clips", status_code=202, summary="Ask for a clip", responses=_faults(409, 413, 415, 429, 507),
        dependencies=[Depends(state.check_room)], openapi_extra={"requestBody": {"required": True, "content": body}},
    )  # fmt: skip
    async def create_clip(request: Request, response: Response) -> schemas.JobAnswer:
        sent: Any
        if _kind(request) == _JSON:
            sent = await request.body()
        elif _kind(request) == _FORM:
            sent = await read_form(request, state.settings.server.body_mib * 2**20)
        else:
            raise ApiError(415, "Content-Type", f"expected {_JSON} or {_FORM}")
        file = sent.get("image") if isinstance(sent, dict) else None
        if isinstance(file, UploadFile):  # checked before the picture is decoded, with a sample in its place
            values = schemas.asked(read(model, {**sent, "image": "sample:coffee"}))
            kind = Path(file.filename or "").suffix.lower().removeprefix(".")
            keep = partial(keep_bytes, await file.read(), kind, "image", state.store)
        else:
            values = schemas.asked(await run_in_threadpool(read, model, sent))
            keep = partial(keep_image, values["image"], "image", state.store)
        values["image"] = await state.with_picture(keep)
        job = await state.ask_for(values)
        response.headers["Location"] = f"{request.scope['root_path']}/api/clips/{job.id}"
        return _answer(await run_in_threadpool(state.find, job.id), request)

    @calls.get("/api/clips", summary="List the newest clips, the newest first")
    def list_clips(asked: Annotated[schemas.ListQuery, Query()], request: Request) -> schemas.JobList:
        jobs = state.runner.jobs.newest(asked.limit, asked.state, kind="clip")
        return schemas.JobList(clips=[_answer(state.runner.status(job.id) or JobStatus(job), request) for job in jobs])


def _add_clip(calls: APIRouter, state: ApiState) -> None:
    Found = Annotated[JobStatus, Depends(state.find)]  # noqa: N806
    LastEvent = Annotated[str, Header(description="the last event that was received; it is not sent again")]  # noqa: N806

    @calls.get("/api/clips/{id}", summary="Say how far a clip is", responses=_faults(404))
    def get_clip(found: Found, request: Request) -> schemas.JobAnswer:
        return _answer(found, request)

    @calls.delete(
        "/api/clips/{id}", summary="Stop a clip: at once while it waits, at its next step while it runs",
        responses={202: {"model": schemas.JobAnswer, "description": "It will stop at its next step."}, **_faults(404, 409)},
    )  # fmt: skip
    def stop_clip(found: Found, request: Request, response: Response) -> schemas.JobAnswer:
        if found.job.ended:
            raise ApiError(409, "state", f"expected a clip that waits or runs; it has ended: {found.job.state}")
        job = state.runner.stop(found.job.id, STOPPED)
        if job is None or job.state in ("done", "failed", "out_of_memory"):
            raise ApiError(409, "state", "expected a clip that waits or runs; it has just ended")
        state.runner.refresh()
        response.status_code = 202 if job.state == "running" else 200
        return _answer(JobStatus(job), request)

    def unseen(found: Found, last_event_id: LastEvent = "") -> JobStatus:
        if found.job.ended and last_event_id == str(found.job.version):
            raise HTTPException(204)  # nothing will follow: a browser does not connect again
        return found

    @calls.get(
        "/api/clips/{id}/events", summary="Say how far a clip is, at each change, until it ends", response_class=EventSourceResponse,
        responses={
            200: {"description": "An event for each change: its data is a JobAnswer, its name the state."},
            204: {"description": "It has ended, and Last-Event-ID was its last event."}, **_faults(404),
        },
    )  # fmt: skip
    async def follow_clip(
        found: Annotated[JobStatus, Depends(unseen)], request: Request, last_event_id: LastEvent = ""
    ) -> AsyncIterator[ServerSentEvent]:
        async for now in state.follow(found.job.id):
            if str(now.job.version) != last_event_id:
                yield ServerSentEvent(raw_data=_json(_answer(now, request)).decode(), event=now.job.state, id=str(now.job.version))


def _add_clip_file(calls: APIRouter, state: ApiState) -> None:
    Found = Annotated[JobStatus, Depends(state.find)]  # noqa: N806
    files = StaticFiles(directory=state.store.clips, check_dir=False)  # follows no link out of it

    @calls.head("/api/clips/{id}/clip.mp4", include_in_schema=False)
    @calls.get(
        "/api/clips/{id}/clip.mp4", summary="The clip as MP4, with byte ranges", response_class=Response,
        responses={**_FILE_ANSWERS, **_faults(404)},
    )  # fmt: skip
    async def download_clip(found: Found, request: Request) -> Response:
        if found.job.state != "done":
            raise ApiError(404, "id", f"there is no clip: it is {found.job.state}")
        _check_range(request.headers.get("Range"))
        name = Path(json.loads(found.job.result)["clip"]).name
        try:
            response = await files.get_response(name, request.scope)
        except StarletteHTTPException:
            raise ApiError(404, "id", "the clip is no longer there") from None
        response.headers["Cache-Control"] = "private, max-age=3600"
        # A header is Latin-1 and a prefix of clips' names may be anything: RFC 8187.
        response.headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(name, safe='')}"
        return response


def _check_range(given: str | None) -> None:
    """Starlette reads a second minus as a number's, and answers without a word where the last byte is before the first."""
    one = r"(\d{1,18}-\d{0,18}|-\d{1,18})"
    well = given is None or re.fullmatch(rf"bytes={one}(\s*,\s*{one})*", given, re.ASCII)
    if not well or any(int(first) > int(last) for first, last in re.findall(r"(\d+)-(\d+)", given or "")):
        raise ApiError(400, "Range", "expected bytes=FIRST-LAST, bytes=FIRST- or bytes=-LENGTH")


def _add_plan(calls: APIRouter, state: ApiState) -> type[BaseModel]:
    model = schemas.plan_request(state.settings)

    @calls.get("/api/plan", summary="Say what a clip would take", responses=_faults(409))
    async def plan_clip(asked: Annotated[model, Query()]) -> schemas.PlanAnswer:  # type: ignore[valid-type]
        values = {**schemas.asked(asked), "image": "sample:coffee"}
        params = await run_in_threadpool(to_params, values, state.settings.server, check=False)
        try:
            return schemas.PlanAnswer(**await state.plan(params))
        except I2VLabError as error:
            raise ApiError(422, "body", without_paths(str(error))) from None

    return model


def _add_models(calls: APIRouter, state: ApiState) -> None:
    @calls.get("/api/models", summary="List the models")
    def list_models() -> schemas.ModelsAnswer:
        known, found = schemas.known_models(state.settings), []
        for name, value in known.items():
            kind = models.find(value)[0]
            found.append(schemas.ModelAnswer(
                name=name, about=kind.about, licence=kind.licence, native_size=kind.native_size, native_fps=kind.native_fps,
                size_multiple=kind.size_multiple, sizes=dict(kind.sizes), only_sizes=list(kind.only_sizes),
                frames=schemas.FrameAnswer(**asdict(kind.frame_rule)), reads=sorted(kind.reads & set(OPTIONAL)),
                schedulers=list(kind.schedulers),
                presets={preset: dict(fields) for preset, fields in kind.presets.items()},
            ))  # fmt: skip
        return schemas.ModelsAnswer(default=next(iter(known)), models=found)


def _add_workers(calls: APIRouter, state: ApiState) -> None:
    @calls.get("/api/workers", summary="Say what each worker does")
    def list_workers() -> schemas.WorkersAnswer:
        found = []
        for one in state.runner.workers():
            stage, step, steps = (one.job.stage, one.job.step, one.job.steps) if one.job else ("", 0, None)
            found.append(schemas.WorkerAnswer(
                number=one.number, device=one.device, pid=one.pid, state=one.state, note=without_paths(one.note),
                job=one.job.id if one.job else None, where=one.where, stage=stage, step=step, steps=steps,
            ))  # fmt: skip
        return schemas.WorkersAnswer(workers=found)


# Errors


def _add_handlers(app: FastAPI, routes: Sequence[BaseRoute], asked: Mapping[str, type[BaseModel]]) -> None:
    """One shape for all errors.

    Args:
        routes: all of the application.
        asked: the model of the query or body of each call that FastAPI reads itself.
    """

    def wrong_field(request: Request, error: Any) -> Response:
        faults = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]
        return refuse(request, refused(faults, asked[request.scope["route"].name]))

    def refuse(request: Request, error: Any) -> Response:
        status, headers = error.status_code, dict(error.headers or {})
        if status in (204, 304):
            return Response(status_code=status)
        field, message = getattr(error, "field", ""), str(error.detail)
        if status == 405:
            matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
            methods = sorted({method for route in matching for method in getattr(route, "methods", None) or ()})
            headers["Allow"], field, message = ", ".join(methods), "method", f"expected {' or '.join(methods)}"
        elif status == 404 and not field:
            field, message = "path", "there is no such call"
        return AsciiResponse({"error": {"field": field, "message": without_paths(message)[:2000]}}, status, headers)

    def broken(request: Request, error: Exception) -> Response:
        return refuse(request, ApiError(500, "", "unexpected error; the log has the details"))

    def no_store(request: Request, error: Exception) -> Response:
        log.error("%s", error)
        return refuse(request, ApiError(503, "store", str(error)))

    app.add_exception_handler(RequestValidationError, wrong_field)
    app.add_exception_handler(StarletteHTTPException, refuse)
    app.add_exception_handler(StoreError, no_store)
    app.add_exception_handler(ClientDisconnect, lambda request, error: Response(status_code=400))  # nobody reads it
    app.add_exception_handler(Exception, broken)
