"""The command line, i2v-lab."""

from i2v_lab.cli.app import main

__all__ = ["main"]
