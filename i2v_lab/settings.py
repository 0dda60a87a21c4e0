"""Settings of the workbench: where clips go, which model, which device.

They come from, first wins: what was given on the command line, the environment (`I2V_LAB_OUTPUT__DIRECTORY`),
`config.yaml` in the current folder, and the user's own `~/.config/i2v_lab/config.yaml`. Each source is checked by
itself, so that an error names the place it came from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from i2v_lab import rights
from i2v_lab.errors import SettingsError, explain, meant
from i2v_lab.portable import NOT_IN_NAMES, is_device

CONFIG_NAME = "config.yaml"
ENV_PREFIX = "I2V_LAB_"
PREFIX_MAX = 60  # characters
# Names of files hold 255 bytes; the prefix leaves room for the time, a number and the suffix.
PREFIX_BYTES_MAX = 200
PARALLEL = (1, 2, 4, 8)


def _check_prefix(prefix: str) -> str:
    # It is followed by the time: a dot or a space at its end is not at the end of the name, where Windows allows none.
    if any(letter in NOT_IN_NAMES or not letter.isprintable() for letter in prefix) or prefix.startswith("."):
        raise ValueError(f"expected the beginning of a file name, without any of {' '.join(sorted(NOT_IN_NAMES))} and no dot in front, "
                         f"got {prefix!r}")  # fmt: skip
    if is_device(prefix):
        raise ValueError(f"expected the beginning of a file name, got {prefix!r}, which is the name of a device on Windows")
    if len(prefix) > PREFIX_MAX or len(prefix.encode()) > PREFIX_BYTES_MAX:
        raise ValueError(f"expected at most {PREFIX_MAX} characters ({PREFIX_BYTES_MAX} bytes), got {len(prefix)}")
    return prefix


def _check_folder(folder: Path) -> Path:
    if "\0" in str(folder):
        raise ValueError(f"expected a folder, got {str(folder)!r}")
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(f"expected a folder; there is no such home folder, got {str(folder)!r}") from None


def _check_parallel(number: int) -> int:
    if number not in PARALLEL:
        raise ValueError(f"expected {', '.join(map(str, PARALLEL[:-1]))} or {PARALLEL[-1]} devices, got {number}")
    return number


Folder = Annotated[Path, AfterValidator(_check_folder)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Output(_Group):
    """Where clips go and what they are called.

    Attributes:
        directory: the output folder: clips, sweeps and the record of runs.
        format: mp4, webm or gif.
        prefix: prefix of the names of clips; at most 60 characters, no dot in front, and nothing that Windows
            cannot store (`<>:"|?*`, names of devices such as NUL).
    """

    directory: Folder = Path("results")
    format: Literal["mp4", "webm", "gif"] = "mp4"
    prefix: Annotated[str, AfterValidator(_check_prefix)] = ""


class Log(_Group):
    """Where logs go."""

    directory: Folder = Path("logs")


class Server(_Group):
    """The web page and API; see `i2v-lab serve`.

    Attributes:
        host: the address to listen on. port: of TCP.
        token: what a request must carry, 16 characters or more; "" makes a new one at each start.
        queue_limit: how many clips can wait in the queue; more are refused.
        workers: how many clips are made at once, by as many processes: one a CUDA device, all on the CPU, or one a worker of a cluster.
        idle_seconds: seconds without a clip after which the model's memory is freed.
        stop_seconds: how long the running clip may go on after the server was asked to end; then it is stopped.
        body_mib: largest body of a request, MiB.
        max_num_frames, max_side: length (frames) and side (pixels) of a clip that a request may ask for.
    """

    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    token: Annotated[str, Field(pattern=r"^([!-~]{16,200})?$")] = ""
    queue_limit: Annotated[int, Field(ge=1, le=10_000)] = 20
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    idle_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 900.0
    stop_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    body_mib: Annotated[int, Field(ge=1, le=1024)] = 64
    max_num_frames: Annotated[int, Field(ge=2, le=256)] = 256
    max_side: Annotated[int, Field(ge=256, le=2048)] = 2048


class Cluster(_Group):
    """Many devices at once; see docs/cluster.md.

    Attributes:
        address: local (all GPUs of this machine), auto (a Ray cluster that runs here or that RAY_ADDRESS names, otherwise local)
            or HOST:PORT of a Ray cluster; "": clips are made one after another, in this process.
        workers: at most so many; 0: one a GPU, and where there is no GPU one a machine.
        threads: of each worker on a CPU; 0: as many as this process has.
    """

    address: Annotated[str, Field(max_length=300)] = ""
    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    threads: Annotated[int, Field(ge=0, le=1024)] = 0

    @property
    def has_address(self) -> bool:
        """Whether it is HOST:PORT: a cluster that somebody started, here or elsewhere."""
        return ":" in self.address


class Settings(_Group):
    """Settings as they are after all sources were read. `Settings()` is the defaults: `load_settings` reads the sources.

    Attributes:
        output: see Output.
        model: closed-form, a family, a checkpoint's folder or a hub id.
        device: auto, cpu, cuda, cuda:N, xpu, xpu:N (Intel) or mps (Apple).
        log: see Log.
        server: see Server. cluster: see Cluster.
        parallel: on how many devices each clip is made, from `device` on: 1, 2, 4 or 8; see models/parallel.
        language: of screens and reports: auto (the browser's, and the system's where there is no browser), en or zh.
        shared: whether other users of this machine may read clips, records and logs, as far as the umask lets them;
            otherwise they are this user's alone. `load_settings` sets it for the process.
    """

    output: Output = Output()
    model: Annotated[str, Field(min_length=1, max_length=500)] = "closed-form"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?)$")] = "auto"
    log: Log = Log()
    server: Server = Server()
    cluster: Cluster = Cluster()
    parallel: Annotated[int, AfterValidator(_check_parallel)] = 1
    language: Literal["auto", "en", "zh"] = "auto"
    shared: bool = False


def config_files() -> tuple[Path, ...]:
    """The two files that are read where they exist: the project's, then the user's."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    except RuntimeError:  # a user without a home
        return (Path(CONFIG_NAME),)
    return Path(CONFIG_NAME), base / "i2v_lab" / CONFIG_NAME


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from all sources.

    Args:
        overrides: what the command line said: `model="..."`, `output={"directory": ...}`. None means not given.

    Raises:
        SettingsError: one line that names the file or the variable, the key, what was expected and what came.
    """
    project_then_user = [_checked(_read_yaml(path), str(path)) for path in config_files()]
    sources = [_checked(overrides, "the command line"), _read_environment(), *project_then_user]
    merged: dict[str, Any] = {}
    for source in reversed(sources):  # the first wins, so it comes last
        merged = _merge(merged, source)
    settings = Settings(**merged)
    rights.share(settings.shared)
    return settings


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _without_none(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """A key with nothing after it (all below it is a comment, say) is a key not given. YAML's other keys (1, true) are texts."""
    return {
        str(key): _without_none(value) if isinstance(value, Mapping) else value
        for key, value in fields.items()
        if value is not None
    }


def _checked(fields: Mapping[Any, Any], where: str, *, variables: bool = False) -> dict[str, Any]:
    """The fields, if Settings takes them. `variables`: they are variables of the environment, and an error names those."""
    fields = _without_none(fields)
    try:
        Settings.model_validate(fields)
    except ValidationError as error:
        if variables:
            names = dict.fromkeys(ENV_PREFIX + "__".join(map(str, item["loc"])).upper() for item in error.errors())
            where = f"environment variable {', '.join(names)}"
        raise SettingsError(f"{where}: {explain(error, Settings)}") from None
    return fields


def _read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty where there is no such file."""
    if not path.exists():
        return {}
    from i2v_lab.textfile import parse_yaml, read_text  # YAML takes longer to import than the rest of this module

    expected = "keys and values such as 'model: closed-form'"
    text = read_text(path, SettingsError, expected)
    try:
        return parse_yaml(text, SettingsError, expected)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _read_environment() -> dict[str, Any]:
    """The settings that the environment gives; a variable of ours that names none is an error."""
    import json

    known: dict[str, list[str]] = {}
    for name, field in Settings.model_fields.items():
        for below in ([], *([inner] for inner in getattr(field.annotation, "model_fields", ()))):
            known[ENV_PREFIX + "__".join([name, *below]).upper()] = [name, *below]
    fields: dict[str, Any] = {}
    for variable, value in sorted(os.environ.items()):  # a group before what is in it
        if not variable.upper().startswith(ENV_PREFIX):
            continue
        if (path := known.get(variable.upper())) is None:
            raise SettingsError(f"environment variable {variable}: unknown name; {meant(variable.upper(), known)}")
        given: Any = value
        if value.startswith("{"):  # a whole group
            with suppress(ValueError, RecursionError):
                given = json.loads(value)
        for name in reversed(path):
            given = {name: given}
        fields = _merge(fields, given if value else {})
    return _checked(fields, "the environment", variables=True)
