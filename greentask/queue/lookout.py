"""Says who has a queue's lock where a server has waited for it for too long, and has no master that looks after it.

A master sees it from outside (``Stalls.look``). In the process itself nobody may open what SQLite has open: to close it
again would let go of SQLite's own locks. So here it is told by the thread that writes for how long it has waited, and
the kernel is asked who has the lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import gevent
from gevent.hub import get_hub

from .holders import TICK
from .stalls import Stalls, tell_of_holders

__all__ = ["look_out"]

_AGAIN = 0.2  # seconds between two looks: who has it at both doesn't write one small thing after another


def look_out(path: str, lease: float, waited: Callable[[], float]) -> None:
    """Say so for as long as the hub runs. ``waited``: for how many seconds the one who writes has waited."""
    stalls = Stalls(path, time.monotonic)
    next_step = lease  # when it is told; again when it has lasted for twice as long
    while True:
        gevent.sleep(TICK)
        seconds = waited()
        if seconds < lease:
            next_step = lease
        elif seconds >= next_step:
            next_step = 2 * seconds
            pids = set(get_hub().threadpool.apply(stalls.holders))
            gevent.sleep(_AGAIN)
            pids &= set(get_hub().threadpool.apply(stalls.holders)) - {os.getpid()}
            if waited() >= seconds:
                tell_of_holders(path, lease, sorted(pids))
