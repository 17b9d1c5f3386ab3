"""Whether others are held up by what a server does for one peer."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from support.servers import RunningServer

__all__ = ["longest_hold"]


def longest_hold(server: RunningServer, work: Callable[[], object]) -> float:
    """How long another peer waited for an answer at most, while this went on: as a part of all that time.

    Which is the same on a busy machine: where others have to wait for the end of it, it is nearly 1.
    """
    slowest = 0.0
    with server.connect() as other, ThreadPoolExecutor(1) as executor:
        assert other.call("greentask.ping") == "pong"
        began = time.monotonic()
        working = executor.submit(work)
        while not working.done():
            asked = time.monotonic()
            assert other.call("greentask.ping") == "pong"
            slowest = max(slowest, time.monotonic() - asked)
        took = time.monotonic() - began
        working.result()
    print(f"held for {slowest:.3f} s of {took:.3f} s")
    return slowest / took
