"""Waiting for a socket to have something to read."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.socket import socket as GreenSocket
from gevent.socket import wait

__all__ = ["wait_for_input"]


def wait_for_input(sock: Any) -> None:
    """Let others run until there is something to read, or (of what isn't just a socket) for a turn of the loop.

    Most often there is nothing yet where a reader comes back for more, and to ask costs less than to try. The watcher
    is the one that ``recv`` would wait with; what isn't just a socket may hold input that it knows nothing of.
    """
    watcher = getattr(sock, "_read_event", None) if type(sock) is GreenSocket else None
    if watcher is None:
        gevent.sleep(0)
    else:
        wait(watcher)
