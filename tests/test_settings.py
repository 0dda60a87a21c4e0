"""Settings: which source wins, and the error of a wrong value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from i2v_lab.errors import SettingsError
from i2v_lab.settings import Output, Settings, config_files, load_settings


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, a user without settings, an environment without ours."""
    for name in list(os.environ):
        if name.upper().startswith("I2V_LAB_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    file = tmp_path / "config" / "i2v_lab" / "config.yaml"
    file.parent.mkdir(parents=True)
    return file


def fault(**overrides: object) -> str:
    """The text of the error, which is one line."""
    with pytest.raises(SettingsError) as caught:
        load_settings(**overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert settings.output == Output(directory=Path("results"), format="mp4", prefix="")
    assert (settings.model, settings.device, settings.log.directory) == ("closed-form", "auto", Path("logs"))


def test_order_of_sources(project: Path, user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file.write_text("model: user\ndevice: cpu\noutput: {directory: user, format: gif, prefix: user}\nlog: {directory: user}\n")
    (project / "config.yaml").write_text("model: project\noutput:\n  directory: project\n  format: webm\n")
    monkeypatch.setenv("I2V_LAB_OUTPUT__DIRECTORY", "environment")
    monkeypatch.setenv("I2V_LAB_MODEL", "environment")
    settings = load_settings(model="command", output={"directory": None})
    assert settings.model == "command"
    assert settings.output == Output(directory=Path("environment"), format="webm", prefix="user")
    assert settings.device == "cpu"
    assert settings.log.directory == Path("user")
    assert load_settings(model=None).model == "environment"


def test_the_command_line_wins_a_single_key() -> None:
    settings = load_settings(output={"directory": Path("here")}, device="cuda:1")
    assert settings.output == Output(directory=Path("here"))
    assert settings.device == "cuda:1"


def test_user_file_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("", "relative/is/ignored"):
        monkeypatch.setenv("XDG_CONFIG_HOME", given)
        assert config_files()[1] == tmp_path / ".config" / "i2v_lab" / "config.yaml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_files()[1] == tmp_path / ".config" / "i2v_lab" / "config.yaml"


def test_home_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (project / "config.yaml").write_text("output: {directory: ~/clips}\n")
    assert load_settings().output.directory == tmp_path / "clips"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "output:\n  # directory: results\nmodel:\n", "\ufeffmodel: closed-form\n"])
def test_files_that_say_nothing(project: Path, text: str) -> None:
    (project / "config.yaml").write_text(text, encoding="utf-8")
    assert load_settings() == Settings()


@pytest.mark.parametrize(("text", "words"), [
    ("output: {dirctory: x}", ["config.yaml", "output.dirctory: unknown name", "did you mean directory?"]),
    ("modle: x", ["config.yaml", "modle: unknown name", "did you mean model?"]),
    ("zzz: x", ["zzz: unknown name", "known: output, model, device, log"]),
    ("1: x", ["config.yaml: 1: unknown name"]),
    ("_env_file: other", ["_env_file: unknown name"]),
    ("output: {1: x}", ["config.yaml: output.1"]),
    ("output: {format: avi}", ["config.yaml: output.format", "'mp4', 'webm' or 'gif'", "got 'avi'"]),
    ("output: results", ["config.yaml: output:", "got 'results'"]),
    ("output: {directory: [a, b]}", ["config.yaml: output.directory", "got ['a', 'b']"]),
    ("output: {directory: \"a\\0b\"}", ["config.yaml: output.directory", "expected a folder"]),
    ("model: 5", ["config.yaml: model:", "got 5"]),
    ("model: ''", ["config.yaml: model:"]),
    ("device: gpu", ["config.yaml: device:", "got 'gpu'"]),
    ("device: cuda:x", ["config.yaml: device:", "got 'cuda:x'"]),
    ("output: {prefix: ../up}", ["config.yaml: output.prefix", "got '../up'"]),
    ("output: {prefix: 'a\\b'}", ["config.yaml: output.prefix"]),
    ("output: {prefix: .hidden}", ["config.yaml: output.prefix"]),
    ("output: {prefix: " + "x" * 61 + "}", ["config.yaml: output.prefix", "at most 60 characters", "got 61"]),
    ("output: {prefix: \"a\\nb\"}", ["config.yaml: output.prefix"]),
    ("- model\n- device", ["config.yaml: expected keys and values", "got a list"]),
    ("just words", ["config.yaml: expected keys and values", "got a str"]),
    ("model: [a", ["config.yaml: not valid YAML in line", "expected"]),
    ("model: x\n\tdevice: cpu", ["config.yaml: not valid YAML in line 2"]),
    ("model: !!python/object/apply:os.getcwd []", ["config.yaml: not valid YAML"]),
    ("[" * 3000, ["config.yaml: not valid YAML"]),
    ("modle: x\ndevice: gpu", ["modle", "device"]),
])  # fmt: skip
def test_faults_of_a_file(project: Path, text: str, words: list[str]) -> None:
    (project / "config.yaml").write_text(text)
    message = fault()
    for word in words:
        assert word in message


def test_the_file_is_named(project: Path, user_file: Path) -> None:
    user_file.write_text("device: gpu")
    assert fault().startswith(f"{user_file}: device: ")
    # Also where another source would win.
    assert fault(device="cpu").startswith(f"{user_file}: device: ")


def test_a_file_that_cannot_be_read(project: Path) -> None:
    (project / "config.yaml").write_bytes(b"model: \xff\xfe\n")
    assert "UTF-8" in fault()
    (project / "config.yaml").unlink()
    (project / "config.yaml").mkdir()
    assert fault().startswith("config.yaml: cannot be read")


@pytest.mark.parametrize(("name", "value", "words"), [
    ("I2V_LAB_MODLE", "x", ["I2V_LAB_MODLE: unknown name", "I2V_LAB_MODEL"]),
    ("I2V_LAB_OUTPUT__DIR", "x", ["I2V_LAB_OUTPUT__DIR: unknown name", "I2V_LAB_OUTPUT__DIRECTORY"]),
    ("I2V_LAB_OUTPUT__FORMAT", "avi", ["I2V_LAB_OUTPUT__FORMAT: output.format", "got 'avi'"]),
    ("I2V_LAB_DEVICE", "gpu", ["I2V_LAB_DEVICE: device", "got 'gpu'"]),
    ("I2V_LAB_OUTPUT", "{broken", ["environment", "output"]),
])  # fmt: skip
def test_faults_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: list[str]) -> None:
    monkeypatch.setenv(name, value)
    message = fault()
    for word in words:
        assert word in message


def test_a_variable_may_hold_a_whole_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2V_LAB_OUTPUT", '{"directory": "group", "format": "gif"}')
    monkeypatch.setenv("i2v_lab_output__format", "webm")
    assert load_settings().output == Output(directory=Path("group"), format="webm")


def test_an_empty_variable_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2V_LAB_MODEL", "")
    assert load_settings().model == "closed-form"


def test_faults_of_the_command_line() -> None:
    assert fault(device="gpu").startswith("the command line: device: ")
    assert "did you mean model?" in fault(modell="x")


def test_prefixes_that_people_use() -> None:
    for prefix in ("cat_", "2026-11-22 ", "猫" * 60, "a.b-"):
        assert load_settings(output={"prefix": prefix}).output.prefix == prefix
    assert "200 bytes" in fault(output={"prefix": "🐈" * 60})
