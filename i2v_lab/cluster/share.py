"""Share: how many devices each of those who use a cluster, sweeps and servers, may have. A named actor, one a cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass

SILENT_SECONDS = 60.0  # who says nothing for so long is gone
ASK_SECONDS = 1.0  # between two questions
NAME, NAMESPACE = "i2v_lab-share", "i2v_lab"


@dataclass(frozen=True)
class Wish:
    """What one can use.

    Attributes:
        devices: so many in all; each: by a worker.
        idle: it makes nothing, and keeps what it has as long as nobody else wants that.
    """

    devices: int
    each: int = 1
    idle: bool = False


class Share:
    """Divides the devices of a cluster among those who ask."""

    def __init__(self) -> None:
        self.asked: dict[str, tuple[float, Wish]] = {}  # {who: (when, what it can use)}

    def ask(self, who: str, wish: Wish, total: int) -> int:
        """How many of `total` devices are for this one now; a wish for none: it is done."""
        now = time.monotonic()
        self.asked[who] = (now, wish)
        self.asked = {name: seen for name, seen in self.asked.items() if now - seen[0] < SILENT_SECONDS and seen[1].devices}
        return divide({name: wanted for name, (_, wanted) in self.asked.items()}, total).get(who, 0)


def divide(wishes: dict[str, Wish], total: int) -> dict[str, int]:
    """Equal shares of `total`; what one cannot use the others have; what is left over goes to who came first.

    Those that only keep what they have come last.
    """
    shares = dict.fromkeys(wishes, 0)
    for idle in (False, True):
        asking = {name: wish for name, wish in wishes.items() if wish.idle == idle}
        while served := [
            name for name, wish in asking.items() if shares[name] + wish.each <= min(wish.devices, shares[name] + total)
        ]:
            first = min(served, key=lambda name: shares[name])  # the first of the least
            shares[first] += asking[first].each
            total -= asking[first].each
    return shares
