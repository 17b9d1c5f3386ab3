"""What the clients of one connection's share: ids and the router, through forks and to the interpreter's end."""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

from ..hub.bell import Bell
from ..hub.home import allocate_rlock, find_home
from ..wire.address import Address
from .balance import Balance
from .link import LinkOptions
from .router import Router

__all__ = ["Core", "pointed_at"]

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
        *,
        is_default: bool = False,
    ) -> None:
        self._router: Router | None = None
        Balance(addresses, weights)  # or it raises
        self.max_line = options.max_line
        self._options = options
        self._addresses = addresses
        self._weights = weights
        self.is_default = is_default  # nobody has said where the server is
        self._pointed_at = _pointed_at if is_default else None
        self._lock = allocate_rlock()
        self.next_id: Callable[[], int] = itertools.count(1).__next__
        _cores.add(self)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it calls."""
        return self._pointed_at or self._addresses

    def point_at(self, addresses: tuple[Address, ...] | None) -> None:
        """Call that server from now on, without a proof; None: its own again."""
        with self._lock:
            router, self._router = self._living(), None
            self._pointed_at = addresses
        if router is not None and not router.home.is_deserted():
            router.home.post(router.leave)

    def router(self) -> Router:
        router = self._router
        if router is None or not router.home.is_usable():
            with self._lock:
                before, router = self._router, self._living()
                if router is None:
                    if before is not None and not before.home.is_ours():
                        before.abandon()
                    router = self._make_router()
                    if self._router is before:  # else a signal handler has called meanwhile, in this same thread
                        self._router = router
                    else:
                        router = self.router()
        return router

    def _make_router(self) -> Router:
        if self._pointed_at is None:
            return Router(find_home(), Balance(self._addresses, self._weights), self._options)
        return Router(find_home(), Balance(self._pointed_at, None), replace(self._options, secrets=None, tls=None))

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
_pointed_at: tuple[Address, ...] | None = None  # where those call that were given no address


@contextmanager
def pointed_at(addresses: tuple[Address, ...]) -> Iterator[None]:
    """While inside, all clients that were given no address call this server, however old they are."""
    global _pointed_at
    before = _pointed_at
    try:
        _point_all(addresses)
        yield
    finally:
        _point_all(before)


def _point_all(addresses: tuple[Address, ...] | None) -> None:
    global _pointed_at
    _pointed_at = addresses
    for core in list(_cores):
        if core.is_default:
            core.point_at(addresses)


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
