"""The centre: `make` turns params into a clip and its record, `Store.adopt` keeps them, `run_clip` is the two together."""

from i2v_lab.run.clip import run_clip, runs
from i2v_lab.run.make import Made, check_device, make, portable
from i2v_lab.run.restore import restore
from i2v_lab.run.script import script_of

__all__ = ["Made", "check_device", "make", "portable", "restore", "run_clip", "runs", "script_of"]
