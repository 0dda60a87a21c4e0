"""The studio: make clips and sweeps by hand, in a notebook or as a page."""

from i2v_lab.widgets.studio.studio import Studio

__all__ = ["Studio"]
