"""How the answer of a pool's task becomes the result, or the error, of its future. All of it in the pool's home."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import gevent

from ..errors import CallError, Cancelled, PoolBroken, WorkerLost
from .frames import Body
from .future import PoolFuture
from .pickling import load_error, load_pieces

if TYPE_CHECKING:
    from .executor import Pool

__all__ = ["Receiver"]


class Receiver:
    """The ``Listener`` of a future."""

    __slots__ = ("_future", "_on_progress", "_pool")

    def __init__(self, pool: Pool, future: PoolFuture, on_progress: Callable[[dict[str, Any]], None] | None) -> None:
        self._pool = pool
        self._future = future
        self._on_progress = on_progress

    def is_wanted(self) -> bool:
        """A process is to get it: from now on it runs, unless it was cancelled just now."""
        if self._future.begins():
            return True
        self._pool._ended(self._future)
        self._future.tell_cancelled()
        return False

    def done(self, result: Body) -> None:
        if isinstance(result, bytes):
            self._load(pickle.loads, result)
        else:
            loading = gevent.spawn(self._load, _load_in_turns, result)
            loading.rawlink(self._has_loaded)

    def _load(self, load: Callable[[Any], Any], result: Body) -> None:
        try:
            value = load(result)
        except KeyboardInterrupt as error:
            self._pool._fail(self._future, error)
            raise  # it hit us by chance, and is the main greenlet's
        except BaseException as error:  # a SystemExit, too, is the task's, and must not end the I/O
            self._pool._fail(self._future, error)
        else:
            self._pool._ended(self._future)
            self._future.ended(value, None)

    def _has_loaded(self, _greenlet: object) -> None:
        if not self._future.done():  # a Ctrl-C may hit it anywhere, also where it has not begun
            self._pool._fail(self._future, WorkerLost("a Ctrl-C came as its result was read"))

    def failed(self, error: bytes) -> None:
        loaded = load_error(error)
        if isinstance(loaded, Cancelled) and self._future.is_stopped:
            loaded = CancelledError(str(loaded))
        self._pool._fail(self._future, loaded)

    def refuse(self, error: CallError) -> None:
        told: Exception = error
        if isinstance(error, WorkerLost) and error.started is False:
            told = PoolBroken(str(error))
        elif isinstance(error, Cancelled):
            told = CancelledError(str(error))
        self._pool._fail(self._future, told)

    def progress(self, report: bytes) -> None:
        if self._on_progress is not None:
            self._on_progress(pickle.loads(report))

    def item(self, item: bytes) -> None:
        raise AssertionError("nothing streams in a Pool")


def _load_in_turns(result: list[bytes]) -> Any:
    # Not sleep(0), of which gevent runs many in one turn of its loop, and the timers and sockets wait.
    return load_pieces(result, lambda: gevent.sleep(1e-6))
