"""One task process as its pool sees it: the channel to it, and the call that it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..hub.outlet import Outlet
from .calls import PoolCall
from .child import MORE
from .frames import FrameReader, Kind, encode_call, frame_header

__all__ = ["Process"]

_READ = 1  # the event loop's name for "readable"
_CHUNK = 256 * 1024


class Process:
    """Our end of a process's socket. Belongs to the hub whose ``loop`` it gets.

    ``idle`` is called when it can take a call (first when it is ready), ``lost`` once when its socket ended.
    """

    __slots__ = (
        "_fd",
        "_idle",
        "_lost",
        "_outlet",
        "_reader",
        "_watcher",
        "call",
        "doomed",
        "pid",
        "ready",
        "slot",
    )

    def __init__(
        self,
        loop: Any,
        slot: int,
        pid: int,
        fd: int,
        idle: Callable[[Process], None],
        lost: Callable[[Process], None],
    ) -> None:
        self.slot = slot
        self.pid = pid
        self.ready = False
        self.call: PoolCall | None = None
        self.doomed = False  # it is being killed
        self._fd = fd
        self._idle = idle
        self._lost = lost
        os.set_blocking(fd, False)
        self._outlet = Outlet(loop, fd, lambda _: None)  # the reader hears of the end as well
        self._reader = FrameReader()
        self._watcher = loop.io(fd, _READ)
        self._watcher.start(self._readable)

    def run(self, call: PoolCall) -> None:
        """Send it a call; it must have none."""
        self.call = call
        call.process = self
        self._outlet.write(*encode_call(call.token, call.frame))

    def grant(self, items: int) -> None:
        """Tell the running stream that its reader takes so many more items."""
        if self.call is not None:
            body = MORE.pack(items)
            self._outlet.write(frame_header(Kind.MORE, self.call.token, len(body)), body)

    def interrupt(self, reason: bytes) -> None:
        """Tell the running call to end; the process looks at its socket when it is nudged."""
        if self.call is not None:
            self._outlet.write(frame_header(Kind.INTERRUPT, self.call.token, len(reason)), reason)

    @property
    def is_behind(self) -> bool:
        """Whether it has not taken yet what was sent to it."""
        return self._outlet.unsent > 0

    def wait_until_sent(self) -> None:
        """Let other greenlets run until it has."""
        self._outlet.wait_below(0)

    def read_rest(self) -> None:
        """Take what a process that has exited left in its socket."""
        self._read(until_empty=True)

    def close(self) -> None:
        """Let go of the socket: a process that lives sees its end, and exits."""
        if self._fd >= 0:
            self._watcher.stop()
            self._watcher.close()
            self._outlet.close()
            os.close(self._fd)
            self._fd = -1

    def abandon(self) -> None:
        """In a forked child: drop our copy of the socket."""
        if self._fd >= 0:
            self._watcher.stop()
            self._outlet.abandon()
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        self._read(until_empty=False)

    def _read(self, *, until_empty: bool) -> None:
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._watcher.stop()
                self._lost(self)
                return
            try:
                frames = self._reader.feed(data)
            except ValueError:  # the task wrote into our socket
                self._watcher.stop()
                self._lost(self)
                return
            for kind, token, body in frames:
                self._take(kind, token, body)
            if not until_empty and len(data) < _CHUNK:
                return

    def _take(self, kind: Kind, token: int, body: bytes) -> None:
        if kind is Kind.READY:
            self.ready = True
            self._idle(self)
            return
        call = self.call
        if call is None or call.token != token:
            return  # about a call that has been answered already
        if kind is Kind.PROGRESS:
            call.tell(call.listener.progress, body)
        elif kind is Kind.ITEM:
            call.tell(call.listener.item, body)
        else:
            self.call = None
            call.finish(kind is Kind.RESULT, body)
            self._idle(self)
