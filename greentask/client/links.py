"""The connections of a router: which one a server's next call goes over, and when another one is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .balance import Target
from .link import Link

__all__ = ["Links"]

#: Calls in flight on one connection from which on another one is opened, and how many there are to one server. A server
#: reads no further while a connection has max_in_flight (1,000) calls in flight: pings, cancellations and all.
_MANY_IN_FLIGHT, _MOST_LINKS = 500, 4


class Links:
    """A part of its router, which opens them (``make``), and of the home's thread."""

    def __init__(self, make: Callable[[Target], Link], made: Callable[[Link], None]) -> None:
        self.all: list[Link] = []
        self.waiting: dict[Link, list[int]] = {}  # calls for a link that is being opened
        self._make = make
        self._made = made

    def __contains__(self, link: Link) -> bool:
        return link in self.all

    def to(self, target: Target) -> Link:
        """The one that the next call goes over: that with the fewest in flight, or a new one."""
        best, stuck, count = None, None, 0
        for link in self.all:
            if link.target is target and link.greenlet is not None and not link.is_leaving:
                count += 1
                if link.unheard and link.is_stuck:
                    stuck = link
                elif best is None or link.in_flight < best.in_flight:
                    best = link
        if best is None and count == _MOST_LINKS:
            best = stuck
        if best is None or (best.in_flight >= _MANY_IN_FLIGHT and best.is_open and count < _MOST_LINKS):
            best = self._make(target)
            self.all.append(best)
            self.waiting[best] = []
            self._made(best)
        return best

    def drop(self, link: Link) -> None:
        """It has ended."""
        self.all = [one for one in self.all if one is not link]

    def leave(self, targets: Iterable[Target]) -> None:
        """These get no more calls; what is in flight there ends there."""
        for link in self.all:
            if link.target in targets:
                link.is_leaving = True

    def have_unsent(self) -> bool:
        """Whether something that was written has not left."""
        return any(link.unsent for link in self.all)

    def wait_sent(self) -> None:
        """Let other greenlets run until everything that was written has left."""
        for link in list(self.all):
            link.wait_sent()

    def close(self) -> None:
        """Let go of all of them."""
        links, self.all = self.all, []
        self.waiting.clear()
        for link in links:
            link.close()

    def abandon(self) -> None:
        """In a forked child: drop our copies of them, without a word to the servers."""
        for link in self.all:
            link.abandon()
        self.all = []
