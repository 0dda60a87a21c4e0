"""Gives the tests `make_checkpoint` of experiments/make_random_i2vgen_xl.py, which is a script and no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SCRIPT = Path(__file__).parents[1] / "experiments" / "make_random_i2vgen_xl.py"
_spec = importlib.util.spec_from_file_location("make_random_i2vgen_xl", _SCRIPT)
assert _spec and _spec.loader
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

make_checkpoint = script.make_checkpoint
SIZES = script.SIZES
