"""The web page and the API: a real server, real requests, and processes that are really killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin

import psutil
import pytest
import requests
from conftest import start as start_command
from servers import TOKEN, Server, colour, data_url, first_frame, picture, shows, wait_for

from i2v_lab.clip.params import ClipParams
from i2v_lab.server.body import ApiError, read_json, without_paths
from i2v_lab.server.schemas import clip_request, limits_of, number_pattern
from i2v_lab.settings import Server as ServerSettings
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Full, JobQueue, forecast, lives, own_name

PNG = picture(7)
BODY_MIB = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that other machines reach, so it wants its token."""
    everywhere = ("--host", "0.0.0.0")  # noqa: S104
    running = Server(
        tmp_path_factory.mktemp("server"), *everywhere, I2V_LAB_SERVER__BODY_MIB=str(BODY_MIB), I2V_LAB_SERVER__QUEUE_LIMIT="5"
    )
    yield running.start()
    running.end()


@pytest.fixture(scope="module")
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


# The queue


def params(**fields):
    return ClipParams(image="sample:coffee", resolution="64x64", num_frames=2, **fields)


def test_jobs_are_taken_in_their_order_and_each_once(tmp_path):
    queue = JobQueue(tmp_path)
    ids = [queue.add(params(seed=seed), 100).id for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        taken = [job.id for job in pool.map(lambda number: queue.claim(f"worker {number}"), range(40))]
    assert sorted(taken) == sorted(ids)
    assert queue.claim("one more") is None
    first = queue.get(ids[0])
    assert [job.id for job in queue.active()] == ids
    assert queue.end(first, "done", result="{}")
    assert not queue.end(first, "failed", "by one who thought it dead")
    assert (queue.get(ids[0]).state, queue.get(ids[0]).reason) == ("done", "")


def test_a_full_queue_takes_no_more_and_a_stopped_job_makes_room(tmp_path):
    queue = JobQueue(tmp_path)
    ids = [queue.add(params(), 2).id for _ in range(2)]
    with pytest.raises(Full):
        queue.add(params(), 2)
    assert queue.stop(ids[0], "by hand").state == "stopped"
    queue.add(params(), 2)
    running = queue.claim("a worker")
    assert running.id == ids[1]
    assert queue.stop(running.id, "by hand").state == "running"
    assert queue.tell(running.id, "denoise", 3, 10, 0.0) == "by hand"
    assert queue.stop("no such", "by hand") is None


def test_every_change_has_a_version_of_its_own(tmp_path):
    queue = JobQueue(tmp_path)
    first, second = queue.add(params(), 9), queue.add(params(), 9)
    before = queue.last_version()
    queue.claim("a worker")
    queue.tell(first.id, "denoise", 1, 10, 0.0)
    active, changed = queue.look(before)
    assert [job.id for job in active] == [first.id, second.id]
    assert [(job.id, job.stage, job.step) for job in changed] == [(first.id, "denoise", 1)]
    assert changed[0].version == queue.last_version() == before + 2


def test_the_time_left_is_drawn_from_steps_and_from_earlier_jobs(tmp_path):
    queue = JobQueue(tmp_path)
    ids = [queue.add(params(num_inference_steps=steps), 9).id for steps in (15, 15, 35)]
    queue.claim("a worker")
    queue.tell(ids[0], "denoise", 5, 15, 100.0)
    found = forecast(queue.active(), 2 / queue.get(ids[1]).work, now=110.0)
    # 5 steps took 10 s, so 10 more take 20; an equal job takes 2 s; one of (35 + 5) in place of (15 + 5) steps takes 4.
    assert [round(found[id], 6) for id in ids] == [20.0, 22.0, 26.0]
    assert forecast(queue.active(), None, now=110.0)[ids[1]] is None


def test_a_process_is_known_to_be_gone_though_its_number_came_again():
    host, pid, began = own_name().split(":")
    assert lives(own_name())
    assert not lives(f"{host}:{pid}:{float(began) - 100}")
    assert lives(f"another-host:{pid}:{began}")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not lives(f"{host}:{gone.pid}:{began}")


# What is asked


@pytest.mark.parametrize(("low", "high"), [(64, 256), (64, 300), (64, 1024), (64, 1999), (64, 2048)])
def test_a_pattern_of_numbers_takes_these_and_no_others(low, high):
    pattern = re.compile(number_pattern(low, high))
    assert [number for number in range(3000) if pattern.fullmatch(str(number))] == list(range(low, high + 1))


def test_the_limits_of_a_server_hold_for_every_request():
    limits = limits_of(Settings(model="fake", server=ServerSettings(max_num_frames=8, max_side=256)))
    model = clip_request(limits)
    small = {"image": "sample:coffee", "resolution": "64x256", "num_frames": 8}
    assert read_json(model, json.dumps(small).encode()).num_frames == 8
    for field, value in (("num_frames", 9), ("resolution", "512p"), ("resolution", "64x257")):
        with pytest.raises(ApiError) as refused:
            read_json(model, json.dumps({**small, field: value}).encode())
        assert (refused.value.status_code, refused.value.field) == (422, field)


def test_a_reason_tells_no_folder_of_this_machine():
    assert without_paths("/home/me/results/runs.db was locked; see C:\\Users\\me\\x.txt, a/b and 24000/1001") == (
        "runs.db was locked; see x.txt, a/b and 24000/1001"
    )


BAD = {
    "not base64": ({"image": "data:image/png;base64,!!!!"}, 422, "image"),
    "not a picture": ({"image": data_url(b"hello")}, 422, "image"),
    "cut": ({"image": data_url(PNG[:-40])}, 422, "image"),
    "a path": ({"image": "/etc/passwd"}, 422, "image"),
    "a relative path": ({"image": "../../results/runs.db"}, 422, "image"),
    "a web address": ({"image": "http://127.0.0.1/x.png"}, 422, "image"),
    "no such sample": ({"image": "sample:nothing"}, 422, "image"),
    "no picture": ({"image": None}, 422, "image"),
    "negative": ({"num_frames": -1}, 422, "num_frames"),
    "not finite": ({"guidance_scale": float("nan")}, 422, "guidance_scale"),
    "infinite": ({"guidance_scale": float("inf")}, 422, "guidance_scale"),
    "a truth value": ({"seed": True}, 422, "seed"),
    "a text": ({"num_inference_steps": "50"}, 422, "num_inference_steps"),
    "too large": ({"seed": 2**63}, 422, "seed"),
    "an unknown name": ({"guidance": 9}, 422, "guidance"),
    "a model that is a folder": ({"model": "checkpoints/mine"}, 422, "model"),
    "a model of the hub": ({"model": "someone/weights"}, 422, "model"),
    "a model that is not here": ({"model": "i2vgen-xl"}, 422, "model"),
    "too long": ({"prompt": "x" * 2001}, 422, "prompt"),
}


def bomb() -> str:
    """A PNG of some hundred bytes that says it has 40,000 x 40,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return data_url(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("name", [*BAD, "a bomb"])
def test_bad_input_is_refused_with_the_field_that_is_wrong(server, name):
    fields, status, field = BAD.get(name, ({"image": ""}, 422, "image"))
    fields = {"image": bomb()} if name == "a bomb" else fields
    sent = json.dumps({"image": data_url(PNG), **fields})
    answer = server.send("POST", "/api/clips", data=sent, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field), answer.text
    told = answer.json()["error"]["message"]
    assert told
    assert "Traceback" not in told
    assert str(server.folder) not in told


def test_what_the_model_cannot_make_is_said_with_what_it_can(server):
    answer = server.send("POST", "/api/clips", json={"image": "sample:coffee", "model": "closed-form", "dtype": "bfloat16"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (409, "dtype")
    assert "nearest: float32" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("data", "kind", "status", "field"),
    [
        (b"{", "application/json", 400, "body"),
        (b"\xff\xfe", "application/json", 400, "body"),
        (b"[" * 100_000, "application/json", 400, "body"),
        (b"[]", "application/json", 422, "body"),
        (b"{}", "application/json", 422, "image"),
        (b"{}", "text/plain", 415, "Content-Type"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "Content-Type"),
        (b"nothing", "multipart/form-data", 400, "body"),
        (b"nothing", "multipart/form-data; boundary=x", 400, "body"),
    ],
)
def test_a_body_that_is_none_is_refused(server, data, kind, status, field):
    answer = server.send("POST", "/api/clips", data=data, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field), answer.text


@pytest.mark.parametrize("path", ["/api/clips", "/api/predict"])
def test_a_body_of_200_mb_is_refused_with_a_word(server, path):
    sent = b'{"image": "data:image/png;base64,' + b"A" * 200_000_000
    answer = server.send("POST", path, data=sent, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (413, "body")
    assert f"{BODY_MIB} MiB" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (0, {"name": "x.png", "data": "no"}, "data.0 (image).data"),
        (0, {"name": "x.png"}, "data.0 (image).data"),
        (2, 500, "data.2 (resolution)"),
        (3, -1, "data.3 (num_frames)"),
        (5, 0, "data.5 (num_inference_steps)"),
        (6, float("nan"), "data.6 (guidance_scale)"),
    ],
)
def test_a_wrong_value_of_predict_is_named(server, place, value, field):
    data = [{"name": "x.png", "data": data_url(PNG)}, "zoom in", 256, 2, 8, 1, 9.0]
    data[place] = value
    answer = server.send("POST", "/api/predict", data=json.dumps({"data": data}), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field), answer.text


# What is made


@pytest.mark.parametrize("urls", ["absolute", "relative"])
def test_a_script_posts_the_form_of_predict_and_downloads_the_clip(open_server, tmp_path, urls):
    image = data_url(picture(11, (300, 300)))
    body = {"data": [{"name": "input.png", "data": image}, "camera zooming in", 256, 4, 8, 3, 9.0]}
    answer = requests.post(
        f"{open_server.url}/api/predict", params={} if urls == "absolute" else {"urls": urls}, json=body, timeout=60
    )
    assert answer.status_code == 200, answer.text
    url, made = answer.json()["data"]
    assert url.startswith("http" if urls == "absolute" else "/")
    assert answer.json()["duration"] > 0
    assert (made["resolution"], made["num_frames"], made["num_inference_steps"]) == ("256p", 4, 3)
    clip = requests.get(urljoin(open_server.url, url), timeout=60)
    assert clip.headers["Content-Type"] == "video/mp4"
    assert first_frame(clip.content, tmp_path).shape == (256, 256, 3)
    assert shows(clip.content, 11, tmp_path)


def test_a_clip_is_asked_for_by_a_form_and_is_a_run_like_any_other(server, tmp_path):
    form = {"prompt": "zoom in – slowly", "resolution": "64x96", "num_frames": "3", "fps": "24000/1001", "seed": "5"}
    answer = server.send("POST", "/api/clips", data=form, files={"image": ("../../évil.png", picture(3))})
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/clips/{answer.json()['id']}"
    job = server.ended(answer.json()["id"])
    assert job["state"] == "done", job
    assert (job["place"], job["result"]["made_before"], job["params"]["fps"]) == (None, False, "24000/1001")
    assert "/" not in job["params"]["image"]
    clip = server.get(job["result"]["url"]).content
    assert shows(clip, 3, tmp_path)
    store = Store(server.folder / "results")
    record = store.get(job["result"]["run"])
    assert record.id == job["id"]
    assert (record.status, record.frames_sha256) == ("done", job["result"]["frames_sha256"])
    assert (store.directory / record.clip).read_bytes() == clip
    assert {path.parent for path in server.folder.rglob("*") if path.suffix == ".png"} == {store.pictures}
    again = server.send("POST", "/api/clips", data=form, files={"image": ("other.png", picture(3))})
    assert server.ended(again.json()["id"])["result"]["made_before"]


def test_a_clip_that_cannot_be_made_says_why(server):
    one = server.send("POST", "/api/clips", json={"image": data_url(_one_colour()), "resolution": "64x64"})
    job = server.ended(one.json()["id"])
    assert job["state"] == "failed"
    assert "one colour" in job["reason"]
    assert str(server.folder) not in json.dumps(job)
    assert server.get(f"/api/clips/{job['id']}/clip.mp4").status_code == 404


def _one_colour() -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 90, 90)).save(stream, "PNG")
    return stream.getvalue()


def test_a_part_of_a_clip_can_be_asked_for(server):
    id = server.ask(seed=21)
    server.ended(id)
    path = f"/api/clips/{id}/clip.mp4"
    whole = server.get(path)
    size = len(whole.content)
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = server.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{size}"
    assert server.get(path, headers={"Range": "bytes=-5"}).content == whole.content[-5:]
    beyond = server.get(path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    head = server.send("HEAD", path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(size), b"")


def test_a_clip_whose_name_is_not_latin_is_served(own_server):
    server = own_server(I2V_LAB_OUTPUT__PREFIX='猫"')
    id = server.ask(seed=22)
    server.ended(id)
    answer = server.get(f"/api/clips/{id}/clip.mp4")
    assert (answer.status_code, answer.content[4:8]) == (200, b"ftyp")
    assert answer.headers["Content-Disposition"].startswith("inline; filename*=UTF-8''%E7%8C%AB%22")


def events(text: str) -> list[tuple[str, str, dict]]:
    """(id, name, data) of a stream of events."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def test_events_tell_all_states_in_order_and_go_on_where_they_broke_off(server, monkeypatch):
    with server.device_taken(monkeypatch):
        first, second = server.ask(seed=31), server.ask(seed=32)
        wait_for(lambda: server.job(first)["stage"] == "wait")
        places = server.job(first)["place"], server.job(second)["place"]
        stream = server.get(f"/api/clips/{second}/events", stream=True)
        lines = stream.iter_lines(decode_unicode=True)
        start = [next(lines) for _ in range(3)]
    assert places == (0, 1)
    told = events("\n".join([*start, *lines]))
    states = [name for _, name, _ in told]
    assert states[0] == "waiting"
    assert states[-1] == "done"
    assert sorted(states, key=["waiting", "running", "done"].index) == states
    assert told[-1][2]["result"]["url"].endswith("/clip.mp4")
    again = server.get(f"/api/clips/{second}/events", headers={"Last-Event-ID": told[0][0]})
    assert [event[0] for event in events(again.text)] == [told[-1][0]]
    assert server.get(f"/api/clips/{second}/events", headers={"Last-Event-ID": told[-1][0]}).status_code == 204


def test_a_full_queue_answers_429_with_the_time_to_try_again(server, monkeypatch):
    with server.device_taken(monkeypatch):
        running = server.ask(seed=40)
        wait_for(lambda: server.job(running)["state"] == "running")
        waiting = [server.ask(seed=41 + number) for number in range(5)]
        refused = server.send("POST", "/api/clips", json={"image": "sample:coffee", "seed": 50})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert [server.job(id)["place"] for id in (running, *waiting)] == [0, 1, 2, 3, 4, 5]
        assert server.send("DELETE", f"/api/clips/{waiting[0]}").json()["state"] == "stopped"
        assert server.send("DELETE", f"/api/clips/{running}").status_code == 202
        queue = JobQueue(server.folder / "results")
        wait_for(lambda: queue.get(running).state == "stopped")  # though another has the device
        for id in (running, waiting[0]):
            gone = server.get(f"/api/clips/{id}")
            assert (gone.status_code, gone.json()["error"]["field"]) == (404, "state")
    assert [server.ended(id)["state"] for id in waiting[1:]] == ["done"] * 4
    assert server.send("DELETE", f"/api/clips/{waiting[1]}").status_code == 409
    listed = server.get("/api/clips", params={"limit": 6}).json()["clips"]
    assert [job["id"] for job in listed] == [*waiting[::-1], running]
    assert {job["id"] for job in server.get("/api/clips", params={"state": "stopped"}).json()["clips"]} >= {running, waiting[0]}
    assert server.get("/api/clips", params={"state": "lost"}).json()["error"]["field"] == "state"


def test_a_plan_is_told_before_anything_is_made(server):
    found = server.get("/api/plan", params={"model": "closed-form", "resolution": "256p", "num_frames": 8}).json()
    assert found["fits"] is True
    assert 0 < found["peak_gib"] < found["free_gib"]
    assert "256p" in found["sentence"]
    assert server.get("/api/plan", params={"num_frames": 0}).json()["error"]["field"] == "num_frames"
    named = {model["name"] for model in server.get("/api/models").json()["models"]}
    assert named == {"closed-form", "fake"}


def test_many_clients_at_once_each_get_their_own_clip(tmp_path, own_server):
    server = own_server(I2V_LAB_SERVER__QUEUE_LIMIT="8")
    refused, wrong = [], []
    slow = threading.Event()

    def client(number: int) -> None:
        body = {"image": data_url(picture(number)), "resolution": "64x64", "num_frames": 2, "num_inference_steps": 1}
        while True:
            answer = server.send("POST", "/api/clips", json=body)
            if answer.status_code != 429:
                break
            refused.append(int(answer.headers["Retry-After"]))
            slow.wait(0.1)
        job = server.ended(answer.json()["id"])
        if job["state"] != "done" or not shows(server.get(job["result"]["url"]).content, number, tmp_path):
            wrong.append((number, job))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(client, range(20)))
    assert wrong == []
    assert refused
    assert min(refused) >= 1
    store = Store(server.folder / "results")
    assert len(store.records(status="done")) == 20


# Who may come in


@pytest.mark.parametrize(
    "path",
    [
        "/", "/lab", "/api/clips/x/nothing", "/tree", "/login", "/logout", "/api", "/api/clips", "/api/clips/x", "/api/clips/x/events",
        "/api/clips/x/clip.mp4", "/api/models", "/api/plan", "/api/openapi.json", "/api/contents", "/api/kernels", "/api/status",
        "/api/predict", "/files/results/runs.db", "/voila", "/voila/render/notebooks/studio.ipynb", "/voila/files/results/runs.db",
        "/voila/static/voila.js", "/voila/templates/lab/static/voila.js", "/voila/labextensions/x", "/static/favicon.ico",
        "/static/style/style.min.css", "/lab/api/settings", "/lab/extensions/x", "/nowhere", "/metrics", "/terminals/websocket/1",
        "/api/kernels/1/channels", "/robots.txt", "/favicon.ico", "/lsp/status", "/%2e%2e/etc/passwd",
    ],
)  # fmt: skip
def test_without_the_token_everything_is_403(server, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = requests.get(server.url + path, headers=headers, allow_redirects=False, timeout=60)
        assert answer.status_code == 403, (path, answer.status_code, answer.text[:200])
    for method in ("POST", "DELETE", "PUT", "PATCH", "HEAD"):
        assert requests.request(method, server.url + path, timeout=60).status_code in (403, 405)
    assert requests.get(server.url + path, params={"token": "x" * 32}, timeout=60).status_code == 403


def test_the_token_is_taken_in_the_header_the_query_and_then_as_a_cookie(server):
    for headers in ({"Authorization": f"token {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}"}):
        assert requests.get(f"{server.url}/api/clips", headers=headers, timeout=60).status_code == 200
    with requests.Session() as browser:
        page = browser.get(f"{server.url}/", params={"token": TOKEN}, allow_redirects=False, timeout=60)
        assert page.headers["Location"] == "/voila/render/notebooks/studio.ipynb"
        assert browser.get(f"{server.url}/api/clips", timeout=60).status_code == 200
        assert browser.post(f"{server.url}/api/clips", json={"image": "sample:coffee"}, timeout=60).status_code == 403
    health = requests.get(f"{server.url}/api/health", timeout=60)
    assert set(health.json()) == {"status", "version"}
    page = requests.get(f"{server.url}/", timeout=60)
    assert 'name="token"' in page.text
    assert TOKEN not in page.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_posts_of_other_sites_are_refused(open_server, headers):
    before = [job["id"] for job in open_server.get("/api/clips").json()["clips"]]
    body = {"image": "sample:coffee", "resolution": "64x64", "num_frames": 2}
    for kind in ({"json": body}, {"data": {"resolution": "64x64"}, "files": {"image": PNG}}):
        assert open_server.send("POST", "/api/clips", headers=headers, **kind).status_code == 403
    assert open_server.send("DELETE", "/api/clips/x", headers=headers).status_code == 403
    assert [job["id"] for job in open_server.get("/api/clips").json()["clips"]] == before
    own = {"Origin": open_server.url, "Sec-Fetch-Site": "same-origin"}
    assert open_server.send("POST", "/api/clips", json={**body, "seed": 77}, headers=own).status_code == 202


def raw(server, target: str) -> int:
    """The status of a GET whose path no library has tidied."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
                     "Connection: close\r\n\r\n".encode())  # fmt: skip
        return int(line.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    "end",
    [
        "/../../runs.db", "/..%2f..%2fruns.db/clip.mp4", "/%2e%2e/%2e%2e/etc/passwd", "/clip.mp4/../../runs.db", "/clip.mp4%00",
        "/..%5c..%5cruns.db", "/%252e%252e%252fruns.db/clip.mp4", "//etc/passwd", "/clip.mp4/", "/clip.webm",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_404(server, end):
    id = server.ask(seed=61)
    server.ended(id)
    assert raw(server, f"/api/clips/{id}/clip.mp4") == 200
    assert raw(server, f"/api/clips/{id}{end}") == 404
    assert raw(server, f"/api/clips{end}") == 404


def test_a_link_in_place_of_a_clip_is_404(server):
    id = server.ask(seed=62)
    job = server.ended(id)
    store = Store(server.folder / "results")
    clip = store.directory / store.get(job["result"]["run"]).clip
    secret = server.folder / "secret.mp4"
    secret.write_bytes(b"secret")
    clip.unlink()
    clip.symlink_to(secret)
    answer = server.get(job["result"]["url"])
    assert answer.status_code == 404
    assert b"secret" not in answer.content
    clip.unlink()
    assert server.get(job["result"]["url"]).status_code == 404


def test_a_method_that_is_none_says_which_are(server):
    answer = server.send("PUT", "/api/clips")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert answer.json()["error"]["field"] == "method"


# What dies


def test_a_worker_killed_in_mid_job_costs_that_job_and_no_other(own_server, monkeypatch):
    server = own_server()
    victim = server.ask(model="closed-form", resolution="256p", num_frames=16, num_inference_steps=1000)
    others = [server.ask(seed=seed) for seed in range(3)]
    wait_for(lambda: server.job(victim)["stage"] == "denoise" and server.job(victim)["step"] > 0, lambda: str(server.job(victim)))
    (worker,) = server.workers()
    worker.kill()
    lost = server.ended(victim)
    assert lost["state"] == "failed"
    assert "process ended" in lost["reason"]
    assert [server.ended(id)["state"] for id in others] == ["done"] * 3
    assert Store(server.folder / "results").get(victim).status == "failed"
    assert worker.pid not in [process.pid for process in server.workers()]


def test_a_run_that_was_done_when_its_worker_died_is_done(own_server, tmp_path):
    from i2v_lab.run import run_clip

    folder = tmp_path / "own" / "results"
    store = Store(folder)
    queue = JobQueue(folder)
    asked = params(model="fake", seed=4)
    queue.add(asked, 9)
    job = queue.claim("")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    import sqlite3

    with sqlite3.connect(queue.file) as connection:
        connection.execute("UPDATE jobs SET worker = ?", (f"{socket.gethostname()}:{gone.pid}:1.0",))
    connection.close()
    record = run_clip(asked, None, store, settings=Settings(output={"directory": folder}), id=job.id)
    server = own_server(I2V_LAB_SERVER__IDLE_SECONDS="0.2")
    ended = server.ended(job.id)
    assert (ended["state"], ended["result"]["run"]) == ("done", record.id)
    assert server.get(ended["result"]["url"]).status_code == 200
    assert len(store.records()) == 1
    # After an idle time the model is given back; the next clip loads it again.
    for seed in (1, 2):
        assert server.ended(server.ask(seed=seed))["state"] == "done"
        wait_for(lambda: server.workers() == [])


def test_a_server_killed_with_five_jobs_waiting_leaves_none_forgotten_and_makes_none_twice(own_server, monkeypatch):
    first = own_server()
    with first.device_taken(monkeypatch):
        running = first.ask(seed=100)
        wait_for(lambda: first.job(running)["stage"] == "wait")
        waiting = [first.ask(seed=101 + number) for number in range(5)]
        first.kill()
        second = own_server()
        assert [second.job(id)["state"] for id in waiting] == ["waiting"] * 5
    ended = [second.ended(id) for id in (running, *waiting)]
    assert [job["state"] for job in ended] == ["done"] * 6
    records = Store(second.folder / "results").records()
    assert sorted(record.id for record in records) == sorted([running, *waiting])


# The command


def test_the_server_runs_in_the_background_and_ends_gracefully(tmp_path):
    server = Server(tmp_path, I2V_LAB_SERVER__STOP_SECONDS="0")
    env = server.environment()
    words = ("serve", "--port", server.port, "--background")
    begun = start_command(*words, cwd=tmp_path, env=env)
    out, err = begun.communicate(timeout=120)
    assert begun.returncode == 0, err
    assert f"http://127.0.0.1:{server.port}/?token={TOKEN}" in out
    (log,) = (tmp_path / "logs").glob("app_*.log")
    assert re.fullmatch(r"app_\d{8}_\d{6}\.log", log.name)
    assert f"tail -f {log}" in out
    running = server.ask(model="closed-form", resolution="256p", num_inference_steps=1000)
    waiting = server.ask(seed=1)
    wait_for(lambda: server.job(running)["stage"] == "denoise")
    (worker,) = server.workers()
    ended = start_command("serve", "--stop", "--port", server.port, cwd=tmp_path, env=env)
    out, err = ended.communicate(timeout=120)
    assert ended.returncode == 0, err
    assert not psutil.pid_exists(worker.pid)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/api/health", timeout=5)
    queue = JobQueue(tmp_path / "results")
    assert (queue.get(running).state, queue.get(running).reason) == ("stopped", "the server was stopped")
    assert queue.get(waiting).state == "waiting"
    assert Store(tmp_path / "results").get(running).status == "stopped"
    assert TOKEN not in log.read_text()
    gone = start_command("serve", "--stop", "--port", server.port, cwd=tmp_path, env=env)
    out, err = gone.communicate(timeout=120)
    assert gone.returncode != 0
    assert err.count("\n") == 1


def test_a_taken_port_is_one_line_that_names_who_has_it(inside):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = inside("serve", "--port", taken.getsockname()[1])
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"taken by process {os.getpid()}" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
def test_without_a_token_only_this_machine_is_served(inside, host):
    done = inside("serve", "--host", host, "--no-token")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--no-token: expected a server on 127.0.0.1" in done.stderr


def test_colours_of_the_test_pictures_are_far_apart():
    assert len({colour(number) for number in range(125)}) == 125
