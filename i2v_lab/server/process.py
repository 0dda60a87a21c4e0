"""The API's process: how the server starts it, keeps it running and ends it; and its entry point.

It listens on a Unix socket in a folder that only this user can open. The server makes the socket and hands it over, so that a
request which comes before the API is ready, or while it starts again, waits. Its standard input is a pipe from the server:
where the pipe ends the server is gone, and the API ends with it. Its worker then finishes the running clip.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from i2v_lab.errors import I2VLabError
from i2v_lab.log import log_to
from i2v_lab.settings import Settings, load_settings

log = logging.getLogger(__name__)
KILL_SECONDS = 40.0  # beyond `stop_seconds`: until the API's process is killed
BACKLOG = 512
PATH_MAX = 80


class ApiProcess:
    """The API's process, as the server sees it."""

    def __init__(self, settings: Settings, log_file: Path, *, with_token: bool) -> None:
        self.settings = settings
        self.words = [str(log_file), "token" if with_token else ""]
        short = len(tempfile.gettempdir()) < PATH_MAX  # the path of a Unix socket has 107 bytes at most
        self.folder = Path(tempfile.mkdtemp(prefix="i2v-lab-", dir=None if short else "/tmp"))  # of this user alone  # noqa: S108
        self.socket = self.folder / "api"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen(BACKLOG)
        self._start()

    def _start(self) -> None:
        number = self._listener.fileno()
        # A session of its own: Ctrl-C in the terminal is for the server alone.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "i2v_lab.server.process", str(number), *self.words], stdin=subprocess.PIPE,
            pass_fds=[number], start_new_session=True,
        )  # fmt: skip

    def keep_running(self) -> bool:
        """Start the process again where it was killed. Returns whether it runs: one that ended by an error stays ended."""
        code = self.process.poll()
        if code is None:
            return True
        if code >= 0:
            return False
        log.error("the API's process was killed by signal %d: it is started again", -code)
        self.process.stdin.close()  # type: ignore[union-attr]
        self._start()
        return True

    def close(self) -> None:
        """End the process and wait for that: its running clip may be finished within `stop_seconds`."""
        self.process.terminate()
        try:
            self.process.wait(self.settings.server.stop_seconds + KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()  # type: ignore[union-attr]
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _follow_server(listener: socket.socket) -> None:
    """End this process with the server, also where that is killed."""
    os.read(0, 1)
    shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
    os._exit(0)


def main() -> None:
    """The entry point: `python -m i2v_lab.server.process SOCKET LOG TOKEN`, with the settings of the environment."""
    number, path, with_token = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: None)  # what uvicorn hears, and raises again once it has ended
    listener = socket.socket(fileno=int(number))
    threading.Thread(target=_follow_server, args=(listener,), daemon=True).start()
    log_to(Path(path), "py.warnings", "uvicorn.error")
    import uvicorn

    from i2v_lab.server.api import Api
    from i2v_lab.server.state import ApiState

    try:
        state = ApiState(load_settings())
    except I2VLabError as error:
        sys.exit(f"the API cannot start: {error}")
    config = uvicorn.Config(
        Api(state, with_token=bool(with_token)), log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none",
        http="h11", server_header=False, date_header=False, forwarded_allow_ips="*", timeout_graceful_shutdown=1, backlog=BACKLOG,
    )  # fmt: skip
    state.runner.start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending
        state.close()


if __name__ == "__main__":
    main()
