"""What this machine has for making clips, what is missing, and how to fix it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from i2v_lab import models
from i2v_lab.clip import ffmpeg
from i2v_lab.devices.gpus import gpu, runtime
from i2v_lab.devices.hardware import GIB, machine
from i2v_lab.errors import I2VLabError
from i2v_lab.models.openvino import store
from i2v_lab.settings import Settings
from i2v_lab.store.database import Database


class Check(NamedTuple):
    """One check: with a `missing` part no clip can be made, with a `warning` it can."""

    name: str
    state: Literal["ok", "warning", "missing"]
    found: str
    remedy: str = ""


def _check(name: str, well: bool, found: str, remedy: str) -> Check:
    return Check(name, "ok", found) if well else Check(name, "warning", found, remedy)


def examine(settings: Settings) -> list[Check]:
    """Check everything that making a clip needs. Takes some seconds: torch is loaded and each encoder tried."""
    import psutil

    memory = psutil.virtual_memory().available / GIB
    return [
        Check("Python", "ok", f"{platform.python_version()} at {sys.executable}"),
        _packages(),
        *_devices(settings.device),
        _check(
            "memory", memory > 2, f"{memory:.1f} GiB of RAM free", "a 512p closed-form clip takes about 1 GiB; close other programs"
        ),
        *_ffmpeg(settings),
        _disk(settings.output.directory),
        _record(settings.output.directory),
        _checkpoints(),
        _extra("families", "model families", "Wan's prompts, LoRAs and some tokenizers need them"),
        _extra("intel", "OpenVINO", "backend openvino needs them"),
        _converted(),
    ]


def _required(extra: str = "") -> dict[str, str]:
    """{package that i2v_lab's metadata requires, always or for an extra: its version; "" where it is not installed}."""
    found = {}
    for requirement in importlib.metadata.requires("i2v_lab") or ():
        name, of = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"](\w+)", requirement)
        if name and (of[1] if of else "") == extra:
            found[name[0]] = ""
            with suppress(importlib.metadata.PackageNotFoundError):
                found[name[0]] = importlib.metadata.version(name[0])
    return found


def _packages() -> Check:
    found = _required()
    if missing := [name for name, version in found.items() if not version]:
        return Check("packages", "missing", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def _devices(wanted: str) -> list[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Check("device", "missing", f"torch cannot be loaded: {error}", "install it again, as pytorch.org says")]
    if wanted not in ("auto", "cpu") and gpu(wanted) is None:
        return [Check("device", "missing", f"the settings ask for {wanted}, and torch sees no such device", "set device to auto")]
    if found := gpu():
        return [Check("device", "ok", f"{found.name}, {found.total / GIB:.1f} GiB of VRAM, {runtime(found.device)}")]
    without = torch.version.cuda is None and torch.version.hip is None
    why = "this torch was built without CUDA" if without else "torch sees no CUDA device"
    return [Check("device", "warning", f"{machine('cpu')['device_name']}; {why}",
                  "closed-form runs here; i2v-lab plan --vram 12 says what a card can run")]  # fmt: skip


def _ffmpeg(settings: Settings) -> list[Check]:
    try:
        version, encoders = ffmpeg.ffmpeg_version(), ffmpeg.encoders()
    except I2VLabError as error:
        return [Check("FFmpeg", "missing", str(error), "pip install --force-reinstall imageio-ffmpeg")]
    working = ", ".join(name for name, works in encoders.items() if works) or "none"
    needed = {"mp4": "libx264", "webm": "libvpx-vp9"}.get(settings.output.format)
    found = f"{version}; encoders that work: {working}"
    if needed and not encoders.get(needed):
        return [Check("FFmpeg", "missing", found, f"{needed} is needed; reinstall imageio-ffmpeg")]
    return [Check("FFmpeg", "ok", found)]


def _disk(directory: Path) -> Check:
    folder = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(parent))
    try:
        with tempfile.TemporaryFile(dir=folder):  # rights are not enough: the disk may be read-only
            pass
    except OSError as error:
        why = f"{directory} cannot be written: {error.strerror or error}"
        return Check("output folder", "missing", why, "choose another with --output-dir")
    free = shutil.disk_usage(folder).free / GIB
    return _check("output folder", free > 1, f"{directory.absolute()}, {free:.1f} GiB free", "free some space")


def _record(directory: Path) -> Check:
    try:
        return Check("record of runs", "ok", Database(directory).check())
    except I2VLabError as error:
        return Check(
            "record of runs", "missing", str(error), "where it was moved away, the next command makes it again from the clips"
        )


def _checkpoints() -> Check:
    found = models.local_checkpoints()
    words = ", ".join(found) or "none here (closed-form needs none)"
    return _check("checkpoints", bool(found), words, "i2v-lab models lists the families, and the command that fetches each")


def _extra(extra: str, title: str, use: str) -> Check:
    """The packages of an extra."""
    wanted = _required(extra)
    missing = sorted(name for name, version in wanted.items() if not version)
    found = f"not installed: {', '.join(missing)}; {use}" if missing else ", ".join(sorted(wanted))
    return _check(title, not missing, found, f"pip install 'i2v_lab[{extra}]'")


def _converted() -> Check:
    """The networks that were converted for OpenVINO."""
    try:
        place = store.folder()
    except I2VLabError as error:
        return Check("converted networks", "warning", str(error))
    return Check("converted networks", "ok", f"{store.size() / GIB:.1f} GiB in {place}; i2v-lab doctor --clear removes them")
