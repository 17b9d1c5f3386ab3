"""Which server gets the next call, and how often one is tried again: arithmetic without I/O, time is an argument."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable

from ..wire.address import Address

__all__ = ["Balance", "RetryBudget", "Target"]

# Until a server that failed is tried again: up to so many seconds, more with each failure in a row ("full jitter":
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
_chance = random.SystemRandom()  # the program's own generator may have been seeded, and is its own
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Target:
    """A server as a client sees it."""

    __slots__ = ("address", "doubts", "failures", "outstanding", "retry_at", "weight")

    def __init__(self, address: Address, weight: float) -> None:
        self.address = address
        self.weight = weight
        self.outstanding = 0  # calls that it has not answered
        self.failures = 0  # in a row; while there are some, others are preferred
        self.doubts = 0  # failures before it could be reached again: it has not answered yet
        self.retry_at = 0.0  # then it may be tried again

    def __repr__(self) -> str:
        return f"<{self.address}: {self.outstanding} outstanding, {self.failures} failures>"


class Balance:
    """Gives each call to the server with the fewest outstanding ones, by weight; to failing ones for want of others."""

    def __init__(self, addresses: Iterable[Address], weights: Iterable[float] | None = None) -> None:
        addresses = list(addresses)
        weights = [1.0] * len(addresses) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(addresses):
            raise ValueError(f"there are {len(addresses)} servers and {len(weights)} weights: give one for each")
        if any(not weight > 0 for weight in weights):
            raise ValueError(f"a server's weight is above 0, not {min(weights)}")
        self.targets = [Target(address, weight) for address, weight in zip(addresses, weights)]
        self._turn = _chance.randrange(len(self.targets))  # or all clients would begin with the first one

    def pick(self, avoid: Collection[Target] = ()) -> Target | None:
        """Who gets the next call; None where there are none but those to avoid.

        One that fails may have to be left alone for a while yet: see its ``retry_at``.
        """
        self._turn += 1
        count = len(self.targets)
        best, least = None, 0.0
        for number in range(count):  # from another one each time, so that equal ones take turns
            target = self.targets[(self._turn + number) % count]
            if target in avoid or target.failures:
                continue
            load = (target.outstanding + 1) / target.weight
            if best is None or load < least:
                best, least = target, load
        if best is None:
            failing = [target for target in self.targets if target not in avoid]
            best = min(failing, key=lambda target: target.retry_at, default=None)
        return best

    def failed(self, target: Target, now: float) -> None:
        """It could not be reached, or was lost: eject it for a while."""
        before = max(target.failures, target.doubts)
        target.retry_at = now + _chance.uniform(0, min(_FIRST_PAUSE * 2**before, _LONGEST_PAUSE))
        target.failures = min(before + 1, 30)

    def works(self, target: Target) -> None:
        """It could be reached. That may be a balancer before servers that are gone: an answer says more."""
        target.doubts = max(target.failures, target.doubts)
        target.failures = 0
        target.retry_at = 0.0

    def answered(self, target: Target) -> None:
        """It has said something."""
        target.doubts = 0


class RetryBudget:
    """Lets retries be a tenth of the calls at most, with some in reserve: a struggling server isn't hammered."""

    RATIO, RESERVE = 0.1, 10.0

    def __init__(self) -> None:
        self._left = self.RESERVE

    def earn(self, calls: int = 1) -> None:
        """So many calls were made."""
        self._left = min(self._left + calls * self.RATIO, 10 * self.RESERVE)

    def spend(self, calls: int = 1) -> bool:
        """Whether so many calls may be tried once more."""
        if self._left < calls:
            return False
        self._left -= calls
        return True
