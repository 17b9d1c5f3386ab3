"""Ctrl-C at random moments, caught by the main greenlet, while others call. For programs that tests start."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from types import FrameType

import gevent
from gevent import Greenlet, monkey
from gevent.hub import Hub

__all__ = ["call_under_ctrl_c"]

_HANDING_ON = {Hub.handle_error.__code__, Hub.handle_system_error.__code__}
_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")


def call_under_ctrl_c(
    callers: int, call: Callable[[int, int], object], wait: Callable[[], object], *, seed: int, seconds: float
) -> dict[int, Greenlet]:
    """Have greenlets ``call(number, turn)``, again and again, for so many seconds in which the main one waits.

    Returns those that have not ended within 20 s after that, by their numbers. Errors of calls are nobody's business.
    """
    armed: list[bool] = []
    ended: list[str] = []
    came_back: list[int] = []

    def keep_calling(number: int) -> None:
        for turn in itertools.count(1):
            if ended:
                return
            try:
                call(number, turn)
                came_back.append(number)
            except Exception:
                pass  # a connection or a process was lost, say
            except KeyboardInterrupt:
                pass  # it came in this greenlet

    def interrupt() -> None:
        chance, until = random.Random(seed), time.monotonic() + seconds
        while time.monotonic() < until:
            _sleep(chance.uniform(0, 0.004))
            os.kill(os.getpid(), signal.SIGINT)
        ended.append("all")

    def on_ctrl_c(_: int, frame: FrameType | None) -> None:
        # Once in each turn of ours: else it could hit the few lines that catch it. Nor those in which gevent hands the
        # one before on to us, where it is printed, and lost.
        if armed and (frame is None or frame.f_code not in _HANDING_ON):
            armed.clear()
            raise KeyboardInterrupt

    def wait_until_ended() -> None:
        while not ended:
            armed[:] = [True]
            wait()

    Hub.NOT_ERROR += (KeyboardInterrupt,)  # else gevent says that it came, where it came in the hub
    signal.signal(signal.SIGINT, on_ctrl_c)
    greenlets = [gevent.spawn(keep_calling, number) for number in range(callers)]
    _start_thread(interrupt, ())
    while True:
        try:
            wait_until_ended()
            armed.clear()
            break
        except KeyboardInterrupt:
            pass
    while True:
        try:
            gevent.joinall(greenlets, timeout=20)
            break
        except KeyboardInterrupt:
            pass  # the last one, which came in the hub
    assert came_back, "no call has ever had an answer"
    return {number: greenlet for number, greenlet in enumerate(greenlets) if not greenlet.dead}
