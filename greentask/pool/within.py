"""A time for what may hang in a process, in C as well."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import signal
from collections.abc import Callable, Iterator

__all__ = ["within"]


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """End this process where what is inside takes longer, even where it hangs in C; its stack goes to stderr.

    0: any time.
    """
    if not seconds:
        yield
        return
    stop: Callable[[], object] = faulthandler.cancel_dump_traceback_later
    try:
        faulthandler.dump_traceback_later(seconds, exit=True)
    except Exception:  # a task has closed stderr
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        stop = functools.partial(signal.setitimer, signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        stop()
