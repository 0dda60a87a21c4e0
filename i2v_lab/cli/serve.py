"""The command `i2v-lab serve`: starts the web page and the API, in the foreground or the background, or ends them."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from i2v_lab.cli.interrupt import hang_up_terminates, ignore
from i2v_lab.cli.options import with_settings
from i2v_lab.cli.terminal import remark, tell
from i2v_lab.errors import I2VLabError, SettingsError
from i2v_lab.rights import make_file, make_folder

if TYPE_CHECKING:
    from i2v_lab.server.app import Running
    from i2v_lab.settings import Settings

log = logging.getLogger(__name__)
BEGIN_SECONDS = 120  # until the page answers: importing torch takes long on a cold disk
LOG_VARIABLE = "I2V_SERVE_LOG"  # passes the log file to a start in the background; not a setting
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - {all addresses of this machine: the one that it has for itself}
TOKEN_BYTES = 24  # random, of a token that is made here
DETACHED = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "DETACHED_PROCESS", 0)  # on Windows
KILL_SECONDS = 60.0  # beyond `stop_seconds`


@with_settings("port", "host", "output_dir", "device", "parallel", "cluster", "server_workers")
def serve(
    settings: Settings,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
    background: Annotated[bool, typer.Option("--background", help="return once the page answers")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="end the server of this port, and its clip")] = False,
    no_token: Annotated[bool, typer.Option("--no-token", help="everybody on this machine may use it; only on 127.0.0.1")] = False,
) -> None:
    """Serve the web page and the API on one port: the studio at /, JupyterLab at /lab, the API at /api.

    Where it runs already, its address is printed again.
    """
    if stop:
        _stop(settings)
        return
    _check_installed()
    from i2v_lab.jobs.crew import devices_of_workers
    from i2v_lab.server import app

    if no_token and not app.is_loopback(settings.server.host):
        raise SettingsError(f"--no-token: expected a server on 127.0.0.1, got {settings.server.host}: others could reach it; "
                            "leave --no-token out, and a token is made")  # fmt: skip
    settings = app.with_absolute_folders(settings)
    if running := app.running_server(settings.server.port):
        _show_again(settings, running, open_page)
        return
    settings = _with_cluster(settings)
    devices_of_workers(settings)  # raises where there are fewer GPUs here
    app.check_port(settings.server.host, settings.server.port)
    token = "" if no_token else settings.server.token or secrets.token_urlsafe(TOKEN_BYTES)
    given = os.environ.pop(LOG_VARIABLE, "")
    if not given:
        _check_machine(settings)
    path = Path(given) if given else _open_log(settings)
    if background:
        _start(settings, token, path)
        if open_page:
            _open(settings.server.host, settings.server.port, token)
        return
    _serve(settings, token, path, quiet=bool(given), open_page=open_page)


def _with_cluster(settings: Settings) -> Settings:
    """The settings with the address of the cluster, which answers."""
    if settings.cluster.address in ("", "local"):
        return settings
    from i2v_lab.cluster import find_cluster

    return settings.model_copy(update={"cluster": settings.cluster.model_copy(update={"address": find_cluster(settings)})})


def _check_installed() -> None:
    import importlib.util

    needed = ("jupyter_server", "voila", "jupyterlab", "fastapi", "fastapi_offline", "python_multipart")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise I2VLabError(f"the server needs {', '.join(missing)}: pip install 'i2v_lab[lab]'")


def _check_machine(settings: Settings) -> None:
    """Check the machine as the doctor does; report only what is not well."""
    from i2v_lab.cli.doctor import examine

    checks = [check for check in examine(settings) if check.state != "ok"]
    for check in checks:
        remark(f"{check.state}: {check.name}: {check.found}; {check.remedy}", "red" if check.state == "missing" else "yellow")
    if any(check.state == "missing" for check in checks):
        raise I2VLabError("this machine cannot make clips yet: fix what is missing, and start again")


def _open_log(settings: Settings) -> Path:
    """Make the folders, and the log of this start."""
    path = settings.log.directory / f"app_{datetime.now():%Y%m%d_%H%M%S}.log"
    try:
        for folder in (settings.output.directory, settings.log.directory):
            make_folder(folder)
        make_file(path)
    except OSError as error:
        raise I2VLabError(f"{error.filename}: cannot be made ({error.strerror}); choose another folder") from None
    return path


def _address(host: str, port: int, token: str) -> str:
    """Where the page is, for a browser on this machine."""
    here = EVERYWHERE.get(host, host)
    shown = f"[{here}]" if ":" in here else here
    return f"http://{shown}:{port}/{f'?token={token}' if token else ''}"


def _show(settings: Settings, token: str, path: Path) -> None:
    """Print where the page is, and how to follow the log."""
    host, port = settings.server.host, settings.server.port
    tell(f"i2v_lab is at {_address(host, port, token)}")
    if host in EVERYWHERE:
        tell(f"for other machines: {_address(_network_name(host), port, token)}")
    tell(f"API: /api/docs; JupyterLab: /lab; log: {path}")


def _show_again(settings: Settings, running: Running, open_page: bool) -> None:
    """Print where the server is that runs on this port already."""
    tell(f"already running at {_address(running.host, running.port, running.token)}")
    wanted = settings.output.directory
    if running.output != wanted:
        remark(f"its clips go to {running.output}, not to {wanted}: end it with --stop, or choose another --port", "yellow")
    if open_page:
        _open(running.host, running.port, running.token)


def _open(host: str, port: int, token: str) -> None:
    """Open the page in the browser of this machine, where it has one."""
    import webbrowser

    if not webbrowser.open(_address(host, port, token)):
        remark("no browser could be opened here; open the address yourself", "yellow")


def _network_name(host: str) -> str:
    """The address of this machine for others, of the kind that `host` serves; nothing is sent to find it."""
    kind, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.connect((far, 9))
        return str(probe.getsockname()[0])
    return socket.gethostname()


def _serve(settings: Settings, token: str, path: Path, *, quiet: bool, open_page: bool) -> None:
    """Serve until asked to end. The running clip is finished, or recorded as stopped."""
    from i2v_lab.jobs import environment
    from i2v_lab.log import log_to
    from i2v_lab.server import app
    from i2v_lab.server.api import make_app
    from i2v_lab.server.state import ApiState
    from i2v_lab.store.processes import MAKER, own_name

    os.environ.update(environment(settings))  # also for notebooks, which have another current folder
    os.environ[MAKER] = own_name()  # a clip that a page asks for is made by the worker of the server, and outlives the page
    signal.signal(signal.SIGINT, signal.default_int_handler)  # until the server has its own
    hang_up_terminates()
    state = ApiState(settings)

    def begin() -> None:
        """Say where the page is. From now on it answers."""
        app.write_state(settings)
        if not quiet:
            _show(settings, token, path)
            tell("Ctrl-C ends it")
        if open_page:
            _open(settings.server.host, settings.server.port, token)

    try:
        if not quiet:  # somebody is about to open the page
            state.runner.prepare()  # the worker loads what it needs while the server does
        server = app.make(settings, token, log_to(path, "py.warnings"), make_app(state, with_token=bool(token)))
        state.runner.start()
        app.run(server, begin, state.runner.prepare, ready=not quiet)
    finally:
        ignore("SIGTERM", "SIGHUP")  # it is ending
        state.runner.close()
        app.state_file(settings.server.port).unlink(missing_ok=True)
        log.info("the server has ended")


def _start(settings: Settings, token: str, path: Path) -> None:
    """Start a server in a process of its own, and wait until it answers."""
    from i2v_lab.server import app

    words = ["serve", "--port", str(settings.server.port), "--host", settings.server.host]
    words += [
        "--output-dir",
        str(settings.output.directory),
        "--device",
        settings.device,
        "--parallel",
        str(settings.parallel),
        "--workers",
        str(settings.server.workers),
        *(["--cluster", settings.cluster.address] if settings.cluster.address else []),
        *([] if token else ["--no-token"]),
    ]
    variables = {**os.environ, LOG_VARIABLE: str(path), **({"I2V_LAB_SERVER__TOKEN": token} if token else {})}
    with path.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "i2v_lab", *words], env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True, creationflags=DETACHED,
        )  # fmt: skip
    until = time.monotonic() + BEGIN_SECONDS
    while not _answers(settings):
        if process.poll() is not None:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            raise I2VLabError(f"the server ended with {process.returncode}: {lines[-1][:300]}; the log: {path}")
        if time.monotonic() > until:
            process.terminate()
            raise I2VLabError(f"the server did not answer within {BEGIN_SECONDS} s; the log: {path}")
        time.sleep(0.1)
    assert app.find_server(settings.server.port) is not None  # noqa: S101 - it wrote so before it answered
    _show(settings, token, path)
    tell(f"it runs in the background; i2v-lab serve --stop --port {settings.server.port} ends it")


def _answers(settings: Settings) -> bool:
    import httpx

    try:
        address = f"{_address(settings.server.host, settings.server.port, '')}api/health"
        return httpx.get(address, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _stop(settings: Settings) -> None:
    from i2v_lab.server import app

    port = settings.server.port
    process: Any = app.find_server(port)
    if process is None:
        raise I2VLabError(f"no server of this user was started by i2v-lab serve on port {port}; name its port with --port")
    import psutil

    process.terminate()
    try:
        process.wait(settings.server.stop_seconds + KILL_SECONDS)
    except psutil.TimeoutExpired:
        raise I2VLabError(f"process {process.pid} has not ended yet; its clip is being stopped, look at the log") from None
    tell(f"the server on port {port} has ended")
