"""A workbench for finding out what the parameters of an image-to-video model do.

    from i2v_lab import ClipParams, run_clip, runs
    record = run_clip(ClipParams(image="sample:coffee", prompt="camera panning left slowly"))
    runs()

The names below are the whole public door; each is imported when it is first used, so that importing the package loads
neither torch nor widgets.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Advice": "clip.params",
    "Client": "server.client",
    "ClipParams": "clip.params",
    "I2VLabError": "errors",
    "Progress": "clip.progress",
    "RunRecord": "clip.record",
    "StopSwitch": "clip.progress",
    "Store": "store",
    "Studio": "widgets.studio",
    "advice": "models",
    "compare": "widgets.compare",
    "load_settings": "settings",
    "measure": "metrics",
    "open_picture": "clip.picture",
    "plan": "cost",
    "read_settings": "clip.video",
    "run_clip": "run",
    "runs": "run",
}
__all__ = sorted(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
