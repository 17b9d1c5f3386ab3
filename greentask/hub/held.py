"""Locks that the background thread must not wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .home import Home

__all__ = ["come_again", "may_take", "take_or_come_again"]

_MOMENT = 0.001  # seconds
_AGAIN = 1.0  # seconds after which it is called once more, where a Ctrl-C took the place of that


def take_or_come_again(lock: Any, home: Home, function: Callable[..., object], *args: Any) -> bool:
    """Acquire a lock that others hold for moments only; False where ``function`` is called later, in the home's thread.

    So it is where that thread would have to wait. The main thread may have been interrupted while it held the lock, by
    a signal handler that calls a task: it lets go of it when the answer is there, which the home has to bring.
    """
    if lock.acquire(False):
        return True
    if home.hub is None or not home.is_here():
        return bool(lock.acquire())
    come_again(home, function, *args)
    return False


def may_take(lock: Any, home: Home, function: Callable[..., object], *args: Any) -> bool:
    """Whether it may be acquired now; else ``function`` is called later, as above."""
    if home.is_interrupted():  # it is the main thread's, which may take it again; and a Ctrl-C would come in between
        return True
    if take_or_come_again(lock, home, function, *args):
        lock.release()
        return True
    return False


def come_again(home: Home, function: Callable[..., object], *args: Any) -> None:
    """Call it a moment later, in the home's thread."""
    if not home.is_here():
        home.post(function, *args)
        return
    timer = home.hub.loop.timer(_MOMENT, _AGAIN)
    timer.start(_come_again, timer, home, function, args)


def _come_again(timer: Any, home: Home, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        function(*args)
    except BaseException as error:
        if not (isinstance(error, KeyboardInterrupt) and home.is_interrupted()):
            timer.stop()
            timer.close()
        raise
    timer.stop()
    timer.close()
