"""What levers change in how the networks of a family are computed: by which code, by which kernels. For one run; after it all is as before.

How weights are kept is another matter: they are loaded that way (models/checkpoint.py). What a step may leave out is in levers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from i2v_lab.clip.levers import BACKENDS
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress
from i2v_lab.models.kernels import attending, compiled
from i2v_lab.models.openvino.way import Computed, on_openvino


@contextmanager
def prepared(model: Computed, params: ClipParams, progress: Progress) -> Iterator[None]:
    """The networks of a model as the levers of a clip want them computed, inside the block. A family names those it works with in `levers`.

    Args:
        progress: receives what takes long before the first step, such as a conversion.
    """
    with ExitStack() as stack:
        if params.backend in BACKENDS:
            stack.enter_context(on_openvino(model, params, progress))
        if params.compile == "regional":
            stack.enter_context(compiled(model.components, model.device))
        if params.attention in ("sage", "flash", "xformers"):
            stack.enter_context(attending(params.attention, model.device))
        yield
