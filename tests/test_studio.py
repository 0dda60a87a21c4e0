"""The studio without a page: its controls, its jobs, its sweeps."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
from held import held
from studios import EVIL, SMALL, make, open_studio_fixture, own_turns_fixture, results_fixture, until  # noqa: F401

from i2v_lab import ClipParams, models
from i2v_lab.clip.params import OPTIONAL
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.devices.turns import turn
from i2v_lab.errors import ClipError
from i2v_lab.models.stock.families import FAMILIES
from i2v_lab.store.jobs import Job
from i2v_lab.widgets.studio import Studio, clips, form, model_list
from i2v_lab.widgets.studio.controls import Controls, check, preset_of, stops, whole
from i2v_lab.widgets.studio.debounce import Debounced
from i2v_lab.widgets.studio.strings import Strings


def test_every_field_has_a_control_made_from_its_schema():
    controls = Controls(Strings(), lambda: None)
    assert list(controls.fields) == list(ClipParams.model_fields)
    frames, guidance, seed = controls["num_frames"], controls["guidance_scale"], controls["seed"]
    assert [stop for _, stop in guidance.slider.options] == [number / 2 for number in range(101)]
    values = [stop for _, stop in frames.slider.options]
    assert (values[0], values[-1]) == (2, 257)
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


def test_an_entry_is_never_clamped_and_its_fault_is_shown_at_its_field():
    controls = Controls(Strings(), lambda: None)
    controls.set({"image": "sample:coffee", "num_frames": "999", "fps": "24000/1001"})
    assert controls.params() is None
    assert controls["num_frames"].value == "999"
    assert "less than or equal to 257" in controls["num_frames"].fault.value
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


def test_what_the_model_cannot_do_is_shown_at_its_field():
    params, faults = check({"image": "x", "dtype": "float16"})
    assert params is None
    assert faults["dtype"].endswith("nearest: float32")
    _, faults = check({"image": "x", "model": "nonsense"})
    assert "closed-form" in faults["model"]


def test_a_preset_is_known_by_its_fields():
    presets = {"quick": {"resolution": "256p", "num_frames": 16}, "high": {"resolution": "768p"}}
    assert preset_of(ClipParams(image="x", resolution="256p"), presets) == "quick"
    assert preset_of(ClipParams(image="x", resolution="64x64"), presets) is None
    presets = models.family("i2vgen-xl").presets
    fast = ClipParams(image="x", model="i2vgen-xl", **presets["fast"])
    assert preset_of(fast, presets) == "fast"  # and not standard, whose fields it has too
    assert preset_of(fast.replace(**whole(presets, "standard")), presets) == "standard"


def test_a_clip_is_made_shown_and_recorded_and_its_settings_come_back(open_studio):
    studio = open_studio(prompt=EVIL)
    pane = studio._results
    record = make(studio)
    assert record.status == "done"
    assert pane.screen.mime == "video/mp4"
    assert pane.screen.source == (studio.store.directory / record.clip).read_bytes()
    assert "<script" not in pane.facts.value + studio._queue.title.value + pane.message.value
    assert f'data-field="prompt">{EVIL.replace("<", "&lt;").replace(">", "&gt;")}' in pane.facts.value
    until(lambda: [card["status"] for card in pane.strip.items] == ["done"])
    assert pane.strip.items[0]["poster"].startswith(b"\xff\xd8")
    assert pane.strip.items[0]["caption"] == EVIL
    studio.set(seed=5, prompt="other")
    pane._open(record.id)
    assert (studio.params.seed, studio.params.prompt) == (0, EVIL)
    # A studio opened later shows it too.
    again = open_studio()
    assert again.record.id == record.id
    assert again._results.screen.source == pane.screen.source
    until(lambda: again._results.strip.items == pane.strip.items)
    # The same clip is not computed again, unless asked.
    assert make(studio).id == record.id
    assert "was made before" in pane.facts.value
    studio._form.force.value = True
    assert make(studio).id != record.id


def test_a_waiting_clip_can_be_removed_and_stop_ends_the_running_one(open_studio):
    studio = open_studio(num_inference_steps=1000, num_frames=64, resolution="512p")
    for seed in (0, 1, 2):
        studio.set(seed=seed)
        studio._form.generate.click()

    def running() -> Job | None:
        return next((status.job for status in studio._runner.active if status.job.state == "running"), None)

    until(lambda: (job := running()) and job.stage == "denoise" and job.step > 2)
    until(lambda: studio._results.screen.mime == "image/webp")  # the preview
    first = running()
    with held(studio._runner.jobs, first):
        later = open_studio()  # sees what runs
        assert "guidance 9" in later._queue.title.value
        assert "denoise" in later._queue.progress.value
        assert len(later._queue.queue.children) == 2
        assert not later._form.stop.disabled
        studio._queue.queue.children[0].children[1].click()  # the one with seed 1
        asked = studio._runner.jobs.get(first.id).step
        later._form.stop.click()
    until(lambda: studio._runner.jobs.get(first.id).ended, 10)
    assert asked <= studio._runner.jobs.get(first.id).step < 1000
    record = studio.store.get(first.id)
    assert (record.status, record.reason) == ("stopped", "stopped by hand")
    until(lambda: (job := running()) and '"seed": 2' in job.params)
    assert studio._runner.waiting == 0
    until(lambda: 'role="alert"' in studio._results.message.value)
    assert studio.record.id == record.id


def test_another_process_has_the_device_so_the_studio_waits_and_says_so(open_studio):
    studio, chinese = open_studio(seed=30), open_studio(lang="zh")
    with turn(("cpu",), "the sweep other", lambda line: None):
        studio._form.generate.click()
        until(lambda: "waiting for the sweep other of process" in studio._queue.progress.value)
        until(lambda: "（the sweep other）释放 cpu" in chinese._queue.progress.value)
        assert [record.params.seed for record in studio.store.records()].count(30) == 0
    until(lambda: studio.record.params.seed == 30)
    assert studio.record.status == "done"


def test_a_fault_is_one_line_with_a_remedy(open_studio, tmp_path):
    flat = tmp_path / "flat.png"
    from PIL import Image

    Image.new("RGB", (200, 200), "red").save(flat)
    studio = open_studio(image=str(flat))
    assert make(studio) is None  # what is refused leaves no run
    assert "use another picture" in studio._results.message.value
    studio._form.set({"image": str(tmp_path / "no such.png")})
    until(lambda: "no such file" in studio._form.controls["image"].fault.value)


def shown(studio: Studio) -> set[str]:
    """The fields of the form that are shown."""
    return {name for name, control in studio._form.controls.fields.items() if control.widget.layout.display != "none"}


def test_the_form_follows_the_model_and_keeps_what_was_typed(open_studio, monkeypatch):
    monkeypatch.setattr(form, "forecast_line", lambda *_: ("", None))  # of models of full size: seconds each
    monkeypatch.setattr(model_list, "fits_on", lambda model, **_: None if model == "wan2.2-i2v-a14b" else 3)
    studio = open_studio(seed=7, negative_prompt="dark")
    shown_form, controls = studio._form, studio._form.controls
    until(lambda: "ltx-video · fits on tier 3" in dict(shown_form.model.options))
    names = dict(shown_form.model.options)
    assert shown_form.widget.children[0].children[0] is shown_form.model  # the first control
    assert set(models.LISTED) <= set(names.values())
    assert names["ltx-video · fits on tier 3"] == "ltx-video" and "wan2.2-i2v-a14b · does not fit" in names
    assert {"prompt", "negative_prompt", "condition_fps"} <= shown(studio) and "flow_shift" not in shown(studio)
    assert studio.params.num_frames == 4  # what the studio was opened with

    shown_form.model.value = "ltx-video"
    family = FAMILIES["ltx-video"]
    assert {name: value for name, value in studio.params.plain().items() if name in family.presets["standard"]} == {
        **family.presets["standard"]
    }
    assert (studio.params.prompt, studio.params.seed, studio.params.image) == ("zoom in", 7, "sample:coffee")
    assert set(OPTIONAL) & shown(studio) == set(family.reads) & set(OPTIONAL)
    assert controls["scheduler"].entry.options == ("euler",)
    assert controls["resolution"].entry.options == (*family.sizes, "auto")
    assert {int(frames) % 8 for _, frames in controls["num_frames"].slider.options} == {1}
    assert [name for _, name in shown_form.preset.options] == list(family.presets) and shown_form.preset.value == "standard"
    assert shown_form.whole.resolution == models.resolve(studio.params).resolution != "auto"
    assert controls["resolution"].meaning.value == f"= {shown_form.whole.height} high × {shown_form.whole.width} wide"
    controls["seconds"].set("3")
    assert shown_form.whole.num_frames == 73 and controls["num_frames"].meaning.value == "= 73"

    shown_form.model.value = "svd-xt"
    assert "prompt" not in shown(studio) and studio.params.prompt == ""
    controls["num_frames"].entry.value = "26"
    assert "nearest: 25" in controls["num_frames"].fault.value
    shown_form.generate.click()
    assert "Nothing was made. Frames: " in shown_form.message.value and not studio._jobs.active()
    shown_form.model.value = "closed-form"
    assert studio.params == ClipParams(image="sample:coffee", prompt="zoom in", seed=7)
    controls["model"].entry.value = "nonsense"
    assert "closed-form" in shown_form.model_fault.value
    studio.set(model="svd-xt", num_frames=9)
    assert (studio.params.num_frames, studio.params.motion_bucket_id, shown_form.model.value) == (9, 127, "svd-xt")


def test_a_seed_of_minus_one_is_drawn_for_each_clip(open_studio):
    studio = open_studio(seed=-1)
    assert studio.params.seed == -1
    assert len({studio._form.to_make().seed for _ in range(4)}) == 4


def test_a_sweep_over_models_leaves_each_its_own_defaults(open_studio):
    studio = open_studio(resolution="512p", num_frames=16, num_inference_steps=30)
    sweeps = studio._sweeps
    sweeps.rows[0].field.value, sweeps.rows[0].values.value = "model", "closed-form, i2vgen-xl"
    assert sweeps._definition()["base"] == {"image": "sample:coffee", "prompt": "zoom in", "num_inference_steps": 30}


def test_a_clip_shows_its_code_where_it_has_some(open_studio, monkeypatch):
    studio = open_studio(seed=40)
    record = make(studio)
    clip = studio.store.directory / record.clip
    assert studio._results.code.text == clips.script(clip, studio.store)
    asked = []
    monkeypatch.setattr(clips, "script_of", lambda *given: asked.append(given) or "import torch")
    studio._results.show(record)
    assert studio._results.code.text == "import torch" and asked == [(clip, studio.store)]

    def none(*_: object) -> str:
        raise ClipError("no script")

    monkeypatch.setattr(clips, "script_of", none)
    studio._results.show(record)
    assert studio._results.code.text == ""


def test_a_sweep_is_planned_run_and_its_grid_filled(open_studio):
    studio = open_studio()
    sweeps = studio._sweeps
    until(lambda: len(sweeps.grid.items) == 6)
    assert {item["status"] for item in sweeps.grid.items} == {"to_do"}
    assert "Guidance scale (3 values, 2 seeds): nothing; 3 seeds can" in sweeps.message.value
    sweeps.rows[0].values.value = "4, 9"
    sweeps.rows[1].values.value = "1..0 step 1"
    until(lambda: "expected a step below 0" in sweeps.message.value)
    sweeps.run.click()
    sweeps.rows[1].values.value = ""
    assert "seed: expected at least one value, got none" in sweeps.message.value
    sweeps.run.click()
    assert not studio._jobs.active()
    sweeps.name.value, sweeps.rows[1].values.value = "mine", "0..1 step 1"
    sweeps.run.click()  # at once: what is entered is run, not what was planned before
    until(lambda: [status.job.kind for status in studio._runner.active] == ["sweep"])
    until(lambda: [item["status"] for item in sweeps.grid.items] == ["done"] * 4)
    until(lambda: studio._runner.active[0].job.stage == "report")  # the browser's tests see it made
    studio._stop()
    assert sweeps.grid.columns == 2
    assert all(item["poster"] for item in sweeps.grid.items)
    sweeps._open(sweeps.grid.items[3]["id"])
    assert (studio.params.guidance_scale, studio.params.seed) == (9.0, 1)


def test_sentences_and_pictures_are_one_a_line_and_a_large_sweep_is_confirmed(open_studio):
    studio = open_studio()
    sweeps = studio._sweeps
    sweeps.set_axes([("prompt", "zoom in\npan left, slowly\n\n"), ("image", "sample:coffee, sample:cat")])
    assert sweeps._definition()["axes"] == {"prompt": ["zoom in", "pan left, slowly"], "image": "sample:coffee, sample:cat"}
    sweeps.set_axes([("prompt", "zoom -> [pan]")])
    assert sweeps._definition()["axes"] == {"prompt": "zoom -> [pan]"}
    sweeps.use_pictures([Path("a, b.jpg"), Path("c.jpg")])
    assert sweeps._definition()["axes"] == {"image": ["a, b.jpg", "c.jpg"], "prompt": "zoom -> [pan]"}
    for tab in (sweeps, studio._tunes):
        tab.set_axes([("num_inference_steps", "4, 8"), ("num_inference_steps", "10")])
        tab.run.click()
        assert "num_inference_steps: given twice; remove one of the two axes" in tab.fault.value
    sweeps.set_axes([("seed", "100..150")])
    sweeps.run.click()
    until(lambda: sweeps.confirm.children)
    assert "51 clips are to be made" in sweeps.confirm.children[0].value and not studio._jobs.active()
    sweeps.confirm.children[1].children[1].click()
    assert sweeps.confirm.layout.display == "none" and not studio._jobs.active()
    sweeps.run.click()
    until(lambda: sweeps.confirm.children)
    sweeps.confirm.children[1].children[0].click()
    assert [job.kind for job in studio._jobs.active()] == ["sweep"]
    studio._queue.clear.click()
    until(lambda: not studio._jobs.active())


def test_a_deleted_clip_comes_back(open_studio):
    studio = open_studio(seed=50)
    record, pane = make(studio), studio._results
    pane._delete(record.id)
    assert studio.store.get(record.id) is None and pane.screen.source == b""
    pane.undo.click()
    assert studio.store.get(record.id).clip == record.clip and pane.undo.layout.display == "none"


def test_a_clip_that_a_command_makes_is_shown_and_stopped(open_studio):
    studio = open_studio()
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as other:
        studio.store.save(RunRecord(id=new_id(), status="running", params=ClipParams(**SMALL), pid=other.pid))
        until(lambda: f"process {other.pid} makes:</small> zoom in" in studio._queue.title.value)
        studio._form.stop.click()
        assert other.wait(30) == -signal.SIGINT
    studio.store.mark_dead()
    until(lambda: "Ready" in studio._queue.title.value)


def test_the_notebook_opens_a_studio_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "notebooks"
    place.mkdir()
    shutil.copy(Path(__file__).parent.parent / "notebooks" / "studio.ipynb", place)
    papermill.execute_notebook(place / "studio.ipynb", place / "done.ipynb", cwd=place, progress_bar=False)
    outputs = [output for cell in nbformat.read(place / "done.ipynb", 4).cells for output in cell.get("outputs", [])]
    assert [output.data["text/plain"].startswith("Studio(") for output in outputs] == [True]
    assert "application/vnd.jupyter.widget-view+json" in outputs[0].data
    assert not (tmp_path / "results").exists()  # nothing is made before something is written


def test_only_the_last_of_what_was_asked_is_done():
    done, begun = [], threading.Event()

    def work(what: int, is_last: Callable[[], bool]) -> None:
        done.append((what, is_last()))
        begun.set()

    debounced: Debounced[int] = Debounced(work)
    for number in range(50):
        debounced.ask(number)
    begun.wait(10)
    until(lambda: not debounced._running)
    assert done == [(49, True)]
