"""What a router does about Ctrl-C, in the main thread's hub.

There a ``KeyboardInterrupt`` (or whatever else a signal handler raises) may come anywhere. It ends the method or the
callback that it hits, or takes its place before the first instruction, and goes on to the main greenlet, which may
catch it: then the calls of all other greenlets must still come to their ends. Three habits see to that:

- what ends is told before it is forgotten, and what was told may be told once more;
- a connection whose own greenlet was hit is given up, and its calls end as those of any connection that is lost;
- while there are calls, somebody looks every second for what has not been done. No flag or note says what that is, for
  a Ctrl-C may come before it is set. It is seen by what has to hold: a call is with a connection that lives, and was
  sent, or will be when that is open; or else it waits for a time, or for a server, that is still to come.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import ConnectionLost
from .link import INTERRUPTED

if TYPE_CHECKING:
    from .router import Router
    from .sent import Sent

__all__ = ["MENDED_EVERY", "Mending"]

MENDED_EVERY = 1.0  # seconds


class Mending:
    """A part of its router, to which it looks while there are calls."""

    def __init__(self, router: Router) -> None:
        self._router = router
        home = router.home
        self._timer: Any = home.hub.loop.timer(MENDED_EVERY, MENDED_EVERY) if home.is_interrupted() else None

    def begin(self) -> None:
        """There is a call."""
        timer = self._timer
        if timer is not None and not timer.active:
            timer.start(self.look)

    def end(self) -> None:
        """There are none, and there won't be any."""
        if self._timer is not None:
            self._timer.stop()

    def look(self) -> None:
        """Do what should have been done a while ago."""
        router, late = self._router, time.monotonic() - MENDED_EVERY
        if not router._calls:
            self.end()
            return
        for link in list(router._links.all):
            link.mend()
            if link.greenlet is None:
                router.link_ended(link, INTERRUPTED)
        router._parked.mend(late)
        router._pacing.mend()
        for id, sent in list(router._calls.items()):
            if router._calls.get(id) is sent:  # the end of another one may have been its end
                self._look_at(id, sent, late)
        self._count()

    def _look_at(self, id: int, sent: Sent, late: float) -> None:
        router, link = self._router, sent.link
        if link is None:
            if id not in router._parked and id not in router._pacing and sent.due < late:
                router._send(id, sent)
        elif link not in router._links or (link.is_open and not sent.was_sent):
            router._end(id, sent, ConnectionLost(INTERRUPTED, sent=True))  # it may have left
        elif not link.is_open and id not in router._links.waiting.setdefault(link, []):
            router._links.waiting[link].append(id)

    def _count(self) -> None:
        for link in self._router._links.all:
            link.in_flight = link.target.outstanding = 0
        for sent in self._router._calls.values():
            if sent.link is not None:
                sent.link.in_flight += sent.size
        for link in self._router._links.all:
            link.target.outstanding += link.in_flight
