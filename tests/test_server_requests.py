"""What a request may ask for, and how it is refused."""

from __future__ import annotations

import json

import pytest
from servers import BODY_MIB, data_url, picture

from i2v_lab.clip.params import ClipParams
from i2v_lab.server.body import ApiError, read, to_params, without_paths
from i2v_lab.server.schemas import asked, clip_request, known_models
from i2v_lab.settings import Server as ServerSettings
from i2v_lab.settings import Settings

pytest_plugins = ("server_fixtures",)
PNG = picture(7)


def test_the_limits_of_a_server_hold_for_every_request():
    model = clip_request(Settings(model="fake", server=ServerSettings(max_num_frames=8, max_side=256)))
    small = {"image": "sample:coffee", "resolution": "64x256", "num_frames": 8}
    assert read(model, json.dumps(small).encode()).num_frames == 8
    for field, value in (("num_frames", 9), ("resolution", "512p"), ("resolution", "64x257")):
        with pytest.raises(ApiError) as refused:
            read(model, json.dumps({**small, field: value}).encode())
        assert (refused.value.status_code, refused.value.field) == (422, field)


@pytest.fixture
def own_ltx(tmp_path, monkeypatch):
    """A folder checkpoints/mine that is recognised as LTX-Video, without weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mine" / "model_index.json").write_text(json.dumps({"_class_name": "LTXConditionPipeline"}))


def ask(settings, **fields):
    return asked(read(clip_request(settings), json.dumps({"image": "sample:coffee", **fields}).encode()))


def test_a_request_leaves_to_the_family_what_it_does_not_name(own_ltx):
    settings = Settings(model="closed-form")
    params = to_params(ask(settings, model="mine", prompt="zoom in", seconds=3), settings.server)
    plain = params.plain()
    assert params.given().keys() == plain.keys()  # nothing is open
    known = {
        "num_frames": 73,
        "fps": 25,
        "num_inference_steps": 40,
        "guidance_scale": 3.0,
        "scheduler": "euler",
        "resolution": "512x768",
    }
    assert {name: plain[name] for name in known} == known
    assert plain["negative_prompt"].startswith("worst quality")
    assert to_params(ask(settings, seed=-1), settings.server).seed >= 0
    assert to_params(ask(settings), settings.server) == ClipParams(image="sample:coffee")
    with pytest.raises(ApiError) as refused:
        to_params(ask(settings, seconds=3, num_frames=16), settings.server)
    assert (refused.value.status_code, refused.value.field) == (409, "seconds")
    with pytest.raises(ApiError) as refused:
        to_params(ask(settings, model="mine", num_frames=10), settings.server)
    assert (refused.value.status_code, refused.value.field) == (409, "num_frames")


def test_the_limits_hold_for_the_defaults_of_a_family_too(own_ltx):
    small = Settings(model="closed-form", server=ServerSettings(max_num_frames=8, max_side=256))
    assert to_params(ask(small), small.server) == ClipParams(image="sample:coffee", resolution="256p", num_frames=8)
    auto = {"resolution": "auto", "model": "mine"}
    for fields, status, field in ((auto, 422, "resolution"), ({"seconds": 3}, 409, "seconds")):
        with pytest.raises(ApiError) as refused:
            to_params(ask(small, **fields), small.server)
        assert (refused.value.status_code, refused.value.field) == (status, field)
        assert "on this server" in refused.value.detail


def test_a_family_is_known_only_where_its_own_checkpoint_is_here(own_ltx, tmp_path):
    settings = Settings(model="closed-form")
    assert list(known_models(settings)) == ["closed-form", "mine"]  # ltx-video would be fetched
    (tmp_path / "checkpoints" / "mine").rename(tmp_path / "checkpoints" / "ltx-video")
    assert known_models(settings)["ltx-video"] in ("ltx-video", "checkpoints/ltx-video")


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
