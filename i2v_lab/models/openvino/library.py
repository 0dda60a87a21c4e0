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
from typing import Any, cast

from i2v_lab.errors import ModelError, UnsupportedParams

log = logging.getLogger(__name__)

DEVICES = {"openvino": "CPU", "openvino-gpu": "GPU", "openvino-npu": "NPU"}
"""What OpenVINO calls the device that a `backend` names."""
_TELEMETRY = "openvino_telemetry"


def import_quiet(name: str, wants: str = "backend: openvino", extra: str = "i2v_lab[intel]") -> Any:
    """A module of OpenVINO, NNCF or ONNX. Telemetry of the first two is an optional package of its own: here it is never found.

    Args:
        wants, extra: what needs the module and what brings it, for the error.

    Raises:
        ModelError: it is not installed, or not for this machine.
    """
    if importlib.util.find_spec(name) is None:
        raise ModelError(f"{wants} needs {name}, which is not installed: pip install '{extra}'")
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
