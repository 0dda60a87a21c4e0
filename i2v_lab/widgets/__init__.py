"""Notebook widgets: the studio, the clip player, compare, the table of runs, blind votes."""
