"""What our extension adds to a Jupyter server: the API, the studio at `/`, and a door that nothing passes without the token."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jupyter_server.auth.identity import PasswordIdentityProvider, User
from jupyter_server.base.handlers import AuthenticatedHandler, JupyterHandler
from tornado import web

from i2v_lab.server.api import Desk
from i2v_lab.server.handlers import ROUTES, Nothing
from i2v_lab.settings import load_settings

log = logging.getLogger(__name__)

SETTINGS_KEY = "i2v_lab_settings"  # where `serve` leaves the settings
THREADS, SWITCH_SECONDS = 4, 0.001
DESK_KEY = "i2v_lab_desk"
STUDIO_KEY = "i2v_lab_studio"  # the notebook that Voilà renders at /, as a path below the server's root folder


class Door(PasswordIdentityProvider):  # type: ignore[misc]
    """Jupyter's own tokens; but a request without one ends here, with 403 whatever it asked for, and no page to log in."""

    async def get_user(self, handler: Any) -> User | None:
        found = super().get_user(handler)
        user = found if found is None or isinstance(found, User) else await found
        if user is None and not getattr(handler, "open_to_all", False):
            handler.current_user = handler._jupyter_current_user = None
            raise web.HTTPError(403)
        return user

    def get_token(self, handler: Any) -> str | None:
        """The token of a request, from its query or its header; never from a body."""
        given = handler.get_query_argument("token", "")
        if not given and (match := self.auth_header_pat.match(handler.request.headers.get("Authorization", ""))):
            given = match[2]
        token = str(self.token)
        return token if hmac.compare_digest(given.encode(), token.encode()) else ""


class Guarded(AuthenticatedHandler):  # type: ignore[misc]
    """Goes before a handler that does not ask who is there: some of Voilà's and JupyterLab's files."""

    @property
    def log(self) -> logging.Logger:
        return log

    async def prepare(self) -> None:
        await self.identity_provider.get_user(self)
        result = super().prepare()
        if result is not None:
            await result


class StudioPage(JupyterHandler):  # type: ignore[misc]
    """`/`: the studio, rendered by Voilà. The token leaves the address here; from now on a cookie has it."""

    @web.authenticated
    async def get(self) -> None:
        self.redirect(f"{self.base_url}voila/render/{self.settings[STUDIO_KEY]}")


def load(serverapp: Any) -> None:
    """Add the API and the studio to a Jupyter server."""
    web_app = serverapp.web_app
    desk = web_app.settings[DESK_KEY] = Desk(web_app.settings.get(SETTINGS_KEY) or load_settings())
    base = web_app.settings["base_url"].rstrip("/")
    routes: list[Any] = [
        (base + re.escape(path).replace(r"\{id\}", "([^/]+)"), kind, {"desk": desk}) for path, kind in ROUTES.items()
    ]
    routes.append((rf"{base}/api/clips/.*", Nothing, {"desk": desk}))
    if STUDIO_KEY in web_app.settings:
        routes.append((f"{base}/?", StudioPage))
    web_app.add_handlers(".*$", routes)
    _guard(web_app)
    serverapp.io_loop.add_callback(lambda: _begin(desk))


def _begin(desk: Desk) -> None:
    # Threads that check pictures and requests share Python's lock with the loop: few of them, and short turns.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    sys.setswitchinterval(SWITCH_SECONDS)
    desk.task = asyncio.ensure_future(desk.supervisor.run())  # kept, or it might be collected


def _guard(web_app: Any) -> None:
    """Let no handler answer that has not asked for the token, whoever added it."""
    find = web_app.find_handler
    guarded: dict[type, type] = {}

    def find_handler(request: Any, **more: Any) -> Any:
        found = find(request, **more)
        kind = getattr(found, "handler_class", None)
        if kind is not None and not issubclass(kind, JupyterHandler):
            if kind not in guarded:
                guarded[kind] = type(f"Guarded{kind.__name__}", (Guarded, kind), {})
            found.handler_class = guarded[kind]
        return found

    web_app.find_handler = find_handler
