"""What a router does about Ctrl-C, in the main thread's hub.

It ends the method or the callback that it hits, or takes its place before the first instruction, and goes on to the
main greenlet, which may catch it. Three habits see to it that the calls of the others still come to their ends:

- what ends is told before it is forgotten, and what was told may be told once more;
- a connection whose own greenlet was hit is given up, and its calls end as those of any connection that is lost;
- while there are calls, somebody looks every second (see ``hub.mending``) for what does not hold: a call is with a
  connection that lives, and was sent, or will be when that is open; or else it waits for a time, or for a server, that
  is still to come.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import ConnectionLost
from ..hub.mending import MENDED_EVERY
from .link import INTERRUPTED

if TYPE_CHECKING:
    from .router import Router
    from .sent import Sent

__all__ = ["mend"]


def mend(router: Router) -> bool:
    """Do what should have been done a while ago. Whether there are calls."""
    if not router._calls:
        return False
    late = time.monotonic() - MENDED_EVERY
    for link in list(router._links.all):
        link.mend()
        if link.greenlet is None:
            router.link_ended(link, INTERRUPTED)
    router._parked.mend(late)
    router._pacing.mend()
    for id, sent in list(router._calls.items()):
        # The end of another one may have been its end. What a signal handler came in the midst of, that waits for
        # a call of its own now, goes on afterwards: it would be sent twice, or fail and be sent.
        if router._calls.get(id) is sent and not sent.is_being_sent:
            _mend_call(router, id, sent, late)
    _count(router)
    return True


def _mend_call(router: Router, id: int, sent: Sent, late: float) -> None:
    link = sent.link
    if link is None:
        if id not in router._parked and id not in router._pacing and sent.due < late:
            router._send(id, sent)
    elif link not in router._links or (link.is_open and not sent.was_sent):
        router._end(id, sent, ConnectionLost(INTERRUPTED, sent=True))  # it may have left
    elif not link.is_open and id not in router._links.waiting.setdefault(link, []):
        router._links.waiting[link].append(id)


def _count(router: Router) -> None:
    for link in router._links.all:
        link.in_flight = link.target.outstanding = 0
    for sent in router._calls.values():
        if sent.link is not None:
            sent.link.in_flight += sent.size
    for link in router._links.all:
        link.target.outstanding += link.in_flight
