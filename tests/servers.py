"""A server as people start it: a process of its own, with a port, a token and a folder of its own."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import requests
from conftest import environment
from PIL import Image

from i2v_lab.devices.turns import turn
from i2v_lab.store import Store
from i2v_lab.store.jobs import Jobs

TOKEN = "a-token-for-the-tests-0123456789"  # noqa: S105
BODY_MIB = 1  # of the shared server: the largest body
PATIENCE = 60  # seconds until something that should happen counts as not happening


def _hear_ctrl_c() -> None:
    """Tests that run in the background of a shell ignore it, and what they start would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """One server in `folder`. `get`, `post`, ... send its token."""

    def __init__(self, folder: Path, *words: str, token: str = TOKEN, **variables: str) -> None:
        self.folder, self.words, self.token, self.variables = folder, words, token, variables
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.session = requests.Session()
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self, **more: str) -> dict[str, str]:
        run = self.folder / "run"  # the locks of devices: none of another server, sweep or test
        run.mkdir(parents=True, exist_ok=True)
        known = {"I2V_LAB_MODEL": "fake", "XDG_RUNTIME_DIR": str(run), "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_NO_CONFIG": "1"}
        return environment(self.folder, **{**known, "I2V_LAB_SERVER__TOKEN": self.token, **self.variables, **more})

    def start(self) -> Server:
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["serve", "--port", str(self.port), *([] if self.token else ["--no-token"]), *self.words]
        log = self.folder / "server.log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "i2v_lab", *words], cwd=self.folder, env=self.environment(I2V_SERVE_LOG=str(log)),
                stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - one call of C
            )  # fmt: skip
        wait_for(self.answers, lambda: log.read_text()[-3000:])
        return self

    def answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/api/health", timeout=5).ok
        return False

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(by)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.session.close()

    def workers(self) -> list[psutil.Process]:
        """The workers of this server's folder."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if "i2v_lab.jobs.worker" in (process.info["cmdline"] or []):
                with suppress(psutil.Error):
                    if process.cwd() == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def send(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=PATIENCE, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.send("GET", path, **more)

    def ask(self, **params: Any) -> str:
        """Put a small clip into the queue."""
        answer = self.send("POST", "/api/clips", json={"image": "sample:coffee", "resolution": "64x64", "num_frames": 2, **params})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, id: str) -> dict[str, Any]:
        return self.get(f"/api/clips/{id}").json()

    def ended(self, id: str) -> dict[str, Any]:
        """The job, once it has ended."""
        wait_for(lambda: self.job(id)["state"] not in ("waiting", "running"), lambda: str(self.job(id)))
        return self.job(id)

    @contextmanager
    def device_taken(self, monkeypatch: Any) -> Iterator[None]:
        """While another has the device, so that jobs wait."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(self.folder / "run"))
        with turn(("cpu",), "a test", lambda line: None):
            yield


def jobs_of(folder: Path) -> Jobs:
    """The queue of an output folder."""
    return Jobs(Store(folder).database)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(happened: Callable[[], Any], what: Callable[[], str] = lambda: "it did not happen") -> None:
    """Look until it happened; a test that waits for ever fails instead."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < until, what()
        time.sleep(0.05)


def picture(number: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A PNG that no other number has: its upper half tells the number."""
    rows, columns = size
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[: rows // 2] = colour(number)
    pixels[rows // 2 :] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def colour(number: int) -> tuple[int, int, int]:
    """Far enough from those of other numbers that no codec mixes them up; up to 125."""
    return 20 + 50 * (number % 5), 20 + 50 * (number // 5 % 5), 20 + 50 * (number // 25 % 5)


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def first_frame(data: bytes, folder: Path) -> np.ndarray:
    """The first frame of an MP4, RGB, read by OpenCV."""
    file = folder / f"{os.urandom(8).hex()}.mp4"
    file.write_bytes(data)
    capture = cv2.VideoCapture(str(file))
    there, frame = capture.read()
    capture.release()
    file.unlink()
    assert there
    return frame[:, :, ::-1]


def shows(data: bytes, number: int, folder: Path) -> bool:
    """Whether a clip is of the picture of this number."""
    frame = first_frame(data, folder).astype(int)
    upper = frame[8 : frame.shape[0] // 2 - 8].mean(axis=(0, 1))
    return bool(np.abs(upper - np.array(colour(number))).max() < 15)
