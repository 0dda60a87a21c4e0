"""The model families, found by name, folder or hub id, and loaded once."""

from i2v_lab.models.registry import (
    CHECKPOINT_FOLDER,
    CHECKPOINTS,
    FAMILIES,
    LISTED,
    PIPELINES,
    Identity,
    advice,
    family,
    fetch,
    find,
    identity,
    kept,
    load,
    local_checkpoints,
    preset,
    unload,
)  # fmt: skip

__all__ = [
    "CHECKPOINTS", "CHECKPOINT_FOLDER", "FAMILIES", "LISTED", "PIPELINES", "Identity", "advice", "family", "fetch", "find", "identity", "kept",
    "load", "local_checkpoints", "preset", "unload",
]  # fmt: skip
