"""What levers change in how the networks of a family are computed: by which code, by which kernels. For one run; after it all is as before.

How weights are kept is another matter: they are loaded that way (models/checkpoint.py). What a step may leave out is in levers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from i2v_lab.clip.levers import BACKENDS
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress
from i2v_lab.models.kernels import attending, compiled
from i2v_lab.models.openvino.way import Computed, on_openvino

Way = Callable[[Computed, ClipParams, Progress], AbstractContextManager[None]]


def _compiled(model: Computed, params: ClipParams, progress: Progress) -> AbstractContextManager[None]:
    return compiled(model.components, model.device)


def _attending(model: Computed, params: ClipParams, progress: Progress) -> AbstractContextManager[None]:
    return attending(str(params.attention), model.device)


WAYS: Mapping[tuple[str, str], Way] = {
    **{("backend", name): on_openvino for name in BACKENDS},
    ("compile", "regional"): _compiled,
    **{("attention", name): _attending for name in ("sage", "flash", "xformers")},
}
"""{(lever, value): the networks with it, inside the block}. The first one is outermost. A family names those it works with in `levers`."""


@contextmanager
def prepared(model: Computed, params: ClipParams, progress: Progress) -> Iterator[None]:
    """The networks of a model as the levers of a clip want them computed, inside the block.

    Args:
        progress: receives what takes long before the first step, such as a conversion.
    """
    with ExitStack() as stack:
        for (lever, value), way in WAYS.items():
            if getattr(params, lever) == value:
                stack.enter_context(way(model, params, progress))
        yield
