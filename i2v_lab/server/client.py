"""A client of the API for scripts: it sends a picture, reports how far its clip is, and saves it."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.errors import I2VLabError, InputError, ParamsError, PictureError, RunError, Stop
from i2v_lab.portable import replace

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60  # the second is between two bytes: a server sends something every 15 s
RECONNECTS = 30  # tries in a row to connect again, a second apart: a server that is started again takes some seconds


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
        import httpx

        target = Path(path)
        if target.is_dir():
            target /= f"{self.id}.mp4"
        part = target.with_name(f".{target.name}.part")
        try:
            with self.client.stream(self.url) as answer, part.open("wb") as file:
                for block in answer.iter_bytes(2**20):
                    file.write(block)
            replace(part, target)
        except (OSError, httpx.HTTPError) as error:
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
        import httpx

        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(headers=headers, timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS))
        weakref.finalize(self, self._http.close)

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
            progress: called at each change of the job: a dictionary with state, stage, step, steps, place (in the queue) and
                seconds_left, as `GET /api/clips/{id}` answers.
            wait: where the queue is full, wait for a place instead of raising.
            params: other fields of ClipParams: num_frames=16, resolution="512p", seed=1, ...

        Raises:
            ParamsError, PictureError: the server refuses it; the text names the field. RunError: the clip was not made.
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
        fields: dict[str, Any] = {name: (None, str(value)) for name, value in {"prompt": prompt, **params}.items()}
        sample = str(image).startswith("sample:")
        fields["image"] = (None, str(image)) if sample else _read_picture(Path(image))
        while True:
            answer = self._send("POST", "/api/clips", files=fields)
            if answer.status_code != 429 or not wait:
                return str(self._checked(answer).json()["id"])
            time.sleep(float(answer.headers.get("Retry-After", "1")))

    def follow(self, id: str) -> Iterator[dict[str, Any]]:
        """The status of a job at each change, until it has ended. A lost connection is made again."""
        import httpx

        seen, lost = "", 0
        while True:
            reason = f"the server sends nothing more of clip {id}"
            try:
                for event, data in self._events(id, seen):
                    seen, lost = event, 0
                    yield data
                    if data["state"] not in ("waiting", "running"):
                        return
            except httpx.HTTPError as error:
                reason = f"the connection was lost: {_plain(error)}; the clip may still be made"
                time.sleep(1)
            lost += 1
            if lost > RECONNECTS:
                raise I2VLabError(f"{self.url}: {reason}")

    def _events(self, id: str, seen: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(number of the event, status of the job) of each event of one connection."""
        from httpx_sse import EventSource

        with self.stream(f"{self.url}/api/clips/{id}/events", {"Last-Event-ID": seen} if seen else {}) as answer:
            for event in EventSource(answer).iter_sse():
                yield event.id, event.json()

    def stop(self, id: str) -> None:
        """End a job: at once while it waits, at its next step while it runs."""
        self._checked(self._send("DELETE", f"/api/clips/{id}"))

    def get(self, url: str) -> httpx.Response:
        """The answer to a GET with the token; the URL is one that the server sent."""
        return self._checked(self._send("GET", self._path(url)))

    @contextmanager
    def stream(self, url: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """As `get`, without reading the body first. Raises httpx.HTTPError where the connection is lost."""
        with self._http.stream("GET", self.url + self._path(url), headers=headers) as answer:
            if not answer.is_success:
                answer.read()
            yield self._checked(answer)

    def _path(self, url: str) -> str:
        if not url.startswith(f"{self.url}/"):  # the token is for that server alone
            raise InputError(f"expected a URL of {self.url}, got {url[:200]}")
        return url.removeprefix(self.url)

    def _send(self, method: str, path: str, **body: Any) -> httpx.Response:
        import httpx

        try:
            return self._http.request(method, self.url + path, **body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise I2VLabError(f"{self.url}: expected a server of i2v-lab serve, got no answer: {_plain(error)}") from None

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        """The answer, if it is no error."""
        if answer.is_success:
            return answer
        try:
            fault = answer.json()["error"]
            field, message = str(fault["field"]), str(fault["message"])
        except (ValueError, KeyError, TypeError):
            field, message = "", f"HTTP {answer.status_code} {answer.reason_phrase}"
        if answer.status_code == 403:
            raise I2VLabError(f"{self.url}: expected the token that the server was started with: {message}")
        kind = {422: PictureError if field == "image" else ParamsError, 409: ParamsError, 413: PictureError}.get(
            answer.status_code, I2VLabError
        )
        # Most messages begin with the field already.
        raise kind(message if not field or message.startswith(f"{field}: ") else f"{field}: {message}")


def _read_picture(image: Path) -> tuple[str, bytes]:
    """(name, bytes) of a picture's file."""
    try:
        return image.name.encode(errors="replace").decode(), image.read_bytes()
    except OSError as error:
        raise PictureError(f"{image}: expected a picture file that can be read: {error.strerror or error}") from None


def _plain(error: Exception) -> str:
    """What went wrong with a connection, in one line."""
    return (str(error) or type(error).__name__)[:200]
