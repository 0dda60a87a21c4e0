"""Everything kept of runs: SQLite and the output folder."""

from i2v_lab.store.runs import Store

__all__ = ["Store"]
