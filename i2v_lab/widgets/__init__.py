"""Widgets of a notebook: the studio, compare, choosing clips, blind votes."""
