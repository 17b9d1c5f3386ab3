"""How often a task may begin: the arithmetic of ``rate``, without a clock.

The promise is the one that those who set a limit mean: in no stretch of that time, wherever it begins, are there more.
A bucket that fills up would let through twice as many around its edge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ConfigurationError

__all__ = ["Rate", "make_rate"]

_RATE = re.compile(r"(\d{1,9})/(\d{0,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STEPS = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` in any ``seconds``."""

    count: int
    seconds: float

    def mark(self, now: float) -> float:
        """The moment to write down for what begins now: a little later, so that few are to be remembered."""
        step = self.seconds / _STEPS
        return math.ceil(now / step) * step

    def room(self, began: Iterable[tuple[float, int]], now: float) -> int:
        """How many more may begin now, after these: when, and how many."""
        return max(0, self.count - sum(count for at, count in began if at > now - self.seconds))

    def wait(self, began: Iterable[tuple[float, int]], now: float) -> float:
        """Seconds until one may begin."""
        recent = sorted(one for one in began if one[0] > now - self.seconds)
        over = sum(count for _, count in recent) - self.count
        for at, count in recent:
            if over < 0:
                break
            over -= count
            if over < 0:
                return max(0.0, at + self.seconds - now)
        return 0.0


def make_rate(name: str, rate: str | None) -> Rate | None:
    """The rate of the task of that name. Raises ``ConfigurationError``."""
    if rate is None:
        return None
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found is None or not int(found[1]) or found[2] == "0":
        raise ConfigurationError(
            f"task {name!r}: rate is '10/s', '100/m', '5/h', '1000/d' or, of ten seconds, '100/10s', not {rate!r:.80}"
        )
    return Rate(int(found[1]), float(int(found[2] or 1) * _SECONDS[found[3]]))
