"""A client of the API for scripts: it sends a picture, tells how far its clip is, and saves it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.errors import I2VLabError, InputError, ParamsError, PictureError, RunError, Stop

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60  # the second is between two bytes: a server says something every 15 s
RECONNECTS = 30  # tries in a row to hear of a clip again, a second apart: a server that is started again takes some seconds


@dataclass(frozen=True)
class RemoteClip:
    """A clip that a server made.

    Attributes:
        id: of the job. url: of the MP4.
        params: what it was made with, as the server says.
        seconds: what the run took there.
        frames_sha256: hash of its frames, as in the record of runs.
    """

    client: Client
    id: str
    url: str
    params: dict[str, Any]
    seconds: float
    frames_sha256: str

    def save(self, path: Path | str) -> Path:
        """Download the clip; a folder gets it as <id>.mp4. Written under another name and renamed when it is whole."""
        target = Path(path)
        if target.is_dir():
            target /= f"{self.id}.mp4"
        part = target.with_name(f".{target.name}.part")
        try:
            with self.client.get(self.url, stream=True) as answer, part.open("wb") as file:
                for block in answer.iter_content(2**20):
                    file.write(block)
            part.replace(target)
        except OSError as error:  # requests' own errors are among them
            raise I2VLabError(f"the clip could not be saved to {target}: {_plain(error)}") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return target


class Client:
    """A server of `i2v-lab serve`.

    client = Client("http://127.0.0.1:7860", token)
    clip = client.generate(image="cup.jpg", prompt="camera panning left slowly", progress=print)
    clip.save("cup.mp4")
    """

    def __init__(self, url: str, token: str = "") -> None:
        """
        Args:
            url: of the server, without a path: http://127.0.0.1:7860.
            token: what it was started with; "" where it was started with --no-token.
        """
        import requests

        self.url = url.rstrip("/")
        self._session = requests.Session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def generate(
        self,
        image: Path | str,
        prompt: str = "",
        *,
        progress: Callable[[dict[str, Any]], object] | None = None,
        wait: bool = False,
        **params: Any,
    ) -> RemoteClip:
        """Make a clip and wait for it.

        Args:
            image: a picture's file on this machine, or a sample such as sample:coffee.
            progress: called with where the clip stands each time that changes: a dictionary with state, stage, step, steps,
                place (in the queue) and seconds_left, as `GET /api/clips/{id}` answers.
            wait: where the queue is full, wait for a place instead of raising.
            params: other fields of ClipParams: num_frames=16, resolution="512p", seed=1, ...

        Raises:
            ParamsError, PictureError: the server does not take it; the text names the field. RunError: it was not made.
            Stop: somebody stopped it. I2VLabError: no such server, a wrong token, a full queue.
        """
        id = self.submit(image, prompt, wait=wait, **params)
        last: dict[str, Any] = {}
        for last in self.follow(id):
            if progress:
                progress(last)
        if last.get("state") != "done":
            kind = Stop if last.get("state") == "stopped" else RunError
            raise kind(f"{last.get('state')}: {last.get('reason')}")
        result = last["result"]
        return RemoteClip(self, id, self.url + result["url"], last["params"], result["seconds"], result["frames_sha256"])

    def submit(self, image: Path | str, prompt: str = "", *, wait: bool = False, **params: Any) -> str:
        """Ask for a clip, as `generate` does, and return the job's id at once."""
        fields = {"prompt": prompt, **params}
        while True:
            if str(image).startswith("sample:"):
                answer = self._send("POST", "/api/clips", json={"image": str(image), **fields})
            else:
                answer = self._send("POST", "/api/clips", files=self._form(Path(image), fields))
            if answer.status_code != 429 or not wait:
                break
            time.sleep(float(answer.headers.get("Retry-After", "1")))
        return str(self._checked(answer).json()["id"])

    def _form(self, image: Path, fields: dict[str, Any]) -> list[tuple[str, tuple[str | None, str | bytes]]]:
        try:
            data = image.read_bytes()
        except OSError as error:
            raise PictureError(f"{image}: expected a picture file that can be read: {error.strerror or error}") from None
        texts: list[tuple[str, tuple[str | None, str | bytes]]] = [(name, (None, str(value))) for name, value in fields.items()]
        return [*texts, ("image", (image.name.encode(errors="replace").decode(), data))]

    def follow(self, id: str) -> Iterator[dict[str, Any]]:
        """Where a job stands, each time that changes, until it has ended. A lost connection is taken up again."""
        import requests

        seen, lost = "", 0
        while True:
            try:
                for event, data in self._events(id, seen):
                    seen, lost = event, 0
                    yield data
                    if data["state"] not in ("waiting", "running"):
                        return
            except requests.RequestException as error:
                lost += 1
                if lost > RECONNECTS:
                    raise I2VLabError(f"{self.url}: the connection was lost: {_plain(error)}; the clip may still be made") from None
                time.sleep(1)
            else:
                lost += 1
                if lost > RECONNECTS:
                    raise I2VLabError(f"{self.url}: the server says no more of clip {id}")

    def _events(self, id: str, seen: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(number of the event, where the job stands) of each event of one connection."""
        headers = {"Last-Event-ID": seen} if seen else {}
        url = f"{self.url}/api/clips/{id}/events"
        with self._session.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, ANSWER_SECONDS)) as answer:
            self._checked(answer)
            if answer.status_code == 204:  # it had ended, and that was told
                yield seen, self.get(f"{self.url}/api/clips/{id}").json()
                return
            number = seen
            for line in answer.iter_lines():
                name, _, value = line.decode().partition(": ")
                if name == "id":
                    number = value
                elif name == "data":
                    yield number, json.loads(value)

    def stop(self, id: str) -> None:
        """End a job: at once while it waits, at its next step while it runs."""
        self._checked(self._send("DELETE", f"/api/clips/{id}"))

    def get(self, url: str, **more: Any) -> requests.Response:
        """The answer to a GET with the token; the URL is one that the server told."""
        if not url.startswith(f"{self.url}/"):  # the token is for that server alone
            raise InputError(f"expected a URL of {self.url}, got {url[:200]}")
        return self._checked(self._send("GET", url.removeprefix(self.url), **more))

    def _send(self, method: str, path: str, **more: Any) -> requests.Response:
        import requests

        try:
            return self._session.request(method, self.url + path, timeout=(CONNECT_SECONDS, ANSWER_SECONDS), **more)
        except requests.RequestException as error:
            raise I2VLabError(f"{self.url}: expected a server of i2v-lab serve, got no answer: {_plain(error)}") from None

    def _checked(self, answer: requests.Response) -> requests.Response:
        """The answer, if it is no error."""
        if answer.ok:
            return answer
        try:
            fault = answer.json()["error"]
            field, message = str(fault["field"]), str(fault["message"])
        except (ValueError, KeyError, TypeError):
            field, message = "", f"HTTP {answer.status_code} {answer.reason}"
        if answer.status_code == 404 and field == "state":
            raise Stop(message)
        if answer.status_code == 403:
            raise I2VLabError(f"{self.url}: expected the token that the server was started with: {message}")
        kind = {422: PictureError if field == "image" else ParamsError, 409: ParamsError, 413: PictureError}.get(
            answer.status_code, I2VLabError
        )
        # Most messages begin with the field already.
        raise kind(message if not field or message.startswith(f"{field}: ") else f"{field}: {message}")


def _plain(error: Exception) -> str:
    """What went wrong with a connection, without the objects that urllib3 puts around it."""
    reason: Any = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    text = str(getattr(reason, "strerror", None) or reason)
    return text.rpartition(": ")[2][:200] if "object at" in text else text[:200]
