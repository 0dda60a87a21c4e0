"""The studio in a real browser: in JupyterLab and as Voilà's page."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from browser.servers import Server
from browser.studio_page import WAIT, cell, in_lab, in_voila, workers_held
from i2v_lab import Store
from i2v_lab.devices.turns import turn
from i2v_lab.widgets.studio.uploads import safe_name

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
# Whether a job runs, and that the kernel answers.
BUSY = "print(bool(studio._runner.active), 6 * 7)"


def write(server: Server, place: Path, **options: object) -> str:
    return server.write(f"{place.name}/studio.ipynb", [cell(place, **options)])


@pytest.mark.slow
@pytest.mark.parametrize("front", ["lab", "voila"])
def test_a_clip_from_a_photograph(front, jupyter, place, page, open_page, photograph):
    path = write(jupyter, place, resolution="256p", num_frames=62, num_inference_steps=250)  # some 20 ms a step
    studio, run = in_lab(jupyter, page, path) if front == "lab" else (in_voila(jupyter, page, path), None)
    before = page.locator(".i2vs-zone img").get_attribute("src")
    studio.upload(photograph)
    studio.until(".i2vs-zone img", f"(image) => image.src !== {before!r}")
    expect(studio.entry("image")).to_have_value(str(next((place / "results" / "uploads").glob("*/*.jpg"))))
    studio.enter("prompt", "camera panning left slowly")
    chosen = {
        "num_frames": studio.slide("num_frames", "ArrowRight", 2),
        "guidance_scale": studio.slide("guidance_scale", "ArrowLeft"),
        "seed": "12345678901",
    }
    studio.enter("seed", chosen["seed"])
    studio.generate()
    expect(page.locator(".i2vs-left .i2vs-primary")).to_have_text("Queue another", timeout=WAIT)
    studio.wait_for_step(0)
    with workers_held(jupyter.pid, place / "results" / "runs.db"):
        expect(page.locator(".i2vs-left-time")).to_have_text(re.compile("left$"), timeout=WAIT)
        if run:  # the kernel is free while a clip is made
            assert run(BUSY).strip() == "True 42"
    assert studio.plays() == (256, 256)
    shown = studio.facts()
    assert {name: shown[name] for name in chosen} == chosen
    assert int(chosen["num_frames"]) > 62 and chosen["guidance_scale"] == "8.5"
    assert shown["prompt"] == "camera panning left slowly"
    assert shown["image"].endswith("my coffee.jpg")
    (record,) = Store(place / "results").records()
    assert record.status == "done"
    assert record.params.num_frames == int(chosen["num_frames"])
    assert str(place / "results" / record.clip) in page.locator(".i2vs-facts code").inner_text()

    # Stop, then everything back by a click on the first clip.
    # In Voilà a second page, with a kernel of its own, shows the running clip and can stop it.
    second = studio if front == "lab" else in_voila(jupyter, open_page()[0], path)
    studio.enter("seed", "1")
    studio.enter("num_inference_steps", "1000")
    studio.generate()
    second.wait_for_step(studio.wait_for_step(2))  # it goes on
    second.button("Stop").click()
    expect(studio.cards("stopped")).to_have_count(1, timeout=WAIT)
    stopped = Store(place / "results").records()[-1]
    assert (stopped.status, stopped.reason) == ("stopped", "stopped by hand")
    studio.cards("done").locator(".i2vs-open").click()
    expect(studio.entry("seed")).to_have_value("12345678901", timeout=WAIT)
    expect(studio.entry("num_inference_steps")).to_have_value("250")
    assert studio.plays() == (256, 256)

    # The same by its file.
    studio.enter("seed", "2")
    studio.upload(place / "results" / record.clip)
    expect(studio.entry("seed")).to_have_value("12345678901", timeout=WAIT)


@pytest.mark.slow
def test_another_model_shows_its_own_fields_and_a_clip_its_code(voila, place, page):
    fake = "from i2v_lab.widgets.studio import clips\nclips.script_of = lambda *_: 'import torch  # <b>'\n"
    path = voila.write(f"{place.name}/studio.ipynb", [fake + cell(place, resolution="64x96", num_frames=4, num_inference_steps=2)])
    studio = in_voila(voila, page, path)
    studio.enter("prompt", "zoom in")
    choose = page.locator(".i2vs-model select")

    def place_of(model: str) -> int:
        """Of the option of a model; its label may say on which tier it fits."""
        return [label.split()[0] for label in choose.locator("option").all_text_contents()].index(model)

    choose.select_option(index=place_of("svd-xt"))
    expect(page.locator(".i2vs-field-resolution .i2vs-meaning")).to_have_text("= 640 high × 960 wide", timeout=WAIT)
    expect(studio.entry("prompt")).to_be_hidden()
    expect(studio.entry("num_frames")).to_have_value("25")
    choose.select_option(index=place_of("closed-form"))
    expect(studio.entry("prompt")).to_have_value("zoom in", timeout=WAIT)
    for field, value in (("resolution", "64x96"), ("num_frames", 4), ("num_inference_steps", 2)):
        studio.enter(field, value)
    studio.generate()
    studio.plays()
    expect(page.locator(".i2vs-code pre")).to_be_hidden()
    studio.button("Code").click()
    expect(page.locator(".i2vs-code pre")).to_have_text("import torch  # <b>")
    studio.button("Copy").click()
    expect(studio.button("Copied")).to_be_visible()


@pytest.mark.slow
def test_a_killed_kernel_and_worker_leave_a_record(lab, place, page):
    path = write(lab, place, resolution="64x96", num_frames=4, num_inference_steps=2, prompt="zoom in")
    studio, run = in_lab(lab, page, path)
    studio.generate()
    expect(studio.cards("done")).to_have_count(1, timeout=WAIT)
    studio.enter("num_inference_steps", "1000")
    studio.enter("num_frames", "64")
    studio.generate()
    studio.wait_for_step(1)
    kernel, worker = map(int, run("import os; print(os.getpid(), studio._runner.posts[0].process.pid)").split())
    os.kill(worker, signal.SIGKILL)
    os.kill(kernel, signal.SIGKILL)
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("restart", timeout=WAIT)
    dialog.get_by_role("button").last.click()
    lab.open_lab(page, path)
    expect(studio.cards("failed")).to_have_count(1, timeout=WAIT)
    expect(studio.cards("failed")).to_contain_text("the process ended before the clip was done")
    expect(studio.cards("done")).to_have_count(1)


@pytest.mark.slow
def test_texts_from_outside_stay_texts_large_files_arrive_and_a_sweep_fills_its_grid(voila, place, page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (2200, 2200, 3), np.uint8)
    picture = tmp_path / f"{EVIL.replace('/', '')}.png"
    Image.fromarray(noise).save(picture, compress_level=0)
    assert picture.stat().st_size > 10 * 2**20  # what the server's connection takes in one message
    studio = in_voila(voila, page, write(voila, place, resolution="64x96", num_frames=4, num_inference_steps=1))
    studio.upload(picture)
    studio.until(".i2vs-field-image input", "(entry) => entry.value.endsWith('.png')")
    kept = Path(studio.entry("image").input_value())
    assert kept.name == safe_name(picture.name)
    assert kept.read_bytes() == picture.read_bytes()
    studio.enter("prompt", EVIL)
    studio.generate()
    studio.plays()
    assert studio.facts()["prompt"] == EVIL
    assert studio.facts()["image"].endswith(kept.name)
    expect(studio.cards("done")).to_contain_text(EVIL, timeout=WAIT)
    studio.enter("resolution", EVIL)
    expect(page.locator(".i2vs-field-resolution .i2vs-fault")).to_contain_text(EVIL)
    assert page.locator("img[src=x], .i2vs-studio script").count() == 0
    studio.upload(Path(__file__))
    expect(page.locator(".i2vs-message").first).to_contain_text("expected a picture")

    for field, value in (("image", "sample:coffee"), ("prompt", "zoom in"), ("resolution", "64x96")):
        studio.enter(field, value)
    page.get_by_role("tab", name="Sweep").click()
    cells = page.locator(".i2vs-sweep .i2vs-card")
    expect(cells).to_have_count(6, timeout=WAIT)
    page.locator(".i2vs-sweep .i2vs-axis input").first.fill("4, 9")
    page.locator(".i2vs-sweep .i2vs-axis input").first.press("Enter")
    expect(cells).to_have_count(4, timeout=WAIT)
    page.locator(".i2vs-sweep .i2vs-primary:enabled").click()
    expect(page.locator(".i2vs-sweep .i2vs-card.done img")).to_have_count(4, timeout=WAIT)
    assert Store(place / "results").runs(sweep="studio")["status"].tolist() == ["done"] * 4
    page.set_viewport_size({"width": 1280, "height": 1800})  # only clips in view are loaded
    studio.button("Play in step").click()
    playing = "() => [...document.querySelectorAll('.i2vs-player-box video')].filter((video) => video.currentTime > 0).length === 4"
    page.wait_for_function(playing, timeout=WAIT)


@pytest.mark.slow
def test_a_closed_page_loses_nothing_and_another_waits_its_turn(voila, place, open_page, monkeypatch):
    path = write(voila, place, resolution="256p", num_frames=62, num_inference_steps=250, prompt="zoom in")
    page, said = open_page()
    studio = in_voila(voila, page, path)
    studio.generate()
    studio.wait_for_step(0)
    store = Store(place / "results")
    with workers_held(voila.pid, place / "results" / "runs.db"):
        page.close(run_before_unload=True)
        assert [record.status for record in store.records()] == ["running"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    with turn(("cpu",), "a test", lambda line: None):  # after the clip whose page is gone
        assert [record.status for record in store.records()] == ["done"]
        page, more = open_page()
        studio = in_voila(voila, page, path)
        expect(studio.cards("done")).to_have_count(1, timeout=WAIT)
        studio.enter("seed", "1")
        studio.enter("num_inference_steps", "1")
        studio.generate()
        expect(page.locator(".i2vs-now .i2vs-note")).to_contain_text("waiting for a test of process", timeout=WAIT)
    expect(studio.cards("done")).to_have_count(2, timeout=WAIT)
    assert not said.left()
    assert not more.left()
