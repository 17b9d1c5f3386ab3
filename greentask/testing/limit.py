"""Ending a task that runs in place when its time is up, where its surroundings let that be done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gevent import getcurrent, monkey
from gevent._hub_local import get_hub_if_exists  # the one way to ask without making a hub
from gevent.hub import get_hub

from ..errors import TimeLimit

__all__ = ["time_limit"]


@contextmanager
def time_limit(deadline: float | None) -> Iterator[None]:
    """Raise ``TimeLimit``, once, in what is inside at ``deadline``, on ``time.monotonic()``.

    Where it waits in gevent's way, that is gevent's doing; in the main thread of a program that isn't monkey-patched, a
    signal's (SIGURG, which nobody else minds). There is no way that reaches another thread in a wait of the system's:
    what is inside runs to its end.
    """
    stops: list[Callable[[], None]] = []
    claim = [True]  # of who raises it
    try:
        if deadline is not None:
            is_patched = monkey.is_module_patched("time")
            if is_patched or get_hub_if_exists() is not None:
                stops.append(_limit_greenlet(deadline, claim))
            if not is_patched and threading.current_thread() is threading.main_thread():
                _limit_main_thread(deadline, claim, stops)
        yield
    finally:
        try:
            claim.clear()  # where it is raised here, at the last moment, it was cleared by that
        finally:
            for stop in stops:
                stop()


def _interrupt(greenlet: Any, claim: list[bool]) -> None:
    """In the hub."""
    if claim:
        claim.clear()
        greenlet.throw(TimeLimit("out of time"))


def _limit_greenlet(deadline: float, claim: list[bool]) -> Callable[[], None]:
    timer = get_hub().loop.timer(max(0.0, deadline - time.monotonic()))
    timer.start(_interrupt, getcurrent(), claim, update=True)

    def stop() -> None:
        timer.stop()
        timer.close()

    return stop


def _limit_main_thread(deadline: float, claim: list[bool], stops: list[Callable[[], None]]) -> None:
    """A thread that sleeps until then. (A timer of the system's would be one that pytest-timeout uses.)"""
    begun, ended = threading.Event(), threading.Event()
    main, greenlet = threading.get_ident(), getcurrent()

    def interrupt(*_: object) -> None:
        if not claim or time.monotonic() < deadline:
            return
        if getcurrent() is greenlet:
            claim.clear()
            raise TimeLimit("out of time")
        hub = get_hub_if_exists()
        if hub is not None:  # it waits there, and what we have interrupted is not it
            hub.loop.run_callback(_interrupt, greenlet, claim)

    def wait() -> None:
        begun.wait()
        if not ended.wait(max(0.0, deadline - time.monotonic())):
            signal.pthread_kill(main, signal.SIGURG)

    before = signal.signal(signal.SIGURG, interrupt)
    waiting = threading.Thread(target=wait, name="greentask-time-limit", daemon=True)
    waiting.start()

    def stop() -> None:
        ended.set()
        begun.set()
        waiting.join()
        signal.signal(signal.SIGURG, before)

    stops.append(stop)
    begun.set()  # not before it is known how all of this is ended: the time may be up already
