"""The Jupyter server, configured by code: the API, Voilà and JupyterLab behind one token and one port."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shutil
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from i2v_lab.devices.turns import lock_folder
from i2v_lab.errors import I2VLabError
from i2v_lab.portable import write_whole
from i2v_lab.settings import Settings
from i2v_lab.store.processes import lives, own_name, pid_of

log = logging.getLogger(__name__)

STUDIO = Path("notebooks") / "studio.ipynb"
MESSAGE_BYTES = 300 * 2**20  # of a message from the browser to a kernel: an uploaded picture; tornado's own limit is 10 MiB
CULL_SECONDS = 1800  # a notebook's kernel that nobody is connected to is ended after so long without work
END_SECONDS = 5.0  # for calls that are still open when the server ends
SWITCH_SECONDS = 0.001  # the threads of the API share Python's lock with the event loop: short turns


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    import ipaddress

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_port(host: str, port: int) -> None:
    """Raise I2VLabError, naming the process, where the port is taken."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except PermissionError:
        raise I2VLabError(f"port {port} may not be used by this user: choose one of 1024 or more with --port") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise I2VLabError(f"port {port} is taken{_by_whom(port)}: end that, or choose another with --port") from None
        raise I2VLabError(f"--host: expected an address of this machine, got {host!r} ({error.strerror}); 127.0.0.1 is for this "
                          "machine alone") from None  # fmt: skip


def _by_whom(port: int) -> str:
    """The process that listens on a port, as far as this user may know."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port and connection.pid:
                words = " ".join(psutil.Process(connection.pid).cmdline()) or psutil.Process(connection.pid).name()
                return f" by process {connection.pid} ({words[:120]})"
    except (psutil.Error, OSError):
        pass
    return " by another process"


# The state file, by which `--stop` finds the server


def state_file(port: int) -> Path:
    """Where a server notes that it runs. It holds no secret."""
    return lock_folder() / f"server-{port}"


def write_state(settings: Settings) -> None:
    """Note that this process serves."""
    write_whole(state_file(settings.server.port), json.dumps({"process": own_name(), "output": str(settings.output.directory)}))


def _read_state(port: int) -> dict[str, str]:
    """What the server of this user on a port noted; empty where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(state_file(port).read_text(encoding="utf-8"))
        if lives(found["process"]):
            return dict(found)
    return {}


def find_server(port: int) -> Any:
    """The psutil.Process of the server of this user on a port; None where there is none."""
    import psutil

    with suppress(psutil.Error):
        if number := pid_of(_read_state(port).get("process", "")):
            return psutil.Process(number)
    return None


class Running(NamedTuple):
    """A server that runs.

    Attributes:
        output: its output folder, as far as it noted it.
    """

    host: str
    port: int
    token: str
    output: Path


def running_server(port: int) -> Running | None:
    """The server of this user on a port. Its token is in the file that Jupyter keeps for this user alone."""
    from jupyter_core.paths import jupyter_runtime_dir

    with suppress(OSError, ValueError, KeyError, TypeError):
        state = _read_state(port)
        pid = state["process"].split(":")[1]
        info = json.loads((Path(jupyter_runtime_dir()) / f"jpserver-{pid}.json").read_text(encoding="utf-8"))
        return Running(info["hostname"], port, info["token"], Path(state["output"]))
    return None


# The server


def with_absolute_folders(settings: Settings) -> Settings:
    """The settings with absolute folders, which do not depend on the current one. Clips are MP4, which the API promises."""
    output = settings.output.model_copy(update={"directory": settings.output.directory.absolute(), "format": "mp4"})
    return settings.model_copy(update={
        "output": output, "log": settings.log.model_copy(update={"directory": settings.log.directory.absolute()}),
    })  # fmt: skip


def studio_notebook(root: Path) -> str:
    """The studio below the server's root folder; a copy of the one that comes with the package where there is none."""
    if not (root / STUDIO).is_file():
        package = Path(__file__).resolve().parent.parent
        for place in (package / STUDIO, package.parent / STUDIO):  # of a wheel; of a checkout
            if place.is_file():
                (root / STUDIO).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place, root / STUDIO)
                break
        else:
            raise I2VLabError(f"{STUDIO} is missing: install i2v_lab again")
    return STUDIO.as_posix()


def make(settings: Settings, token: str, handler: logging.Handler, api: Any) -> Any:
    """The ServerApp, ready to start.

    Args:
        settings: of absolute folders.
        token: "" lets everybody in who reaches the address.
        handler: where Jupyter's log goes.
        api: the ASGI application that answers the calls of the API.
    """
    from jupyter_server.auth.identity import PasswordIdentityProvider
    from jupyter_server.serverapp import JupyterServerAuthWarning, ServerApp

    from i2v_lab.server import front, page

    root = Path.cwd()
    os.environ.pop("JUPYTER_TOKEN", None)
    known = os.environ.get("JUPYTER_PATH", "")
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(page.TEMPLATES), *([known] if known else [])])
    app = ServerApp.instance(config=_config(settings, token, root))
    app.tornado_settings = {"websocket_max_message_size": MESSAGE_BYTES}
    warnings.simplefilter("ignore", JupyterServerAuthWarning)  # `front` guards the handlers that ask nobody for a token
    app.initialize(argv=[])
    # A user's own configuration of Jupyter may not open this server.
    if type(app.identity_provider) is not PasswordIdentityProvider or app.allow_unauthenticated_access:
        raise I2VLabError("this server needs Jupyter's own token: remove identity_provider_class and allow_unauthenticated_access "
                          "from your configuration of Jupyter Server")  # fmt: skip
    for logger in (app.log, logging.getLogger("tornado")):
        for old in logger.handlers[:]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.propagate = False
    app.log.setLevel(logging.INFO)  # the trait would bring the handlers back

    sys.setswitchinterval(SWITCH_SECONDS)
    front.add_to(app.web_app, api, studio_notebook(root), settings.server.body_mib)
    return app


def run(server: Any, listening: Callable[[], None], opened: Callable[[], None], *, ready: bool) -> None:
    """Serve until asked to end; then end the calls that are still open, whose threads would hold up the process.

    Args:
        listening: called once, when requests are answered.
        opened: called in a thread when a page is opened: somebody may soon want a clip.
        ready: start the kernel of the first page before it is asked for.
    """
    kernels = server.kernel_manager
    kernels.opened = opened
    signal.signal(signal.SIGINT, lambda *_: server.stop(from_signal=True))  # KeyboardInterrupt could strike anywhere in the loop
    server.io_loop.add_callback(listening)  # after the callback that binds the port
    if ready:
        server.io_loop.add_callback(kernels.make_ready)
    server.start()
    loop = server.io_loop.asyncio_loop
    for call in (calls := asyncio.all_tasks(loop)):
        call.cancel()
    loop.run_until_complete(asyncio.wait({*calls, loop.create_task(asyncio.sleep(0))}, timeout=END_SECONDS))


def _config(settings: Settings, token: str, root: Path) -> Any:
    from traitlets.config import Config

    from i2v_lab.server import page

    server = settings.server
    config = Config()
    config.ServerApp.ip, config.ServerApp.port, config.ServerApp.port_retries = server.host, server.port, 0
    config.ServerApp.open_browser = False
    config.ServerApp.log_level = logging.WARNING  # until the log goes to its file: the terminal is for the address
    config.ServerApp.answer_yes = True  # Ctrl-C ends it at once
    config.ServerApp.allow_root = True  # containers
    config.ServerApp.root_dir = str(root)
    config.ServerApp.identity_provider_class = "jupyter_server.auth.identity.PasswordIdentityProvider"
    config.ServerApp.allow_unauthenticated_access = False
    config.ServerApp.extra_template_paths = [str(Path(__file__).parent / "templates")]
    config.ServerApp.jpserver_extensions = {"voila.server_extension": True, "jupyterlab": True}
    config.IdentityProvider.token = token
    config.IdentityProvider.cookie_options = {"samesite": "Lax"}  # other sites get no answer with it
    config.PasswordIdentityProvider.hashed_password = ""
    config.PasswordIdentityProvider.allow_password_change = False
    config.PageKernels.cull_idle_timeout = CULL_SECONDS
    config.VoilaConfiguration.show_tracebacks = False
    config.VoilaConfiguration.prelaunch_hook = partial(page.prepare, settings.output.directory, settings.language)
    config.VoilaConfiguration.template = page.TEMPLATE
    config.VoilaConfiguration.allow_template_override = config.VoilaConfiguration.allow_theme_override = "NO"
    config.ServerApp.kernel_manager_class = page.PageKernels
    config.VoilaConfiguration.page_config_hook = page.without_mathjax
    config.PageKernels.folder = STUDIO.parent.as_posix()
    config.LabApp.log_level = logging.WARNING
    config.LabApp.news_url = None
    config.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
    return config
