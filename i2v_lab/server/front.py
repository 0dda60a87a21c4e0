"""What is added to the Jupyter server: the token for every request, and the API."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from contextlib import suppress
from http.client import responses
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from starlette.types import ASGIApp, Message
from tornado import iostream, web
from tornado.routing import Matcher, Rule

from i2v_lab.server.page import HEADER, language_of

DRAIN_BYTES = 2**30  # of a body that is too large: read and thrown away, so that the client reads the answer
PARTS = 16  # of a body, of 64 KiB each, that wait until the API takes them
CALLS = r"(?:predict|clips|models|plan|workers|openapi\.json|docs)(?:/.*)?"  # below /api/
_SWAGGER = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


def add_to(web_app: Any, api: ASGIApp, studio: str, body_mib: int) -> None:
    """Add the API and the studio to a Jupyter server, and refuse every other request without the token.

    Args:
        web_app: its tornado application, with the handlers of all extensions.
        api: the application that answers the calls.
        studio: the notebook that Voilà renders at /, as a path below the server's root folder.
        body_mib: the largest body, MiB.
    """
    base = re.escape(web_app.settings["base_url"].rstrip("/"))
    calls = {"api": api, "limit": body_mib * 2**20}
    web_app.add_handlers(".*$", [
        (f"{base}/api/health", ApiCall, {**calls, "open_to_all": True}),
        (f"{base}/api/{CALLS}", ApiCall, calls),
        Rule(WithoutToken(web_app), Refused),
        (f"{base}/?", Redirect, {"target": f"voila/render/{studio}"}),
        (f"{base}/voila(?:/tree.*)?", Redirect, {"target": ""}),  # Voilà's list of files: JupyterLab has a better one
        (f"{base}/docs", Redirect, {"target": "api/docs"}),
    ])  # fmt: skip
    rules = web_app.default_router.rules
    rules.insert(0, rules.pop(-2))  # the newest; before those of all extensions


def has_token(handler: Any) -> bool:
    """Whether a request has the token in its query or header, or the cookie of a page that was opened with it."""
    provider = handler.identity_provider
    given = handler.get_query_argument("token", "")
    if not given and (match := provider.auth_header_pat.match(handler.request.headers.get("Authorization", ""))):
        given = match[2]
    known = hmac.compare_digest(given.encode(), str(provider.token).encode())
    return not provider.auth_enabled or known or provider.get_user_cookie(handler) is not None


class WithoutToken(Matcher):
    """Matches each request without the token. So none of them reaches a handler of Jupyter, Voilà or another extension."""

    def __init__(self, web_app: Any) -> None:
        self.web_app = web_app

    def match(self, request: Any) -> dict[str, Any] | None:
        return None if has_token(JupyterHandler(self.web_app, request)) else {}


@web.stream_request_body
class Refused(JupyterHandler):  # type: ignore[misc]
    """403, with a page that asks for the token, at once: the body that follows is kept nowhere."""

    async def prepare(self, *, _redirect_to_login: bool = True) -> None:
        self.current_user = self._jupyter_current_user = None
        raise web.HTTPError(403)

    @property
    def template_namespace(self) -> dict[str, Any]:
        return {**super().template_namespace, "language": language_of(self.request.headers.get(HEADER, ""))}

    def data_received(self, chunk: bytes) -> None:
        """It was answered."""


class Redirect(JupyterHandler):  # type: ignore[misc]
    """Sends a browser to another page. The token leaves the address here; from now on a cookie has it."""

    def initialize(self, target: str) -> None:
        self.target = target

    @web.authenticated
    def get(self) -> None:
        self.redirect(self.base_url + self.target)


class Refusal(web.HTTPError):
    """A call that is not passed on: status, field, message in a user's words."""

    def __init__(self, status: int, field: str, message: str) -> None:
        super().__init__(status)
        self.field, self.message = field, message


@web.stream_request_body
class ApiCall(JupyterHandler):  # type: ignore[misc]
    """A call of the API, between tornado and ASGI: the body as it comes, the answer as it comes; cancelled if the client is gone.

    A call that is refused is answered after its body was read: a client that still sends would not read the answer.
    """

    def initialize(self, api: ASGIApp, limit: int, open_to_all: bool = False) -> None:
        self.api, self.limit, self.open_to_all = api, limit, open_to_all
        self.size, self.parts = 0, asyncio.Queue[Message](PARTS)
        self.answering: Any = None  # the task that answers; None where the call is refused

    async def prepare(self, *, _redirect_to_login: bool = False) -> None:
        self.refusal = await self._refusal()
        # A client without the token may not send more than one that has it.
        self.request.connection.set_max_body_size(self.limit if self.refusal else DRAIN_BYTES)
        if self.refusal is None:
            self.answering = asyncio.create_task(self._answer())

    async def _refusal(self) -> web.HTTPError | None:
        if not self.open_to_all and not has_token(self):
            self.current_user = self._jupyter_current_user = None
            return Refusal(403, "token", "expected the token of this server: Authorization: Bearer <token>, or ?token=<token>")
        try:
            await super().prepare(_redirect_to_login=False)
        except web.HTTPError as error:
            return error
        return None

    def check_xsrf_cookie(self) -> None:
        """Other sites may not post. A browser says where a request comes from; a script with the token does not have to."""
        if not hasattr(self, "_jupyter_current_user") or self.token_authenticated:
            return
        origin, site = self.request.headers.get("Origin"), self.request.headers.get("Sec-Fetch-Site")
        if site not in (None, "same-origin", "none") or (origin is not None and urlsplit(origin).netloc != self.request.host):
            raise Refusal(403, "Origin", "posts of other sites are refused")
        if origin is None and site is None and self.identity_provider.auth_enabled:
            try:
                super().check_xsrf_cookie()  # logged in by a cookie: it must be a page of ours
            except web.HTTPError:
                raise Refusal(403, "_xsrf", "expected the token in the Authorization header") from None

    async def data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.answering is None or self.answering.done():
            return
        if self.size > self.limit:
            self.refusal = Refusal(413, "body", f"expected at most {self.limit // 2**20} MiB; make the picture smaller")
            self.on_connection_close()
        else:
            await self._hand_over(chunk, more=True)

    async def _hand_over(self, part: bytes, *, more: bool) -> None:
        """Give a part of the body to the API. No more is read from the client than the API takes."""
        put = asyncio.create_task(self.parts.put({"type": "http.request", "body": part, "more_body": more}))
        await asyncio.wait({put, self.answering}, return_when=asyncio.FIRST_COMPLETED)
        put.cancel()

    @allow_unauthenticated  # type: ignore[untyped-decorator]  # `prepare` has asked for the token
    async def get(self, *_: str) -> None:
        if self.refusal:
            raise self.refusal
        await self._hand_over(b"", more=False)
        with suppress(asyncio.CancelledError, iostream.StreamClosedError):  # the client is gone
            await self.answering

    head = post = put = patch = delete = options = get

    def on_connection_close(self) -> None:
        if self.answering:
            self.answering.cancel()

    async def _answer(self) -> None:
        request = self.request
        query = [(name, value) for name, value in parse_qsl(request.query, keep_blank_values=True) if name != "token"]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": request.protocol,
            "path": unquote(request.path), "raw_path": request.path.encode(), "root_path": self.base_url.rstrip("/"),
            "query_string": (urlencode(query) if "token=" in request.query else request.query).encode(),
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.get_all()],
        }  # fmt: skip
        await self.api(scope, self.parts.get, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.set_status(message["status"])
            self.clear_header("Content-Type")
            for name, value in message["headers"]:
                self.set_header(name.decode("latin-1"), value.decode("latin-1"))
        else:
            self.write(message.get("body", b""))
        await self.flush()  # of server-sent events the headers come at once

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    @property
    def content_security_policy(self) -> str:
        only = _SWAGGER if "/api/docs" in self.request.path else "default-src 'none'"
        return f"{super().content_security_policy}; {only}"

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors in the shape of the API's own."""
        error = kwargs.get("exc_info", (None, None))[1]
        message = "unexpected error; the log has the details" if status_code >= 500 else responses.get(status_code, "error").lower()
        fault = {"field": getattr(error, "field", ""), "message": getattr(error, "message", message)}
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": fault}))
