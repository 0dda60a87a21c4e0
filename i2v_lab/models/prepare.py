"""What levers change in how the networks of a family are computed: by which code, by which kernels. For one run; after it all is as before.

How weights are kept is another matter: they are loaded that way (models/checkpoint.py). What a step may leave out is in levers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress

Networks = Mapping[str, torch.nn.Module]

WAYS: Mapping[tuple[str, str], Callable[[Networks, ClipParams, Progress], AbstractContextManager[None]]] = {}
"""{(lever, value): the networks with it, inside the block}. The first one is outermost. A family names those it works with in `levers`."""


@contextmanager
def prepared(networks: Networks, params: ClipParams, progress: Progress) -> Iterator[None]:
    """Networks as the levers of a clip want them computed, inside the block.

    Args:
        networks: {component: network}, all of the family's, with the names that its checkpoint has for them.
        progress: receives what takes long before the first step, such as a conversion.
    """
    with ExitStack() as stack:
        for (lever, value), way in WAYS.items():
            if getattr(params, lever) == value:
                stack.enter_context(way(networks, params, progress))
        yield
