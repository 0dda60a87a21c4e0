"""Imports a script of experiments/, which is no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_experiment(name: str) -> ModuleType:
    """The module `experiments/<name>.py`, imported once."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "experiments" / f"{name}.py")
        assert spec
        assert spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)  # before it runs: dataclasses look their module up
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
