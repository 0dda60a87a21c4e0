"""Share: how many workers each of several sweeps on one cluster may have. A named actor, one a cluster."""

from __future__ import annotations

import time

SILENT_SECONDS = 60.0  # who says nothing for so long is gone
ASK_SECONDS = 1.0  # between two questions
NAME, NAMESPACE = "i2v_lab-share", "i2v_lab"


class Share:
    """Divides the devices of a cluster among those who ask."""

    def __init__(self) -> None:
        self.asked: dict[str, tuple[float, int]] = {}  # {who: (when, how many it can use)}

    def ask(self, who: str, wants: int, total: int) -> int:
        """How many of `total` devices are for this one now; 0 of `wants`: it is done."""
        now = time.monotonic()
        self.asked[who] = (now, wants)
        self.asked = {name: seen for name, seen in self.asked.items() if now - seen[0] < SILENT_SECONDS and seen[1]}
        return divide({name: wanted for name, (_, wanted) in self.asked.items()}, total).get(who, 0)


def divide(wants: dict[str, int], total: int) -> dict[str, int]:
    """Equal shares of `total`; what one cannot use the others have; what is left over goes to who came first."""
    shares = dict.fromkeys(wants, 0)
    for _ in range(total):
        open_ones = [name for name in wants if shares[name] < wants[name]]
        if not open_ones:
            break
        shares[min(open_ones, key=lambda name: shares[name])] += 1  # the first of the least
    return shares
