"""Stopping at a signal: the first one lets what runs end, the second one doesn't wait for it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent

__all__ = ["stop_at_signals"]

logger = logging.getLogger(__name__)

#: Seconds in which a repeated signal is the same one: a Ctrl-C may come from the terminal and from a parent as well.
_SAME_SIGNAL = 0.5


@contextmanager
def stop_at_signals(stop: Callable[[float], object], drain: float) -> Iterator[None]:
    """While inside, SIGTERM and SIGINT call ``stop(drain)`` in a greenlet, and a second one ``stop(0)``.

    For the main thread. After it, Python's own handlers are there again: with gevent's gone, the kernel would end the
    program.
    """
    signalled_at: list[float] = []

    def signalled() -> None:
        now = time.monotonic()
        if not signalled_at:
            signalled_at.append(now)
            stop(drain)
        elif now - signalled_at[0] > _SAME_SIGNAL:
            logger.warning("a second signal: stopping now")
            stop(0.0)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    handlers = [gevent.signal_handler(number, signalled) for number in before]
    try:
        yield
    finally:
        for handler in handlers:
            handler.cancel()
        for number, own in before.items():
            if own is not None:  # None: one that Python does not know
                signal.signal(number, own)
