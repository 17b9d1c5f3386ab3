"""Which server gets the next call, and how often one is tried again: arithmetic without I/O, time is an argument."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable

from ..wire.address import Address
from .names import Where, where_of

__all__ = ["Balance", "Missing", "Name", "RetryBudget", "Target"]

# Until a server that failed is tried again: up to so many seconds, more with each failure in a row ("full jitter":
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
_chance = random.SystemRandom()  # the program's own generator may have been seeded, and is its own
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_WHILE_OTHERS_ARE = 1e12  # calls: more than anybody has outstanding
_KNOWN_FOR = 1.0  # seconds for which nobody asks again for a name's addresses, whatever became of them


class Name:
    """A server's name, whose addresses are servers each. They share its weight."""

    __slots__ = ("address", "asked_at", "lost_at", "targets", "weight")

    def __init__(self, address: Address, weight: float) -> None:
        self.address = address
        self.weight = weight
        self.targets = [Target(address, weight, None, self)]  # one that stands for those that it will have
        self.asked_at = self.lost_at = -math.inf

    def is_due(self, now: float, every: float) -> bool:
        """Whether its addresses are to be asked for before one is used: once in a while, and after one was lost."""
        old = now - self.asked_at
        return old >= every or (old >= _KNOWN_FOR and self.lost_at >= self.asked_at)


class Target:
    """A server as a client sees it: one address."""

    __slots__ = (
        "address",
        "doubts",
        "failures",
        "is_full",
        "is_known",
        "is_slow",
        "name",
        "outstanding",
        "retry_at",
        "weight",
        "where",
    )

    def __init__(self, address: Address, weight: float, where: Where | None, name: Name | None = None) -> None:
        self.address = address  # as the client was told
        self.where = where  # None: that of a name which was not looked up
        self.name = name
        self.weight = weight
        self.outstanding = 0  # calls that it has not answered
        self.failures = 0  # in a row; while there are some, others are preferred
        self.doubts = 0  # failures before it could be reached again: it has not answered yet
        self.retry_at = 0.0  # then it may be tried again
        self.is_known = False  # it was there when it was last used
        self.is_slow = False  # to take a connection, which is under way: likewise
        self.is_full = False  # it has refused calls for having too many: others are preferred for a moment

    def __str__(self) -> str:
        if self.where is None or self.name is None or len(self.name.targets) == 1:
            return str(self.address)
        return f"{self.address} ({self.where[1][0]})"

    def __repr__(self) -> str:
        return f"<{self}: {self.outstanding} outstanding, {self.failures} failures>"


class Balance:
    """Gives each call to the server with the fewest outstanding ones, by weight; to failing ones for want of others."""

    def __init__(self, addresses: Iterable[Address], weights: Iterable[float] | None = None) -> None:
        addresses = list(addresses)
        weights = [1.0] * len(addresses) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(addresses):
            raise ValueError(f"there are {len(addresses)} servers and {len(weights)} weights: give one for each")
        if any(not weight > 0 for weight in weights):
            raise ValueError(f"a server's weight is above 0, not {min(weights)}")
        self.names: list[Name] = []
        self.targets: list[Target] = []
        for address, weight in zip(addresses, weights):
            where = where_of(address)
            if where is not None:
                self.targets.append(Target(address, weight, where))
            else:
                self.names.append(Name(address, weight))
                self.targets += self.names[-1].targets
        self._turn = _chance.randrange(len(self.targets))  # or all clients would begin with the first one
        self._lost_at = -math.inf  # when one was lost that had been there

    def found(self, name: Name, addresses: Iterable[Where]) -> list[Target]:
        """These are a name's addresses now. Those that it no longer has get no more calls, and are returned."""
        before = {target.where: target for target in name.targets}
        name.targets = [
            before.pop(where) if where in before else Target(name.address, 0.0, where, name) for where in addresses
        ]
        for target in name.targets:
            target.weight = name.weight / len(name.targets)
        self.targets = [target for target in self.targets if target.name is not name] + name.targets
        return list(before.values())

    def pick(self, avoid: Collection[Target] = ()) -> Target | None:
        """Who gets the next call; None where there are none but those to avoid.

        One that fails may have to be left alone for a while yet: see its ``retry_at``.
        """
        count = len(self.targets)
        if count == 1:
            return None if avoid and self.targets[0] in avoid else self.targets[0]
        self._turn += 1
        best, least = None, 0.0
        for number in range(count):  # from another one each time, so that equal ones take turns
            target = self.targets[(self._turn + number) % count]
            if target in avoid or target.failures or target.is_slow:
                continue
            load = (target.outstanding + 1) / target.weight
            if target.is_full or target.doubts:
                load += _WHILE_OTHERS_ARE
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
        target.is_slow = False
        if target.name is not None:
            target.name.lost_at = now
        if target.is_known:
            target.is_known = False
            self._lost_at = now

    def works(self, target: Target) -> None:
        """It could be reached. That may be a balancer before servers that are gone, or one that was stopped.

        It is asked for an answer: until then, others are preferred.
        """
        target.doubts = max(target.failures, target.doubts)
        target.failures = 0
        target.is_slow = False
        target.retry_at = 0.0
        target.is_known = not target.doubts

    def answered(self, target: Target) -> None:
        """It has said something."""
        target.doubts = 0
        target.is_known = True

    def may_come_back(self, now: float, gone_after: float) -> bool:
        """Whether one was lost so short a time ago that it may be about to start again."""
        return now - self._lost_at < gone_after


class Missing:
    """Tasks that servers have not, as they said: for a while these are asked for them only where no other one is left.

    Servers differ while new code is brought to one after another. Without this, half of the calls would go twice.
    """

    KNOWN_FOR, MOST = 10.0, 1000  # seconds, and tasks

    def __init__(self) -> None:
        self._until: dict[bytes, dict[Target, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, task: bytes, target: Target, now: float) -> None:
        """That server has no such task."""
        if len(self._until) >= self.MOST:
            self._until.clear()
        self._until.setdefault(task, {})[target] = now + self.KNOWN_FOR

    def of(self, task: bytes, now: float) -> frozenset[Target]:
        """Which servers have no such task."""
        known = self._until.get(task)
        if known is None:
            return frozenset()
        fresh = frozenset(target for target, until in known.items() if now < until)
        if not fresh:
            del self._until[task]
        return fresh


class RetryBudget:
    """Lets retries be a tenth of the calls at most, with some in reserve: a struggling server isn't hammered."""

    RATIO, RESERVE = 0.1, 10.0

    def __init__(self) -> None:
        self._left = self.RESERVE
        self.made = 0  # calls, since some were spent

    def spend(self, calls: int = 1) -> bool:
        """Whether so many calls may be tried once more."""
        self._left = min(self._left + self.made * self.RATIO, 10 * self.RESERVE)
        self.made = 0
        if self._left < calls:
            return False
        self._left -= calls
        return True
