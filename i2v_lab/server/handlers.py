"""The calls of the API. Each answers at once; what takes time (pictures, SQLite, plans) happens in a thread or a process."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field
from tornado import iostream, web

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import I2VLabError
from i2v_lab.jobs.supervisor import DIED, Standing
from i2v_lab.server.api import STOPPED, Api, BodyApi, Desk
from i2v_lab.server.body import ApiError, keep_file, keep_image, read_form, read_json, read_texts, to_params, without_paths
from i2v_lab.server.schemas import PREDICT_NAMES, Health, JobList, ModelAnswer, ModelsAnswer, PlanAnswer, PredictAnswer, limits_of
from i2v_lab.store import Store
from i2v_lab.store.jobs import State

KEEP_ALIVE_SECONDS = 15.0  # proxies close a connection that says nothing for half a minute


class Clips(BodyApi):
    """POST /api/clips: ask for a clip. GET /api/clips: the newest."""

    class Query(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        limit: Annotated[int, Field(ge=1, le=1000, description="so many at most")] = 100
        state: Annotated[State | None, Field(description="only these")] = None

    async def accept(self, kind: str, body: bytes) -> None:
        params = await self._params(kind, body)
        job = await self.desk.submit(params)
        self.set_header("Location", f"{self.base_url}api/clips/{job.id}")
        self.answer(self.standing_answer(await self.standing(job.id)), 202)

    async def _params(self, kind: str, body: bytes) -> ClipParams:
        limits, model, *_ = await self.desk.asks()
        store = self.desk.store
        await self.desk.check_room()
        if kind == "application/json":
            values = dict(await asyncio.to_thread(read_json, model, body))
            async with self.desk.pictures:
                values["image"] = await asyncio.to_thread(keep_image, values["image"], "image", store)
        elif kind == "multipart/form-data":
            texts, data, name = read_form(body, self.request.headers)
            # Checked before the picture is looked at; a sample stands for it meanwhile.
            values = dict(read_texts(model, {"image": "sample:coffee", **texts}))
            async with self.desk.pictures:
                values["image"] = await (
                    asyncio.to_thread(keep_file, data, name, store)
                    if "image" not in texts
                    else asyncio.to_thread(keep_image, values["image"], "image", store)
                )
        else:
            raise ApiError(415, "Content-Type", "expected application/json or multipart/form-data")
        return await asyncio.to_thread(to_params, values, limits)

    async def get(self) -> None:
        asked = self.query(self.Query)
        jobs = await asyncio.to_thread(self.desk.queue.newest, asked.limit, asked.state)
        known = [await self.desk.supervisor.standing(job.id) or Standing(job) for job in jobs]
        self.answer(JobList(clips=[self.standing_answer(standing) for standing in known]))


class Predict(BodyApi):
    """POST /api/predict: ask for a clip in the form of scripts, and wait for it."""

    class Query(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        urls: Annotated[Literal["absolute", "relative"], Field(description="how the clip's URL is written")] = "absolute"

    async def accept(self, kind: str, body: bytes) -> None:
        began = time.monotonic()
        asked = self.query(self.Query)
        if kind != "application/json":
            raise ApiError(415, "Content-Type", "expected application/json")
        limits, _, model, _ = await self.desk.asks()
        await self.desk.check_room()
        sent: Any = await asyncio.to_thread(read_json, model, body)
        picture, *rest = sent.data
        values = {"model": limits.default_model, **dict(zip(PREDICT_NAMES[1:], rest, strict=True))}
        async with self.desk.pictures:
            values["image"] = await asyncio.to_thread(keep_image, picture.data, "data.0.data", self.desk.store)
        job = await self.desk.submit(await asyncio.to_thread(to_params, values, limits))
        async for standing in self.desk.supervisor.follow(job.id, KEEP_ALIVE_SECONDS):
            if standing and standing.job.ended:
                found = self.standing_answer(standing)
                if found.result is None:
                    raise ApiError(503 if found.reason == DIED else 422, "clip", f"{found.state}: {found.reason}")
                host = f"{self.request.protocol}://{self.request.host}" if asked.urls == "absolute" else ""
                self.answer(
                    PredictAnswer(data=[host + found.result.url, found.params], duration=round(time.monotonic() - began, 3))
                )


class Clip(Api):
    """GET /api/clips/{id}: where it stands. DELETE: stop it; then it is 404, and in the list it is stopped."""

    async def get(self, id: str) -> None:
        self.answer(self.standing_answer(await self.standing(id)))

    async def delete(self, id: str) -> None:
        if (before := (await self.standing(id)).job).ended:
            raise ApiError(409, "state", f"it has ended, there is nothing to stop: it is {before.state}")
        job = await asyncio.to_thread(self.desk.queue.stop, id, STOPPED)
        if job is None or job.state in ("done", "failed", "out_of_memory"):
            raise ApiError(409, "state", "it has ended in this moment")
        await self.desk.supervisor.refresh()
        self.answer(self.standing_answer(Standing(job)), 202 if job.state == "running" else 200)


class Events(Api):
    """GET /api/clips/{id}/events: the same as server-sent events, until the job has ended."""

    gone = False

    def on_connection_close(self) -> None:
        self.gone = True

    async def get(self, id: str) -> None:
        standing = await self.standing(id)
        seen = self.request.headers.get("Last-Event-ID", "")
        if standing.job.ended and seen == str(standing.job.version):
            self.set_status(204)  # nothing will follow: a browser does not connect again
            return
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")  # or some take it for Latin-1
        self.set_header("X-Accel-Buffering", "no")
        try:
            async for now in self.desk.supervisor.follow(id, KEEP_ALIVE_SECONDS):
                if self.gone:
                    return
                if now is None:
                    self.write(": still there\n\n")
                elif str(now.job.version) != seen:
                    self.write(
                        f"id: {now.job.version}\nevent: {now.job.state}\ndata: {self.standing_answer(now).model_dump_json()}\n\n"
                    )
                await self.flush()
        except iostream.StreamClosedError:
            return


class ClipFile(Api, web.StaticFileHandler):  # type: ignore[misc]
    """GET /api/clips/{id}/clip.mp4, with byte ranges."""

    def initialize(self, desk: Desk) -> None:  # type: ignore[override]
        Api.initialize(self, desk)
        web.StaticFileHandler.initialize(self, str(desk.store.directory))

    async def get(self, id: str, include_body: bool = True) -> None:
        job = (await self.standing(id)).job
        if job.state != "done":
            raise ApiError(404, "id", f"there is no clip: it is {job.state}")
        clip = str(json.loads(job.result)["clip"])
        if not _inside(self.desk.store, clip):
            raise ApiError(404, "id", "the clip is no longer there")
        await web.StaticFileHandler.get(self, clip, include_body)

    async def head(self, id: str) -> None:
        await self.get(id, include_body=False)

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "private, max-age=3600")
        # A header is Latin-1 and a prefix of clips' names may be anything: RFC 8187.
        self.set_header("Content-Disposition", f"inline; filename*=UTF-8''{quote(Path(path).name, safe='')}")


def _inside(store: Store, clip: str) -> bool:
    """Whether it is a file of the output folder itself: no link leads to it."""
    path = store.clips / Path(clip).name
    try:
        return clip == f"{store.clips.name}/{path.name}" and path.is_file() and path.resolve() == store.clips.resolve() / path.name
    except (OSError, ValueError):
        return False


class Models(Api):
    """GET /api/models: what clips can be made with."""

    async def get(self) -> None:
        self.answer(await asyncio.to_thread(self._models))

    def _models(self) -> ModelsAnswer:
        from i2v_lab import models

        limits, found = limits_of(self.desk.settings), []
        for name, value in limits.models.items():
            kind = models.find(value)[0]
            found.append(ModelAnswer(
                name=name, about=kind.about, licence=kind.licence, native_size=kind.native_size, size_multiple=kind.size_multiple,
                presets={preset: dict(fields) for preset, fields in kind.presets.items()},
            ))  # fmt: skip
        return ModelsAnswer(default=limits.default_model, models=found)


class Plan(Api):
    """GET /api/plan: what a clip would take."""

    async def get(self) -> None:
        limits, *_, model = await self.desk.asks()
        asked = self.query(model)
        params = await asyncio.to_thread(to_params, {**dict(asked), "image": "sample:coffee"}, limits, check=False)
        try:
            found = await self.desk.plan(params)
        except I2VLabError as error:
            raise ApiError(422, "body", without_paths(str(error))) from None
        self.answer(PlanAnswer(**found))


class HealthCheck(Api):
    """GET /api/health: that the server answers; needs no token, and tells nothing else."""

    open_to_all = True

    async def get(self) -> None:
        self.answer(Health(version=self.desk.version))


class Nothing(Api):
    """Whatever else lies below /api/clips: nothing, and no redirection."""

    async def get(self) -> None:
        raise ApiError(404, "path", "there is no such call")

    head = post = put = patch = delete = get


class OpenApi(Api):
    """GET /api/openapi.json: this API, described."""

    async def get(self) -> None:
        from i2v_lab.server.openapi import describe

        limits = await asyncio.to_thread(limits_of, self.desk.settings)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(describe(limits, self.desk.settings, with_token=self.identity_provider.auth_enabled)))


ROUTES: dict[str, type[Api]] = {
    "/api/predict": Predict,
    "/api/clips": Clips,
    "/api/clips/{id}": Clip,
    "/api/clips/{id}/events": Events,
    "/api/clips/{id}/clip.mp4": ClipFile,
    "/api/models": Models,
    "/api/plan": Plan,
    "/api/health": HealthCheck,
    "/api/openapi.json": OpenApi,
}
