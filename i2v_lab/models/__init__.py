"""The model families, found by name, folder or hub id, and loaded once."""

from i2v_lab.models.registry import (
    CHECKPOINT_FOLDER,
    CHECKPOINTS,
    FAMILIES,
    LISTED,
    Handle,
    Identity,
    advice,
    family,
    find,
    is_family,
    local_checkpoints,
    open,
    preset,
    unload,
)
from i2v_lab.models.resolve import resolve
from i2v_lab.models.stock.lora import by_content

__all__ = [
    "CHECKPOINTS", "CHECKPOINT_FOLDER", "FAMILIES", "LISTED", "Handle", "Identity", "advice", "by_content", "family", "find", "is_family",
    "local_checkpoints", "open", "preset", "resolve", "unload",
]  # fmt: skip
