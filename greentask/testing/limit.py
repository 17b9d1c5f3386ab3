"""Ending a task that runs in place when its time is up, where its surroundings let that be done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gevent import getcurrent, monkey
from gevent.hub import get_hub

from ..errors import TimeLimit

__all__ = ["time_limit"]


@contextmanager
def time_limit(deadline: float | None) -> Iterator[None]:
    """Raise ``TimeLimit`` in what is inside at ``deadline``, on ``time.monotonic()``.

    In a greenlet of a monkey-patched program that is gevent's doing; in the main thread of any other, a signal's
    (SIGURG, which nobody else minds). In another thread there is no way that reaches a thread which waits: what is
    inside runs to its end.
    """
    stop: Callable[[], None] | None = None
    if deadline is not None:
        if monkey.is_module_patched("time"):
            stop = _limit_greenlet(deadline)
        elif threading.current_thread() is threading.main_thread():
            stop = _limit_main_thread(deadline)
    try:
        yield
    finally:
        if stop is not None:
            stop()


def _limit_greenlet(deadline: float) -> Callable[[], None] | None:
    hub = get_hub()
    if getcurrent() is hub:
        return None
    timer = hub.loop.timer(max(0.0, deadline - time.monotonic()))
    timer.start(getcurrent().throw, TimeLimit("out of time"), update=True)

    def stop() -> None:
        timer.stop()
        timer.close()

    return stop


def _limit_main_thread(deadline: float) -> Callable[[], None]:
    """A thread that sleeps until then. (A timer of the system's would be one that pytest-timeout uses.)"""
    ended = threading.Event()
    main, greenlet, is_over = threading.get_ident(), getcurrent(), False

    def interrupt(*_: object) -> None:
        # In another greenlet it would hit somebody else.
        if not is_over and getcurrent() is greenlet and time.monotonic() >= deadline:
            raise TimeLimit("out of time")

    def wait() -> None:
        if not ended.wait(max(0.0, deadline - time.monotonic())):
            signal.pthread_kill(main, signal.SIGURG)

    before = signal.signal(signal.SIGURG, interrupt)
    waiting = threading.Thread(target=wait, name="greentask-time-limit", daemon=True)
    waiting.start()

    def stop() -> None:
        nonlocal is_over
        is_over = True
        ended.set()
        waiting.join()
        signal.signal(signal.SIGURG, before)

    return stop
