"""The studio without a page: its controls, its worker, what it takes in and what it says."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import papermill
import pytest

from i2v_lab import ClipParams, Store, run_clip
from i2v_lab.clip.picture import open_picture
from i2v_lab.devices.turns import turn
from i2v_lab.errors import I2VLabError, InputError
from i2v_lab.settings import load_settings
from i2v_lab.widgets.studio import Studio, strings
from i2v_lab.widgets.studio.controls import Controls, check, preset_of, stops
from i2v_lab.widgets.studio.follow import Follower
from i2v_lab.widgets.studio.intake import Intake, is_clip, safe_name
from i2v_lab.widgets.studio.strings import FIELDS_ZH, TEXTS, Words
from i2v_lab.widgets.studio.worker import Job, Worker, worker

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SMALL = {"image": "sample:coffee", "prompt": "zoom in", "resolution": "64x96", "num_frames": 4, "num_inference_steps": 2}


def until(test: Callable[[], object], seconds: float = 60) -> None:
    """Wait for another thread; an end to a test that would hang."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


@pytest.fixture(autouse=True)
def own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices are this test's alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def open_studio(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    opened = []

    def make(**options: object) -> Studio:
        opened.append(Studio(output_dir=tmp_path / "results", **{**SMALL, **options}))
        return opened[-1]

    yield make
    worker().stop()
    until(lambda: worker().current is None and not worker().waiting)
    for studio in opened:
        studio.close()


def test_every_field_has_a_control_made_from_its_schema():
    controls = Controls(Words(), lambda: None)
    assert list(controls.fields) == list(ClipParams.model_fields)
    frames, guidance, seed = controls["num_frames"], controls["guidance_scale"], controls["seed"]
    assert [stop for _, stop in guidance.slider.options] == [number / 2 for number in range(101)]
    values = [stop for _, stop in frames.slider.options]
    assert (values[0], values[-1]) == (2, 256)
    assert {8, 16, 24, 32} <= set(values)
    assert seed.slider is None
    assert controls["scheduler"].entry.options[0] == "ddim"
    assert "diffusers: target_fps" in controls["condition_fps"].entry.tooltip


def test_the_stops_of_a_slider_reach_both_ends_and_grow():
    assert stops(0, 2, 0.5) == [0, 0.5, 1, 1.5, 2]
    found = stops(1, 1000, 1)
    assert (found[0], found[-1]) == (1, 1000)
    assert {25, 50, 100, 200} <= set(found)
    assert len(found) < 130
    assert found == sorted(set(found))


def test_an_entry_is_never_clamped_and_its_fault_stands_at_its_field():
    controls = Controls(Words(), lambda: None)
    controls.set({"image": "sample:coffee", "num_frames": "999", "fps": "24000/1001"})
    assert controls.params() is None
    assert controls["num_frames"].value == "999"
    assert "less than or equal to 256" in controls["num_frames"].fault.value
    assert controls["fps"].fault.value == ""
    controls.set({"guidance_scale": 7.12345678})
    assert controls.values()["guidance_scale"] == "7.12345678"
    controls.set({"num_frames": 17, "guidance_scale": 9})
    assert controls.params() == ClipParams(image="sample:coffee", num_frames=17, fps="24000/1001")
    assert controls["num_frames"].fault.value == ""
    controls["num_frames"].slider.value = 8
    assert controls["num_frames"].value == "8"
    controls.set({"resolution": EVIL})
    controls.params()
    assert "<script" not in controls["resolution"].fault.value
    assert "&lt;script&gt;" in controls["resolution"].fault.value


def test_what_the_model_cannot_do_is_said_at_its_field():
    params, faults = check({"image": "x", "dtype": "float16"})
    assert params is None
    assert faults["dtype"].endswith("nearest: float32")
    _, faults = check({"image": "x", "model": "nonsense"})
    assert "closed-form" in faults["model"]


def test_a_preset_is_known_by_its_fields():
    presets = {"quick": {"resolution": "256p", "num_frames": 16}, "high": {"resolution": "768p"}}
    assert preset_of(ClipParams(image="x", resolution="256p"), presets) == "quick"
    assert preset_of(ClipParams(image="x", resolution="64x64"), presets) is None


def test_a_clip_is_made_shown_and_recorded_and_its_settings_come_back(open_studio):
    studio = open_studio(prompt=EVIL)
    showing = studio._showing
    studio._asking.generate.click()
    until(lambda: showing.screen.mime == "video/mp4")
    assert studio.record.status == "done"
    assert showing.screen.source == (studio.store.directory / studio.record.clip).read_bytes()
    assert "<script" not in showing.facts.value + studio._now.title.value + showing.told.value
    assert f'data-field="prompt">{strings.re.sub("<", "&lt;", EVIL).replace(">", "&gt;")}' in showing.facts.value
    until(lambda: [card["status"] for card in showing.strip.items] == ["done"])
    assert showing.strip.items[0]["poster"].startswith(b"\xff\xd8")
    assert showing.strip.items[0]["caption"] == EVIL
    studio.set(seed=5, prompt="other")
    showing._open(studio.record.id)
    assert (studio.params.seed, studio.params.prompt) == (0, EVIL)
    # A studio opened later shows it too, in this kernel and after it.
    again = open_studio()
    assert again.record == studio.record
    until(lambda: again._showing.strip.items == showing.strip.items)


def test_what_waits_can_be_taken_out_and_stop_ends_within_two_steps(open_studio):
    studio = open_studio(num_inference_steps=1000)
    work = worker()
    for seed in (0, 1, 2):
        studio.set(seed=seed)
        studio._asking.generate.click()
    until(lambda: work.current and work.current.stage == "denoise" and work.current.step > 2)
    running = work.current
    later = open_studio()  # sees what runs
    assert "guidance 9" in later._now.title.value
    assert len(later._now.queue.children) == 2
    studio._now.queue.children[0].children[1].click()  # the one with seed 1
    asked, studio._asking.stop.disabled = running.step, False
    studio._asking.stop.click()
    until(lambda: running.state == "over")
    assert running.step <= asked + 2
    assert (running.record.status, running.record.reason) == ("stopped", "stopped by hand")
    until(lambda: work.current and work.current.params.seed == 2)
    assert work.waiting == []
    assert 'role="alert"' in studio._showing.told.value


def test_a_second_process_has_the_device_so_the_studio_waits_and_says_so(open_studio):
    studio = open_studio()
    with turn(("cpu",), "the sweep other", lambda line: None):
        studio._asking.generate.click()
        until(lambda: "waiting for the sweep other of process" in studio._now.progress.value)
        assert studio.store.records() == []
    until(lambda: studio._showing.screen.mime == "video/mp4")


def test_a_fault_is_one_line_with_a_remedy(open_studio, tmp_path):
    flat = tmp_path / "flat.png"
    from PIL import Image

    Image.new("RGB", (200, 200), "red").save(flat)
    studio = open_studio(image=str(flat))
    studio._asking.generate.click()
    until(lambda: "use another picture" in studio._showing.told.value)
    assert studio.record.status == "failed"
    studio._asking.set({"image": str(tmp_path / "no such.png")})
    until(lambda: "no such file" in studio._asking.controls["image"].fault.value)


def test_a_view_that_fails_harms_no_clip(tmp_path):
    class Broken:
        def on_job(self, job: Job) -> None:
            raise ValueError("no screen")

    view, work = Broken(), Worker()
    work.listen(view)
    settings = load_settings(output={"directory": tmp_path / "results"})
    work.put(job := Job(ClipParams(**SMALL), Store(tmp_path / "results"), settings))
    until(lambda: job.state == "over")
    assert job.record.status == "done"


def send(intake: Intake, name: str, data: bytes, size: int = 100_000) -> Path | None:
    intake.hear({"type": "begin", "id": "1", "name": name, "size": len(data)}, [])
    path = None
    for at in range(0, len(data), size):
        answer, path = intake.hear({"type": "piece", "id": "1", "at": at}, [memoryview(data[at : at + size])])
        assert answer["got"] == min(at + size, len(data))
    return path


def test_a_file_in_pieces_comes_out_whole_under_a_name_that_is_only_a_name(tmp_path, photograph):
    intake = Intake(tmp_path)
    data = photograph.read_bytes()
    path = send(intake, "../../etc/" + EVIL, data, 10_000)
    assert path.read_bytes() == data
    assert path.is_relative_to(tmp_path / "uploads")
    assert path.parent.parent == tmp_path / "uploads"
    assert not list((tmp_path / "uploads").glob("*.part"))
    assert safe_name("a\x1b[31m\n.png") == "a_[31m_.png"
    assert len(safe_name("x" * 500 + ".png").encode()) <= 120
    with pytest.raises(InputError, match="at most 256 MiB, got 300 MiB"):
        intake.hear({"type": "begin", "id": "2", "name": "x", "size": 300 * 2**20}, [])
    intake.hear({"type": "begin", "id": "3", "name": "x", "size": 10}, [])
    with pytest.raises(InputError, match="a piece is missing"):
        intake.hear({"type": "piece", "id": "3", "at": 5}, [b"12345"])
    assert not list((tmp_path / "uploads").glob(".*.part"))


def test_clips_and_pictures_are_told_apart_by_content(tmp_path, photograph):
    store = Store(tmp_path / "results")
    clip = store.directory / run_clip(ClipParams(**SMALL), None, store).clip
    disguised = tmp_path / "holiday.jpg"
    shutil.copy(clip, disguised)
    assert is_clip(disguised)
    assert not is_clip(photograph)


def test_a_dropped_clip_brings_back_its_settings_and_a_dropped_picture_is_used(open_studio, tmp_path, photograph):
    elsewhere = Store(tmp_path / "elsewhere")
    picture = tmp_path / "away" / "p.jpg"
    picture.parent.mkdir()
    shutil.copy(photograph, picture)
    record = run_clip(ClipParams(**{**SMALL, "image": str(picture), "seed": 77}), None, elsewhere)
    clip = (elsewhere.directory / record.clip).read_bytes()
    studio = open_studio()

    def drop(name: str, data: bytes) -> None:
        studio._hear(None, {"type": "begin", "id": name, "name": name, "size": len(data)}, [])
        studio._hear(None, {"type": "piece", "id": name, "at": 0}, [data])

    drop("clip.mp4", clip)  # its picture is not here: all else comes back, and it is said
    assert (studio.params.seed, studio.params.image) == (77, "sample:coffee")
    assert "Drop the picture" in studio._asking.message.value
    studio.store.keep_picture(picture, open_picture(picture).sha256)
    drop("clip.mp4", clip)
    assert open_picture(studio.params.image).sha256 == record.image_sha256
    drop("other.jpg", photograph.read_bytes())
    assert Path(studio.params.image).name == "other.jpg"
    drop("text.txt", b"hello")
    assert "expected a picture" in studio._asking.message.value
    assert Path(studio.params.image).name == "other.jpg"


def test_a_sweep_is_planned_run_and_its_grid_filled(open_studio):
    studio = open_studio()
    sweeping = studio._sweeping
    until(lambda: len(sweeping.grid.items) == 6)
    assert {item["status"] for item in sweeping.grid.items} == {"to_do"}
    sweeping.rows[0].values.value = "4, 9"
    sweeping.rows[1].values.value = "1..0 step 1"
    until(lambda: "expected a step below 0" in sweeping.told.value)
    assert sweeping.run.disabled
    sweeping.rows[1].values.value = "0..1 step 1"
    until(lambda: len(sweeping.grid.items) == 4 and not sweeping.run.disabled)
    sweeping.run.click()
    until(lambda: [item["status"] for item in sweeping.grid.items] == ["done"] * 4)
    assert sweeping.grid.columns == 2
    assert all(item["poster"] for item in sweeping.grid.items)
    sweeping._open(sweeping.grid.items[3]["id"])
    assert (studio.params.guidance_scale, studio.params.seed) == (9.0, 1)


def test_the_notebook_opens_a_studio_from_top_to_bottom(tmp_path):
    place = tmp_path / "notebooks"
    place.mkdir()
    shutil.copy(Path(__file__).parent.parent / "notebooks" / "studio.ipynb", place)
    papermill.execute_notebook(place / "studio.ipynb", place / "done.ipynb", cwd=place, progress_bar=False)
    outputs = [output for cell in nbformat.read(place / "done.ipynb", 4).cells for output in cell.get("outputs", [])]
    assert [output.data["text/plain"].startswith("Studio(") for output in outputs] == [True]
    assert "application/vnd.jupyter.widget-view+json" in outputs[0].data
    assert (tmp_path / "results" / "clips").is_dir()


def test_only_the_last_of_what_was_asked_is_done():
    done, begun = [], threading.Event()

    def work(what: int, current: Callable[[], bool]) -> None:
        done.append((what, current()))
        begun.set()

    follower: Follower[int] = Follower(work)
    for number in range(50):
        follower.ask(number)
    begun.wait(10)
    until(lambda: not follower._running)
    assert done == [(49, True)]


def test_both_languages_have_every_text_with_the_same_places_to_fill():
    for key, (english, chinese) in TEXTS.items():
        assert english.strip(), key
        assert chinese.strip(), key
        assert set(re.findall(r"{(\w+)", english)) == set(re.findall(r"{(\w+)", chinese)), key
    assert list(FIELDS_ZH) == list(ClipParams.model_fields)
    assert Words("zh").line("3 is below 6") == "3 低于 6"
    assert Words("zh").line("a line nobody knows") == "a line nobody knows"
    with pytest.raises(I2VLabError, match="expected en or zh, got 'fr'"):
        Words("fr")


def test_the_whole_studio_speaks_chinese(open_studio):
    studio = open_studio(lang="zh")
    until(lambda: studio._sweeping.grid.items)
    assert studio._asking.generate.description == "生成"
    assert studio._asking.controls["num_frames"].entry.description == "帧数"
    assert "片段" in studio._sweeping.told.value
