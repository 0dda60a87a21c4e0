"""OpenVINO and NNCF, imported so that they neither call home nor write to a user's screen."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import platform
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from i2v_lab.clip.levers import BACKENDS, NEUTRAL, cache_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ModelError, UnsupportedParams

log = logging.getLogger(__name__)

DEVICES = dict(zip(BACKENDS, ("CPU", "GPU", "NPU"), strict=True))
"""What OpenVINO calls the device that a `backend` names."""
CACHES = ("deep", "taylor")
"""The caches that go with it: the first is computed as two networks, the second is about a network's output alone."""
COPIES = 2  # of a network's weights: those of the file, and those that the device has arranged for its instructions
_TELEMETRY = "openvino_telemetry"


def import_quiet(name: str, wants: str = "backend: openvino", extra: str = "i2v_lab[intel]") -> Any:
    """A module of OpenVINO, NNCF or ONNX. Telemetry of the first two is an optional package of its own: here it is never found.

    Args:
        wants, extra: what needs the module and what brings it, for the error.

    Raises:
        ModelError: it is not installed, or not for this machine.
    """
    find(name, wants, extra)
    logger, before = logging.getLoggerClass(), sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = cast(Any, None)
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(f"{wants} needs {name}, which cannot be loaded on this {platform.machine()} ({error})") from None
    finally:
        logging.setLoggerClass(logger)  # NNCF sets one for all packages
        if before is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before


def check(params: ClipParams) -> None:
    """Raise UnsupportedParams where the other settings of a clip do not go with OpenVINO."""
    backend = params.backend
    if backend not in DEVICES:
        return
    if (cache := cache_of(params)) and cache.kind not in CACHES:
        raise UnsupportedParams(f"cache: with backend {backend} expected {', '.join(CACHES)}, got {params.cache}; nearest: deep:3")
    if params.quantization not in (None, NEUTRAL["quantization"], "int8"):
        raise UnsupportedParams(
            f"quantization: with backend {backend} expected int8 or none, got {params.quantization}; nearest: int8"
        )
    if params.dtype not in ("auto", "float32"):
        raise UnsupportedParams(f"dtype: with backend {backend} expected float32, got {params.dtype}; nearest: float32")
    for field in ("compile", "attention"):
        if (value := getattr(params, field)) not in (None, NEUTRAL[field]):
            raise UnsupportedParams(
                f"{field}: {value} changes what torch computes, got it with backend {backend}; leave one of them out"
            )


def resident(params: ClipParams, denoises: int, decodes: int) -> int:
    """Bytes that converted networks take beside those of torch, which stay: a file's, and the same again as the device arranges them.

    Args:
        denoises, decodes: bytes of the networks that denoise, and of the decoder where it is converted, as float32.
    """
    if params.backend not in DEVICES:
        return 0
    return COPIES * ((denoises // 4 if params.quantization == "int8" else denoises) + decodes)


def check_here(params: ClipParams, device: str) -> None:
    """Raise ModelError where a clip asks for OpenVINO and it is not installed, and UnsupportedParams on a device that is not the CPU."""
    if params.backend not in DEVICES:
        return
    if device != "cpu":
        raise UnsupportedParams(
            f"backend: {params.backend} takes the weights from the CPU, got device {device}; use --device cpu, or backend torch"
        )
    for name in ("openvino", *(("nncf",) if params.quantization == "int8" else ())):
        find(name)


def find(name: str, wants: str = "backend: openvino", extra: str = "i2v_lab[intel]") -> None:
    """Raise ModelError unless a package is installed."""
    other = "; or use backend torch" if wants.startswith("backend") else ""
    if importlib.util.find_spec(name) is None:
        raise ModelError(f"{wants} needs {name}, which is not installed: pip install '{extra}'{other}")


def versions(*packages: str) -> dict[str, str]:
    """Versions of packages; what is not installed is absent."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def device_of(backend: str) -> str:
    """What OpenVINO calls the device of a `backend`.

    Raises:
        ModelError: OpenVINO is not installed. UnsupportedParams: it sees no such device here.
    """
    wanted = DEVICES[backend]
    found = import_quiet("openvino").Core().available_devices
    if not any(name.partition(".")[0] == wanted for name in found):
        near = next((name for name, device in DEVICES.items() if device in found), "torch")
        raise UnsupportedParams(
            f"backend: expected a device that OpenVINO sees here ({', '.join(found) or 'none'}), got {backend}; nearest: {near}"
        )
    return wanted


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, what these libraries print goes to the log, and what they warn of (traced checks of shapes, names to come) nowhere."""
    said = io.StringIO()
    logger = logging.getLogger("nncf")
    handlers, logger.handlers = logger.handlers, []
    try:
        with contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.handlers = handlers
        if text := " ".join(said.getvalue().split()):
            log.info("%s", text[:2000])
