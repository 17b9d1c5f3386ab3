"""Looking at much of a queue, in a thread of its own, so that nobody waits for it who writes."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gevent import monkey

from ..errors import Overloaded, QueueError
from ..hub.future import HomeFuture
from ..hub.home import Home, allocate_lock
from .clock import Clock
from .schema import open_to_read
from .store import Store

__all__ = ["Reader"]

_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")

_MOST = 20  # looks that wait


class Reader:
    """For the hub of ``home``. The thread is there while somebody looks."""

    def __init__(self, home: Home, path: str, clock: Clock) -> None:
        self._home = home
        self._path = path
        self._clock = clock
        self._waiting: deque[tuple[Callable[[Store], Any], Future[Any]]] = deque()
        self._is_running = False
        self._lock = allocate_lock()  # guards the two above: between seeing that nobody waits and ending

    def look(self, look: Callable[[Store], Any]) -> Future[Any]:
        """What the function comes to. Raises ``Overloaded`` where many wait for an answer."""
        if len(self._waiting) >= _MOST:
            raise Overloaded(f"{_MOST} wait for a look at the queue already: try again later")
        future = HomeFuture(self._home)
        with self._lock:
            self._waiting.append((look, future))
            starts, self._is_running = not self._is_running, True
        if starts:
            try:
                _start_thread(self._run, ())
            except RuntimeError as error:  # there are too many threads
                with self._lock:
                    self._waiting.clear()
                    self._is_running = False
                raise Overloaded(f"nobody can look at the queue at the moment ({error}): try again later") from None
        return future

    def close(self) -> None:
        """Let nobody wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            self._home.post(future.set_exception, QueueError("the queue was closed"))

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    break
                look, future = self._waiting.popleft()
            try:
                db = db or open_to_read(self._path)
                store = Store(db, self._clock, 0.0)
                store.know_time()
                found = look(store)
            except Exception as error:
                told = QueueError(f"the queue's file can't be used: {error}") if _is_sqlites(error) else error
                self._home.post(future.set_exception, told)
            else:
                self._home.post(future.set_result, found)
        if db is not None:
            db.close()


def _is_sqlites(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error)
