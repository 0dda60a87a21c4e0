"""The client against a real server: clips, progress, and every way it can fail."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from servers import TOKEN, Server, picture, shows, wait_for

from i2v_lab import Client, I2VLabError
from i2v_lab.errors import InputError, ParamsError, PictureError, RunError, Stop

SMALL = {"resolution": "64x64", "num_frames": 2, "num_inference_steps": 2}
SCRIPT = Path(__file__).parent.parent / "experiments" / "folder_of_pictures.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"), I2V_LAB_SERVER__QUEUE_LIMIT="1")
    yield running.start()
    running.end()


@pytest.fixture
def client(server):
    return Client(server.url, TOKEN)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tasse é.png"
    path.write_bytes(picture(17))
    return path


def test_a_clip_is_made_from_a_file_with_progress_and_saved(client, file, tmp_path):
    told = []
    clip = client.generate(image=file, prompt="zoom in – slowly", seed=3, progress=told.append, **SMALL)
    states = [standing["state"] for standing in told]
    assert states[0] in ("waiting", "running")
    assert states[-1] == "done"
    assert (clip.params["prompt"], clip.params["seed"], len(clip.frames_sha256)) == ("zoom in – slowly", 3, 64)
    saved = clip.save(tmp_path / "clip.mp4")
    assert shows(saved.read_bytes(), 17, tmp_path)
    assert clip.save(tmp_path).name == f"{clip.id}.mp4"
    assert not list(tmp_path.glob(".*"))


def test_what_the_server_does_not_take_is_an_error_that_names_the_field(client, file, tmp_path):
    with pytest.raises(ParamsError, match=r"^num_frames: .*greater than or equal to 2"):
        client.generate("sample:coffee", num_frames=1)
    with pytest.raises(ParamsError, match=r"guidance: unknown name; did you mean guidance_scale"):
        client.generate(file, guidance=9)
    with pytest.raises(PictureError, match=r"sample:nothing|expected one of"):
        client.generate("sample:nothing")
    with pytest.raises(PictureError, match=r"expected a picture file that can be read"):
        client.generate(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(PictureError, match=r"expected a picture"):
        client.generate(tmp_path / "text.png")
    with pytest.raises(I2VLabError, match=r"could not be saved"):
        client.generate("sample:coffee", **SMALL).save(tmp_path / "no" / "such" / "folder.mp4")


def test_a_wrong_token_no_server_and_another_address_are_said_in_a_line(client, server):
    with pytest.raises(I2VLabError, match=r"expected the token"):
        Client(server.url, "x" * 20).generate("sample:coffee")
    with pytest.raises(I2VLabError, match=r"expected a server of i2v-lab serve, got no answer: .*refused") as told:
        Client("http://127.0.0.1:9").generate("sample:coffee")
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"expected a URL of"):
        client.get("http://evil.example/clip.mp4")


def test_a_clip_that_is_not_made_raises_with_the_reason(client, server, file, monkeypatch, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "flat.png")
    with pytest.raises(RunError, match=r"failed: .*one colour"):
        client.generate(tmp_path / "flat.png", **SMALL)
    with server.device_taken(monkeypatch):
        told = []

        def stop(standing):
            told.append(standing)
            if standing["stage"] == "wait" and len([each for each in told if each["stage"] == "wait"]) == 1:
                client.stop(standing["id"])

        with pytest.raises(Stop, match=r"stopped by a client"):
            client.generate(file, seed=50, progress=stop, **SMALL)
        assert [status["state"] for status in client.follow(told[0]["id"])] == ["stopped"]


def test_a_full_queue_is_an_error_or_is_waited_for(client, server, monkeypatch):
    with server.device_taken(monkeypatch):
        first = client.submit("sample:coffee", seed=60, **SMALL)
        wait_for(lambda: server.job(first)["state"] == "running")
        client.submit("sample:coffee", seed=61, **SMALL)
        with pytest.raises(I2VLabError, match=r"the queue is full \(1 clips wait\)"):
            client.submit("sample:coffee", seed=62, **SMALL)
        made = []
        waiting = threading.Thread(
            target=lambda: made.append(Client(server.url, TOKEN).generate("sample:coffee", seed=62, wait=True, **SMALL))
        )
        waiting.start()
    waiting.join(60)
    assert made[0].params["seed"] == 62


@pytest.mark.slow
def test_a_client_waits_through_a_restart_of_the_server(tmp_path, monkeypatch):
    server = Server(tmp_path / "restarted").start()
    made = []
    try:
        with server.device_taken(monkeypatch):
            told = []
            client = Client(server.url, TOKEN)
            thread = threading.Thread(target=lambda: made.append(client.generate("sample:cat", progress=told.append, **SMALL)))
            thread.start()
            wait_for(lambda: told and told[-1]["stage"] == "wait")
            server.kill()
            server.start()
        thread.join(60)
        assert made[0].save(tmp_path).stat().st_size > 0
    finally:
        server.end()


def test_the_script_makes_a_clip_of_each_picture_and_goes_on_where_it_broke_off(server, tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(picture(number, (256, 256)))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    words = [sys.executable, SCRIPT, tmp_path, server.url, TOKEN]
    first = subprocess.run(words, capture_output=True, text=True, check=False, env=server.environment())
    assert first.returncode == 1, first.stderr
    assert first.stderr.startswith(f"{tmp_path / 'broken.jpg'}: ")
    for number in (1, 2):
        assert shows((tmp_path / f"{number}.png.mp4").read_bytes(), number, tmp_path)
    (tmp_path / "broken.jpg").unlink()
    second = subprocess.run(words, capture_output=True, text=True, check=False, env=server.environment())
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
