"""The texts of the studio: languages, messages, what a browser keeps."""

from __future__ import annotations

import re

import ipywidgets as widgets
import pytest
import traitlets
from studios import open_studio_fixture, own_turns_fixture, results_fixture, until  # noqa: F401

from i2v_lab import ClipParams
from i2v_lab.clip.params import params_advice
from i2v_lab.clip.picture import open_picture
from i2v_lab.errors import I2VLabError, InputError, Message, PictureError
from i2v_lab.jobs import DIED
from i2v_lab.widgets.studio import Studio
from i2v_lab.widgets.studio.controls import check
from i2v_lab.widgets.studio.html import described, titled
from i2v_lab.widgets.studio.strings import FIELDS_ZH, TEXTS, Strings


def test_the_language_is_the_browsers_and_the_entries_stay(open_studio, monkeypatch):
    monkeypatch.setenv("HTTP_ACCEPT_LANGUAGE", "zh-CN,zh;q=0.9")
    studio, fixed = open_studio(), open_studio(lang="en")
    assert (studio._form.generate.description, fixed._form.generate.description) == ("生成", "Generate")
    studio.set(seed=8)
    studio._sweeps.set_axes([("seed", "1..3")])
    for one in (studio, fixed):
        one._hear_page(None, {"type": "language", "language": "en-US"}, [])
        one._hear_page(None, {"type": "language", "language": "fr"}, [])
    assert studio._form.generate.description == "Generate"
    assert (studio.params.seed, studio._sweeps.entered()["axes"]) == (8, [("seed", "1..3")])
    fixed._hear_page(None, {"type": "language", "language": "zh"}, [])
    assert (fixed._strings.lang, fixed._head.switch) == ("en", False)
    with pytest.raises(InputError, match="expected auto, en or zh, got 'fr'"):
        Studio(lang="fr")


def test_a_browser_gives_back_the_form_that_it_kept(results, open_studio):
    studio = Studio(output_dir=results)
    assert studio.params == ClipParams(image="sample:coffee", prompt="camera panning left slowly")
    assert studio._head.place == str(results)
    studio._restore_form({"clip": "text", "sweep": {}})
    studio._restore_form(None)
    kept = {"clip": {"seed": "9", "nonsense": 1}, "sweep": {"name": "mine", "axes": [["seed", "1..3"], ["bad", "x"], 7]}}
    studio._hear_page(None, {"type": "begin", "language": "en", "form": kept}, [])
    assert (studio.params.seed, studio._sweeps.name.value, studio._sweeps.entered()["axes"]) == (9, "mine", [("seed", "1..3")])
    assert studio._head.form["clip"]["seed"] == "9"
    studio._hear_page(None, {"type": "begin", "language": "en", "form": {}}, [])  # a second page of the same kernel
    assert studio.params.seed == 9
    studio.close()
    asked = open_studio()  # with fields of its own
    assert asked._head.place == ""


def test_what_ipywidgets_7_calls_otherwise_is_called_so():
    class Seven(traitlets.HasTraits):
        description_tooltip = traitlets.Unicode()

    assert described(Seven, "about").description_tooltip == "about"
    assert described(widgets.Text, "about").tooltip == "about"
    tabs = titled(widgets.Tab, [("One", widgets.VBox()), ("Two", widgets.VBox())])
    assert [tabs.get_title(number) for number in (0, 1)] == ["One", "Two"]


def test_both_languages_have_every_text_with_the_same_places_to_fill():
    for key, (english, chinese) in TEXTS.items():
        assert english.strip(), key
        assert chinese.strip(), key
        assert set(re.findall(r"{(\w+)", english)) == set(re.findall(r"{(\w+)", chinese)), key
    assert list(FIELDS_ZH) == list(ClipParams.model_fields)
    with pytest.raises(I2VLabError, match="expected en or zh, got 'fr'"):
        Strings("fr")


def test_messages_of_other_modules_are_translated_by_their_code(tmp_path):
    chinese, english = Strings("zh"), Strings("en")
    advice = {item.what.code: chinese.advice(item) for item in params_advice(ClipParams(image="x", guidance_scale=3, fps=2))}
    assert advice == {"guidance.low": "3 低于 6：片段几乎不跟随提示词；建议 9", "fps.low": "2 低于 6：片段会卡顿；建议 8"}
    with pytest.raises(PictureError) as missing:
        open_picture(str(tmp_path / "no.png"))
    assert (missing.value.code, missing.value.values) == ("picture.not_found", {"name": str(tmp_path / "no.png")})
    assert chinese.say(missing.value.message).endswith("no.png：没有这个文件；请检查路径，或用 sample:coffee")
    assert english.say(missing.value.message) == str(missing.value)
    values = {"image": "x", "num_frames": "999", "seed": "-2", "guidance_scale": "a lot", "resolution": "7x7", "fps": "1000"}
    _, faults = check(values)
    assert {name: chinese.say(fault) for name, fault in faults.items()} == {
        "num_frames": "应不大于 257，得到 '999'",
        "seed": "应不小于 -1，得到 '-2'",
        "guidance_scale": "应为数字，得到 'a lot'",
        "resolution": "边长应为 64 到 2048 像素，得到 '7x7'",
        "fps": faults["fps"],  # has no code, and stays English
    }
    assert [chinese.say(reason) for reason in ("stopped by hand", "the process ended before the clip was done", DIED)] == [
        "手动停止", "进程在片段完成前结束", "工作进程在片段完成前结束（被终止或内存不足）",
    ]  # fmt: skip
    assert chinese.say("a line nobody knows") == chinese.say(Message("a line nobody knows", "no.code")) == "a line nobody knows"


def test_the_whole_studio_speaks_chinese(open_studio):
    studio = open_studio(lang="zh")
    until(lambda: studio._sweeps.grid.items)
    assert studio._form.generate.description == "生成"
    assert studio._form.controls["num_frames"].entry.description == "帧数"
    assert "片段" in studio._sweeps.message.value
