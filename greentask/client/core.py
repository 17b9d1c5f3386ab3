"""What the clients of one connection's share: ids and the router, through forks and to the interpreter's end."""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from ..hub.bell import Bell
from ..hub.home import allocate_rlock, find_home
from ..wire.address import Address
from .balance import Balance
from .link import LinkOptions
from .router import Router

__all__ = ["Core"]

_CLOSED_WITHIN = 1.5  # seconds


class Core:
    """What a client and those made by its ``using`` share: the router, remade in a forked child.

    The lock guards against two threads making the router at once. A client that is forgotten without ``close`` leaves
    its router, which ends with the last of its calls.
    """

    def __init__(
        self,
        addresses: tuple[Address, ...],
        weights: tuple[float, ...] | None,
        options: LinkOptions,
    ) -> None:
        self._router: Router | None = None
        Balance(addresses, weights)  # or it raises
        self.max_line = options.max_line
        self._options = options
        self.addresses = addresses
        self._weights = weights
        self._lock = allocate_rlock()
        self.next_id: Callable[[], int] = itertools.count(1).__next__
        _cores.add(self)

    def router(self) -> Router:
        router = self._router
        if router is None or not router.home.is_usable():
            with self._lock:
                before, router = self._router, self._living()
                if router is None:
                    if before is not None and not before.home.is_ours():
                        before.abandon()
                    router = Router(find_home(), Balance(self.addresses, self._weights), self._options)
                    if self._router is before:  # else a signal handler has called meanwhile, in this same thread
                        self._router = router
                    else:
                        router = self.router()
        return router

    def _living(self) -> Router | None:
        """The router, if there is one that works. Not every fork is told to Python: uWSGI's is not."""
        router = self._router
        return None if router is None or not router.home.is_usable() else router

    def close(self) -> None:
        router = self._living()
        if router is not None and not router.home.is_deserted():
            closed = Bell()
            router.home.run(router.finish, closed)
            if not closed.wait(_CLOSED_WITHIN):
                router.home.run(router.close)

    def flush(self) -> Bell | None:
        """Send what is to be sent; the bell rings when it has left. None where nothing can be waiting."""
        router = self._living()
        if router is None or router.home.is_deserted():
            return None
        done = Bell()
        router.home.run(router.flush, done)
        return done

    def __del__(self) -> None:
        router = self._living()
        if router is not None and not sys.is_finalizing() and not router.home.is_deserted():
            router.home.post(router.leave)  # not here and now: garbage is collected anywhere

    def __deepcopy__(self, memo: dict[int, Any]) -> Core:
        return self  # copies of a client share it as well

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client's connections are those of its process, and can't be sent to another: make a client there, or "
            "let tasks be called on the default one (GREENTASK_URL, greentask.configure)"
        )

    def forked(self) -> None:
        self._lock = allocate_rlock()
        router, self._router = self._router, None
        if router is not None:
            router.abandon()


_cores: weakref.WeakSet[Core] = weakref.WeakSet()


def _after_fork() -> None:
    for core in list(_cores):
        core.forked()


def _at_exit() -> None:
    """What was submitted last is sent, too; its answer is nobody's any more."""
    bells = [core.flush() for core in list(_cores)]
    give_up = time.monotonic() + _CLOSED_WITHIN
    for bell in bells:
        if bell is not None:
            bell.wait(max(0.0, give_up - time.monotonic()))


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
