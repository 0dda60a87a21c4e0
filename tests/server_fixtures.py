"""Servers that several test files share, as a plugin of pytest: `pytest_plugins = ("server_fixtures",)`."""

from __future__ import annotations

import signal

import psutil
import pytest
from servers import BODY_MIB, Server, wait_for


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that other machines reach, so it wants its token."""
    everywhere = ("--host", "0.0.0.0")  # noqa: S104
    running = Server(
        tmp_path_factory.mktemp("server"), *everywhere, I2V_LAB_SERVER__BODY_MIB=str(BODY_MIB), I2V_LAB_SERVER__QUEUE_LIMIT="5"
    )
    yield running.start()
    running.end()


@pytest.fixture(scope="session")
def open_server(tmp_path_factory):
    """A server without a token, on this machine alone."""
    running = Server(tmp_path_factory.mktemp("open"), token="")
    yield running.start()
    running.end()


@pytest.fixture
def own_server(tmp_path):
    """Servers that a test may kill: each call makes one more in the same folder. Ctrl-C ends them, and leaves no process."""
    made = []

    def make(**variables):
        made.append(Server(tmp_path / "own", **variables).start())
        return made[-1]

    yield make
    for running in made:
        if running.process.poll() is None:
            children = psutil.Process(running.process.pid).children(recursive=True)
            running.end(signal.SIGINT)
            assert running.process.returncode == 0
            _, alive = psutil.wait_procs(children, 30)
            assert alive == []
    wait_for(lambda: not made or made[0].workers() == [])
