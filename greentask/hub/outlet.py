"""Writing to a non-blocking descriptor from the hub: what is written in one turn of the loop leaves together."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from gevent.event import Event

__all__ = ["Outlet", "outlet_of"]

_MOST_PIECES = 256  # of one writev; the kernel's limit (IOV_MAX) is 1024
_WRITE = 2  # the event loop's name for "writable"
# For all that have nothing to write: an empty deque takes 760 bytes.
_NOTHING: deque[bytes | memoryview] = deque(maxlen=0)


class Outlet:
    """The one writer of a descriptor, which stays its owner's to close.

    Belongs to the thread of the hub whose ``loop`` it gets. ``failed`` is called once, from the loop, when the other
    end is gone; what was waiting is forgotten then.
    """

    __slots__ = (
        "_callback",
        "_closed",
        "_failed",
        "_fd",
        "_gone",
        "_loop",
        "_moved",
        "_pending",
        "_scheduled",
        "_watcher",
        "unsent",
        "written",
    )

    def __init__(self, loop: Any, fd: int, failed: Callable[[OSError], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._failed = failed
        self._pending = _NOTHING
        self._watcher = loop.io(fd, _WRITE)
        self._scheduled = False
        self._callback: Any = None  # that is to flush in this turn
        self._gone = 0  # bytes that have left, of the first of those that are pending
        self._closed = False
        self._moved: Event | None = None
        self.unsent = 0  # bytes
        self.written = 0  # bytes, since it was made

    def write(self, *pieces: bytes) -> None:
        """Send these pieces behind what is waiting already. Never blocks; does nothing once closed."""
        if len(pieces) > 1:
            pieces = tuple(piece for piece in pieces if piece)
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        if self._pending is _NOTHING:
            fresh: deque[bytes | memoryview] = deque()
            if self._pending is _NOTHING:  # still: a signal handler may have written
                self._pending = fresh
        # No call from here to where it is counted, at which a Ctrl-C or another handler could come: all of it is
        # written, and counted, or nothing.
        if self._closed:
            self._pending = _NOTHING
            return
        pending = self._pending
        pending += pieces
        self.unsent += size
        if not self._scheduled or not (self._callback.pending or self._watcher.active):
            self._schedule()

    def mend(self) -> None:
        """Do what a Ctrl-C may have taken the place of. Of no effect where it hasn't."""
        if self._pending and not self._closed:
            self._schedule()
        elif self._moved is not None:
            self._moved.set()

    def write_now(self, piece: bytes) -> None:
        """Send it at once, not at the end of the turn, where nothing is waiting: for a peer that is."""
        size = len(piece)
        writing = map(os.write, (self._fd,), (piece,))
        # No call from here to where it is counted, as the loop itself makes this one, in C: a signal handler that came
        # behind half a line could write its own there.
        if not (self._closed or self._scheduled):
            try:
                for written in writing:
                    self.written += written
                    if written < size:
                        self._pending = [piece, *self._pending]  # type: ignore[assignment]  # made without a call
                        self._gone = written
                        self.unsent += size - written
                        self._schedule()
                        self._have_deque()
                    return
            except OSError:  # that it would block, or an error of which the loop will hear as well
                pass
        self.write(piece)

    def wait_below(self, limit: int, timeout: float | None = None) -> bool:
        """Let other greenlets run until at most ``limit`` bytes are unsent; False after ``timeout`` seconds.

        True too once the outlet is closed.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self.unsent > limit:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self._moved is None:
                self._moved = Event()
            self._moved.clear()
            self._moved.wait(left)
        return True

    def close(self) -> None:
        """Stop writing and forget what is waiting."""
        if not self._closed:
            self._closed = True
            self._pending = _NOTHING
            self.unsent = self._gone = 0
            self._watcher.stop()
            self._watcher.close()
            self._failed = _ignore  # who made us often keeps us, too
            if self._moved is not None:
                self._moved.set()

    def abandon(self) -> None:
        """In a forked child: write nothing more, for the descriptor's number may soon be another file's."""
        self._closed = True
        self._pending = _NOTHING
        self.unsent = self._gone = 0
        self._watcher.stop()

    def _schedule(self) -> None:
        if not self._scheduled or not (self._callback.pending or self._watcher.active):
            self._callback = self._loop.run_callback(self._flush)
            self._scheduled = True

    def _have_deque(self) -> None:
        # So many may come to wait that a list, which moves them all whenever its first leaves, would be slow.
        fresh: deque[bytes | memoryview] = deque()
        fresh += self._pending  # and no call
        self._pending = fresh

    def _has_left(self, told: list[int]) -> None:
        written = told[0]
        # No call from here on, in which a Ctrl-C could come: what has left must not leave again.
        del told[0]
        self.unsent -= written
        self.written += written
        if not self.unsent:
            self._pending = _NOTHING
            self._gone = 0
            return
        self._gone += written
        self._forget_gone()

    def _forget_gone(self) -> None:
        # A Ctrl-C may come at the calls, between which there is always as much pending as has not left.
        pending = self._pending
        while self._gone:
            size = len(pending[0])
            if self._gone < size:
                rest = memoryview(pending[0])[self._gone :]
                pending[0] = rest
                self._gone = 0
            else:
                self._gone -= size
                del pending[0]

    def _flush(self) -> None:
        # While the watcher runs, _scheduled stays True: the watcher calls us as soon as it is of use.
        told: list[int] = []  # what a write has returned: put there in C, or a Ctrl-C could come in between
        try:
            if self._gone:  # a Ctrl-C came while it was forgotten
                self._forget_gone()
            while pending := self._pending:
                if len(pending) == 1:
                    told.extend(map(os.write, (self._fd,), (pending[0],)))
                else:
                    try:
                        pieces = list(islice(pending, _MOST_PIECES))
                    except RuntimeError:  # a signal handler has written in between
                        continue
                    told.extend(map(os.writev, (self._fd,), (pieces,)))
                self._has_left(told)
        except BlockingIOError:
            if not self._watcher.active:
                self._watcher.start(self._flush)
        except OSError as error:
            failed = self._failed
            self.close()
            failed(error)
            return
        except BaseException:  # a Ctrl-C that hit us by chance, and is the main greenlet's
            if told:
                self._has_left(told)
            self._callback = self._loop.run_callback(self._flush)
            raise
        else:
            self._scheduled = False
            if not self._pending:  # still: a signal handler may have written
                self._pending = _NOTHING
            if not self._closed:
                self._watcher.stop()
        if self._moved is not None:
            self._moved.set()


def _ignore(_error: OSError) -> None:
    pass


def outlet_of(sock: Any, loop: Any, failed: Callable[[OSError], None]) -> Outlet:
    """The outlet of a socket: its own, where it makes one (TLS)."""
    make: Callable[..., Outlet] | None = getattr(sock, "make_outlet", None)
    return Outlet(loop, sock.fileno(), failed) if make is None else make(loop, failed)
