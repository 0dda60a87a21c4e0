"""Clips made through the API: files, events, a full queue, many clients."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin

import pytest
import requests
from PIL import Image
from servers import colour, data_url, first_frame, jobs_of, picture, shows, wait_for

from i2v_lab.store import Store

pytest_plugins = ("server_fixtures",)


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
    for wrong in ("bytes=--5", "bytes=9-3", "bytes=a-b", "bytes=", "bytes=1-2,--3", "items=0-5", "bytes=" + "9" * 5000 + "-"):
        answer = server.get(path, headers={"Range": wrong})
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, "Range"), wrong
    head = server.send("HEAD", path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(size), b"")


def test_a_clip_whose_name_is_not_latin_is_served(own_server):
    server = own_server(I2V_LAB_OUTPUT__PREFIX="猫'")
    id = server.ask(seed=22)
    server.ended(id)
    answer = server.get(f"/api/clips/{id}/clip.mp4")
    assert (answer.status_code, answer.content[4:8]) == (200, b"ftyp")
    assert answer.headers["Content-Disposition"].startswith("inline; filename*=UTF-8''%E7%8C%AB%27")


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


def test_answers_are_ascii_and_strict(server):
    """A prompt may hold what a terminal obeys (U+009B begins a command), and a figure may be none."""
    id = server.ask(seed=33, prompt="\x9b31m caf\xe9 \u202e\x1b[2J")
    job = server.ended(id)
    result = json.dumps({**json.loads(jobs_of(server.folder / "results").get(id).result), "peak_gib": float("nan")})
    jobs_of(server.folder / "results").database.update("UPDATE jobs SET result = ? WHERE id = ?", (result, id))
    answers = [server.get(path).content for path in (f"/api/clips/{id}", "/api/clips", f"/api/clips/{id}/events")]
    assert all(answer.isascii() and b"\x1b" not in answer and b"NaN" not in answer for answer in answers)
    assert json.loads(answers[0])["result"]["peak_gib"] is None
    assert json.loads(answers[0])["params"]["prompt"] == job["params"]["prompt"] == "\x9b31m caf\xe9 \u202e\x1b[2J"


def test_a_full_queue_answers_429_with_the_time_to_try_again(server, monkeypatch):
    with server.device_taken(monkeypatch):
        running = server.ask(seed=40)
        wait_for(lambda: server.job(running)["state"] == "running")
        waiting = [server.ask(seed=41 + number) for number in range(5)]
        refused = server.send("POST", "/api/clips", json={"image": "sample:coffee", "seed": 50})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert [server.job(id)["place"] for id in (running, *waiting)] == [0, 1, 2, 3, 4, 5]
        answer = server.send("DELETE", f"/api/clips/{waiting[0]}")
        assert answer.json().get("state") == "stopped", answer.text
        assert server.send("DELETE", f"/api/clips/{running}").status_code == 202
        queue = jobs_of(server.folder / "results")
        wait_for(lambda: queue.get(running).state == "stopped")  # though another has the device
        assert server.ended(running)["state"] == "stopped"
        for id in (running, waiting[0]):
            stopped = server.get(f"/api/clips/{id}")
            assert (stopped.status_code, stopped.json()["state"]) == (200, "stopped")
            assert stopped.json()["reason"] == "stopped by a client"
            again = server.send("DELETE", f"/api/clips/{id}")
            assert (again.status_code, again.json()["error"]["field"]) == (409, "state")
            assert server.get(f"/api/clips/{id}/clip.mp4").status_code == 404
            assert [name for _, name, _ in events(server.get(f"/api/clips/{id}/events").text)] == ["stopped"]
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
    shown = server.get("/api/models").json()["models"][0]
    assert shown["frames"] == {"step": 1, "first": 0, "least": 2, "most": 257}
    assert shown["reads"] == ["condition_fps", "guidance_interval", "negative_prompt", "prompt"]
    assert shown["sizes"]["256p"] == [256, 256] and "ddim" in shown["schedulers"] and shown["only_sizes"] == []


@pytest.mark.slow
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
        assert answer.status_code == 202, answer.text
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


def test_colours_of_the_test_pictures_are_far_apart():
    assert len({colour(number) for number in range(125)}) == 125
