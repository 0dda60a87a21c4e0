"""A Jupyter server on 127.0.0.1 with its notebooks in a folder of its own, and how JupyterLab and Voilà are driven."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Page

START_SECONDS = 90  # for a machine that is busy

# News and updates would open windows over the notebook.
OVERRIDES = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension:themes": {"adaptive-theme": True},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}

# Until the notebook's own kernel answers: a menu that is clicked before does nothing.
READY = """async (path) => {
  const until = async (look) => { for (;;) { const found = look(); if (found) return found; await new Promise((go) => setTimeout(go, 50)); } };
  const app = await until(() => window.jupyterapp);
  await app.restored;
  const widget = await until(() => [...app.shell.widgets("main")].find((one) => one.context?.path === path));
  await widget.context.ready;
  await widget.context.sessionContext.ready;
  const kernel = await until(() => widget.context.sessionContext.session?.kernel);
  await kernel.info;
  await until(() => kernel.connectionStatus === "connected" && kernel.status === "idle");
  app.shell.activateById(widget.id);
  return true;
}"""
RUN_ALL = "async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); return true; }"


@dataclass(frozen=True)
class Server:
    """A Jupyter server that carries JupyterLab and Voilà.

    Attributes:
        url: http://127.0.0.1:PORT/
        token: what its pages and its API ask for.
        folder: its root; tests put their notebooks into folders of their own below it.
        log: what it says.
        pid: its process.
    """

    url: str
    token: str
    folder: Path
    log: Path
    pid: int

    def lab_url(self, path: str) -> str:
        """JupyterLab with one notebook open; `path` is relative to `folder`."""
        return f"{self.url}lab/workspaces/w{secrets.token_hex(4)}/tree/{path}?token={self.token}"

    def voila_url(self, path: str) -> str:
        """The notebook as Voilà shows it: executed again, without its code."""
        return f"{self.url}voila/render/{path}?token={self.token}"

    def write(self, path: str, cells: Sequence[str]) -> str:
        """A notebook of code cells below `folder`. Returns `path`."""
        v4 = nbformat.v4
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells], metadata=kernel)
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place)
        return path

    def open_lab(self, page: Page, path: str, *, run: bool = True) -> None:
        """Open a notebook in JupyterLab, and run all its cells to the end."""
        page.goto(self.lab_url(path))
        page.wait_for_function("() => window.jupyterapp", timeout=START_SECONDS * 1000)
        page.evaluate(READY, path)
        if run:
            page.evaluate(RUN_ALL)

    def open_voila(self, page: Page, path: str) -> None:
        """Open a notebook in Voilà, until its cells were executed."""
        page.goto(self.voila_url(path), timeout=START_SECONDS * 1000)
        page.wait_for_selector("#rendered_cells, .jp-Notebook", state="attached", timeout=START_SECONDS * 1000)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def settings_of(home: Path) -> dict[str, str]:
    """The environment of a Jupyter server that takes no settings of whoever runs the tests, and leaves none."""
    overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True, exist_ok=True)
    overrides.write_text(json.dumps(OVERRIDES), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("I2V_LAB_", "JUPYTER", "JPY_", "PYTEST_"))}
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
              "XDG_CONFIG_HOME": "xdg", "JUPYTERLAB_SETTINGS_DIR": "lab-settings", "JUPYTERLAB_WORKSPACES_DIR": "lab-workspaces"}  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**kept, **{name: str(home / place) for name, place in places.items()}, "PATH": path, "HF_HUB_OFFLINE": "1"}


@contextmanager
def jupyter_server(folder: Path, *arguments: str) -> Iterator[Server]:
    """A server whose root is `folder`; ended, with its kernels, at the end of the block."""
    home = Path(tempfile.mkdtemp(prefix="jupyter-home-"))
    port, token, log = free_port(), secrets.token_hex(16), home / "server.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser", "--allow-root",
               "--LabApp.extension_manager=readonly", *arguments]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=settings_of(home), cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        server = Server(f"http://127.0.0.1:{port}/", token, folder, log, process.pid)
        _wait(server, process)
        yield server
    finally:
        process.terminate()  # it ends its kernels first
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{server.url}api/status?token={server.token}", timeout=5):  # noqa: S310  our own server
                return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no Jupyter server at {server.url}: {error}\n{server.log.read_text()[-3000:]}") from None
            time.sleep(0.1)
