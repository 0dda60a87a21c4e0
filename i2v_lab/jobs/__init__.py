"""The queue of clips that were asked for, and the worker that makes them."""
