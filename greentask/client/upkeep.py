"""What is done about a client's servers beside its calls: names are looked up again, and servers that failed tried."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import gevent

from .balance import Balance, Name, Target
from .names import Where, look_up

__all__ = ["Upkeep"]

_chance = random.SystemRandom()  # the program's own generator may have been seeded, and is its own
#: Seconds, about, for which a server that has too much to do gets no calls that others may have. It refuses at once,
#: and so has the fewest outstanding: without this, nearly all calls would go there first.
_FULL_FOR = 0.2


class Upkeep:
    """A part of its router, and of the home's thread. Nothing is done where nobody has called for a while."""

    def __init__(
        self,
        balance: Balance,
        *,
        resolve_after: float,
        idle_after: float,
        found: Callable[[Name, list[Where]], None],
        connect: Callable[[Target], object],
    ) -> None:
        #: Whether it is to be told of calls: not where there is one server, at an address.
        self.is_needed = bool(balance.names) or len(balance.targets) > 1
        self._balance = balance
        self._resolve_after = resolve_after
        self._idle_after = idle_after
        self._found = found
        self._connect = connect
        self._renew_at = 0.0 if balance.names else math.inf
        self._used_at = -math.inf
        self._full: dict[Target, float] = {}  # servers that have too much to do, and until when that is believed

    def called(self) -> None:
        """There is one more call."""
        self._used_at = time.monotonic()
        if self._used_at >= self._renew_at:
            self._renew_names()
        if self._full:
            self._look_at_full()

    def is_full(self, target: Target) -> None:
        """It has refused a call for having too many."""
        if self.is_needed:
            target.is_full = True
            self._full[target] = time.monotonic() + _chance.uniform(0.5, 1.5) * _FULL_FOR

    def _look_at_full(self) -> None:
        for target, until in list(self._full.items()):
            if until <= self._used_at:
                target.is_full = False
                del self._full[target]

    def rest(self) -> None:
        """Try no server before there is one more call."""
        self._used_at = -math.inf

    def probe_later(self, target: Target) -> None:
        """Try to connect to a server that failed, where that would bring it back, and not with somebody's call."""
        if len(self._balance.targets) > 1:
            gevent.spawn_later(max(0.0, target.retry_at - time.monotonic()), self._probe, target)

    def _probe(self, target: Target) -> None:
        is_used = time.monotonic() - self._used_at < self._idle_after
        if is_used and target.failures and target in self._balance.targets:
            self._connect(target)

    def _renew_names(self) -> None:
        """Ask for the addresses that nobody has asked for in a while; the first time is a link's business."""
        self._renew_at = self._used_at + self._resolve_after
        for name in self._balance.names:
            if -math.inf < name.asked_at <= self._used_at - self._resolve_after:
                name.asked_at = self._used_at
                gevent.spawn(self._renew, name)

    def _renew(self, name: Name) -> None:
        try:
            addresses = look_up(name.address)
        except (OSError, UnicodeError):
            return  # what was known is better than nothing
        self._found(name, addresses)
