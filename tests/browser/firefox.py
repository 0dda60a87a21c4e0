"""Firefox, driven over WebDriver BiDi by a few messages: Playwright has a Firefox of its own, which plays no H.264.

https://w3c.github.io/webdriver-bidi/ says what the messages are.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

from browser.conftest import find_browser
from browser.servers import free_port

START_SECONDS = 90
FIREFOX = ("firefox-esr", "firefox")  # names of the program


class Firefox:
    """One window of a headless Firefox."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.count = 0
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.socket = websocket.create_connection(
                    f"ws://127.0.0.1:{port}/session", timeout=START_SECONDS, suppress_origin=True
                )
                break
            except (OSError, websocket.WebSocketException):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        self.ask("session.new", capabilities={})
        self.window = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command; events are passed over."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.count:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
                return dict(answer["result"])

    def goto(self, address: str) -> None:
        self.ask("browsingContext.navigate", context=self.window, url=address, wait="complete")

    def resize(self, width: int, height: int) -> None:
        self.ask("browsingContext.setViewport", context=self.window, viewport={"width": width, "height": height})

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited; it comes back as JSON."""
        made = f"Promise.resolve({expression}).then((found) => JSON.stringify(found ?? null))"
        answer = self.ask("script.evaluate", expression=made, target={"context": self.window}, awaitPromise=True)
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def until(self, expression: str, wanted: Any) -> Any:
        """The value of an expression once it is the wanted one; its last value where it never is."""
        deadline = time.monotonic() + START_SECONDS
        while (found := self.evaluate(expression)) != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("browsingContext.captureScreenshot", context=self.window)["data"]))


@contextmanager
def firefox(profile: Path) -> Iterator[Firefox]:
    """A headless Firefox with a profile of its own, ended at the end of the block."""
    program, port = find_browser(*FIREFOX), free_port()
    profile.mkdir(parents=True, exist_ok=True)
    command = [program, "--headless", "--no-remote", "--profile", str(profile), f"--remote-debugging-port={port}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        browser = Firefox(port, process)
        try:
            yield browser
        finally:
            browser.socket.close()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
