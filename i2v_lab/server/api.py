"""What all calls of the API share: the desk behind them, who may call, one shape of errors, bodies of a sensible size."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import math
import time
from collections.abc import Awaitable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial
from http.client import responses
from multiprocessing import get_context
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jupyter_server.base.handlers import JupyterHandler
from pydantic import BaseModel
from tornado import web

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import StoreError
from i2v_lab.jobs.supervisor import Standing, Supervisor
from i2v_lab.server.body import ApiError, read_texts, shown_params, without_paths
from i2v_lab.server.plans import follow_parent, work_out
from i2v_lab.server.schemas import (
    ErrorAnswer,
    Fault,
    JobAnswer,
    Limits,
    Result,
    clip_request,
    limits_of,
    moment,
    plan_request,
    predict_request,
)
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Full, Job, forecast

STOPPED = "stopped by a client"
ASKS_SECONDS = 5.0  # between two looks for checkpoints
RETRY_SECONDS = 10  # where nothing is known of how long a clip takes
DRAIN_BYTES = 2**30  # of a body that is too large: read and thrown away, so that the client hears why
PICTURES_AT_ONCE = 2  # decoded; one may take 270 MB


class Asks(NamedTuple):
    """What may be asked for, and the models that check it."""

    limits: Limits
    clip: type[BaseModel]
    predict: type[BaseModel]
    plan: type[BaseModel]


class Desk:
    """What the handlers share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = importlib.metadata.version("i2v_lab")
        self.store = Store(settings.output.directory)
        self.supervisor = Supervisor(settings, self.store)
        self.queue = self.supervisor.queue
        self.pictures = asyncio.Semaphore(PICTURES_AT_ONCE)
        self._asks: Asks | None = None
        self._asked = 0.0
        self.task: asyncio.Future[None] | None = None
        self._planners: ProcessPoolExecutor | None = None

    async def asks(self) -> Asks:
        """What may be asked for; looked up again now and then, since checkpoints are fetched while the server runs."""
        now = time.monotonic()
        if self._asks is None or now - self._asked > ASKS_SECONDS:
            self._asked = now
            limits = await asyncio.to_thread(limits_of, self.settings)
            if self._asks is None or self._asks.limits != limits:
                self._asks = Asks(limits, clip_request(limits), predict_request(limits), plan_request(limits))
        return self._asks

    async def check_room(self) -> None:
        """Answer 429 where the queue is full: before a picture is looked at, which takes longer than all else."""
        if self.supervisor.waiting >= self.settings.server.queue_limit:
            active = await asyncio.to_thread(self.queue.active)
            if sum(job.state == "waiting" for job in active) >= self.settings.server.queue_limit:
                raise await asyncio.to_thread(self._full, active)

    async def submit(self, params: ClipParams) -> Job:
        """Put a clip into the queue, or answer 429."""
        try:
            job = await asyncio.to_thread(self.queue.add, params, self.settings.server.queue_limit)
        except Full:
            raise await asyncio.to_thread(self._full, self.queue.active()) from None
        self.supervisor.wake()
        return job

    def _full(self, active: list[Job]) -> ApiError:
        limit, wait = self.settings.server.queue_limit, str(self._retry_after(active))
        return ApiError(429, "queue", f"{limit} clips wait already; try again in {wait} s", {"Retry-After": wait})

    def _retry_after(self, active: list[Job]) -> int:
        """Seconds until a place in the queue is likely to be free."""
        first = next(iter(forecast(active, self.queue.rate(), time.time()).values()), None)
        return RETRY_SECONDS if first is None else min(max(1, math.ceil(first)), 3600)

    async def plan(self, params: ClipParams) -> dict[str, Any]:
        """What a clip would take; worked out in a process of its own, which would otherwise hold up all other answers."""
        if self._planners is None:
            self._planners = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=follow_parent)
        asked = partial(work_out, params.plain(), self.settings.device, self.store.directory)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._planners, asked)
        except BrokenExecutor:  # killed: the next call starts another
            self._planners = None
            raise ApiError(422, "resolution", "the plan took more memory than there is; ask for a smaller clip") from None

    def close(self) -> None:
        """End the processes."""
        if self._planners:
            self._planners.shutdown(wait=False, cancel_futures=True)
        self.supervisor.close()


class Api(JupyterHandler):  # type: ignore[misc]
    """What all calls share: who may call, one shape of errors, no cache."""

    open_to_all = False

    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    async def prepare(self, *, _redirect_to_login: bool = False) -> Awaitable[None] | None:
        await super().prepare(_redirect_to_login=_redirect_to_login)
        if self.current_user is None and not self.open_to_all:
            raise ApiError(403, "token", "expected the token of this server: Authorization: Bearer <token>, or ?token=<token>")
        return None

    def check_xsrf_cookie(self) -> None:
        """Other sites may not post. A browser says where a request comes from; a script with the token needs not."""
        if not hasattr(self, "_jupyter_current_user") or self.token_authenticated:
            return
        origin, site = self.request.headers.get("Origin"), self.request.headers.get("Sec-Fetch-Site")
        if site not in (None, "same-origin", "none") or (origin is not None and urlsplit(origin).netloc != self.request.host):
            raise ApiError(403, "Origin", "posts of other sites are refused")
        if origin is None and site is None and self.identity_provider.auth_enabled:
            try:
                super().check_xsrf_cookie()  # logged in by a cookie: it must be a page of ours
            except web.HTTPError:
                raise ApiError(403, "_xsrf", "expected the token in the Authorization header") from None

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    @property
    def content_security_policy(self) -> str:
        return f"{super().content_security_policy}; default-src 'none'"

    def get_login_url(self) -> str:
        raise ApiError(403, "token", "expected the token of this server")

    def answer(self, found: BaseModel, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(found.model_dump_json())

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One shape for all that went wrong."""
        error = kwargs.get("exc_info", (None, None))[1]
        field, message = "", responses.get(status_code, "error").lower()
        if isinstance(error, ApiError):
            field, message = error.field, error.message
            for name, value in error.more_headers.items():
                self.set_header(name, value)
        elif status_code == 405:
            methods = [name for name in self.SUPPORTED_METHODS if getattr(type(self), name.lower()) is not web.RequestHandler.get]
            self.set_header("Allow", ", ".join(methods))
            field, message = "method", f"expected {' or '.join(methods)}"
        elif isinstance(error, StoreError):
            message = "the record of runs or the queue cannot be read or written now; the log has the details"
        elif status_code >= 500:
            message = "unexpected error; the log has the details"
        elif isinstance(error, web.HTTPError) and error.log_message:
            message = without_paths(str(error.log_message))[:300]
        self.set_header("Content-Type", "application/json")
        self.finish(ErrorAnswer(error=Fault(field=field, message=message)).model_dump_json())

    def query(self, model: type[BaseModel]) -> Any:
        """The query, checked; the token is not part of it."""
        values = {name: self.get_query_arguments(name, strip=False) for name in self.request.query_arguments if name != "token"}
        if twice := [name for name, found in values.items() if len(found) > 1]:
            raise ApiError(422, twice[0][:60], "expected it once, got it more than once")
        return read_texts(model, {name: found[0] for name, found in values.items()})

    def standing_answer(self, standing: Standing) -> JobAnswer:
        job = standing.job
        found = json.loads(job.result) if job.result else None
        result = None
        if found:
            url = f"{self.base_url}api/clips/{job.id}/clip.mp4"
            result = Result(url=url, **{name: found[name] for name in Result.model_fields if name != "url"})
        return JobAnswer(
            id=job.id, state=job.state, reason=without_paths(job.reason), stage=job.stage, step=job.step, steps=job.steps,
            place=standing.place, seconds_left=None if standing.seconds_left is None else round(standing.seconds_left, 1),
            params=shown_params(job.params), created=moment(job.created), started=moment(job.started) if job.started else None,
            finished=moment(job.finished) if job.finished else None, result=result,
        )  # fmt: skip

    async def standing(self, id: str) -> Standing:
        found = await self.desk.supervisor.standing(id)
        if found is None:
            raise ApiError(404, "id", "there is no such clip")
        if STOPPED in (found.job.stop, found.job.reason):
            raise ApiError(404, "state", "it was stopped by a client")
        return found


@web.stream_request_body
class BodyApi(Api):
    """A call with a body. What is refused before it was read is told after: a client that still sends would not hear it."""

    async def prepare(self, *, _redirect_to_login: bool = False) -> Awaitable[None] | None:
        self._parts: list[bytes] = []
        self._size, self._limit = 0, self.desk.settings.server.body_mib * 2**20
        self._refusal: web.HTTPError | None = None
        try:
            await super().prepare(_redirect_to_login=_redirect_to_login)
        except web.HTTPError as error:
            if self.request.method != "POST":
                raise
            self._refusal = error
        # Where nobody is trusted yet, no more is read than from those who are.
        drain = DRAIN_BYTES if self._refusal is None else self._limit
        if int(self.request.headers.get("Content-Length", "0")) > drain:
            self.set_header("Connection", "close")
            raise self._refusal or self._too_large()
        self.request.connection.set_max_body_size(drain)
        return None

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._limit and self._refusal is None:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    def _too_large(self) -> ApiError:
        return ApiError(413, "body", f"expected at most {self._limit // 2**20} MiB; make the picture smaller")

    async def post(self) -> None:
        if self._refusal:
            raise self._refusal
        if self._size > self._limit:
            raise self._too_large()
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        await self.accept(kind, b"".join(self._parts))

    async def accept(self, kind: str, body: bytes) -> None:
        """Answer a POST: the content type without its parameters, and the whole body."""
        raise NotImplementedError
