"""What runs in a task process: one call after another, read from the socket that its pool holds the other end of.

Everything happens in the process's main thread. A signal (SIGURG, which nobody uses and whose default is to be
ignored) only says "look at your socket": its handler reads the frame that tells which call is meant, so an
interruption that comes too late for its call can't hit the next one. One that comes too early, or in the middle of a
frame, is noted and attended to as soon as the call runs and the frame is through.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ..errors import CancelRequest, Interrupt, TimeLimit, ended_by, refusal
from ..wire.json import dumps
from .frames import HEADER, CallFrame, Flag, Kind, decode_call, frame_header

__all__ = ["MORE", "NUDGE", "Handler", "Job", "serve"]

NUDGE = signal.SIGURG
MORE = struct.Struct("<I")

#: Reasons of an INTERRUPT frame.
OUT_OF_TIME, CANCELLED = b"t", b"c"


class Job:
    """One running call as its handler sees it: the call, and ways to report on it."""

    __slots__ = ("_channel", "_credit", "_token", "call")

    def __init__(self, call: CallFrame, token: int, channel: _Channel) -> None:
        self.call = call
        self._token = token
        self._channel = channel
        self._credit = call.window

    @property
    def wants_progress(self) -> bool:
        """Whether the caller asked for progress reports."""
        return bool(self.call.flags & Flag.PROGRESS)

    def progress(self, report: bytes) -> None:
        """Send a progress report (JSON)."""
        self._channel.send(Kind.PROGRESS, self._token, report)

    def item(self, item: bytes) -> None:
        """Send one item of a stream (JSON); waits while the reader has not granted any more."""
        while self._credit <= 0:
            self._channel.wait(self)
        self._credit -= 1
        self._channel.send(Kind.ITEM, self._token, item)

    def grant(self, items: int) -> None:
        """The reader takes that many more."""
        self._credit += items

    @property
    def may_send(self) -> bool:
        """Whether the reader takes another item."""
        return self._credit > 0


#: Runs one call: returns whether it ended well, and the JSON of its result or of its error object.
Handler = Callable[[Job], tuple[bool, bytes]]


class _Channel:
    """The process's end of the socket. Blocking; read by the main loop, or inside a call by the nudge's handler."""

    def __init__(self, fd: int) -> None:
        self.fd = _out_of_the_way(fd)
        self._pid = os.getpid()
        self.running: tuple[int, Job] | None = None
        self._busy = False  # with the socket: the nudge's handler must not touch it
        self._noted = False  # there was a nudge, perhaps not attended to yet

    def send(self, kind: Kind, token: int, body: bytes) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a child that the task forked came back out of the task: the channel is its parent's
        pieces: list[bytes | memoryview] = [frame_header(kind, token, len(body)), body]
        self._busy = True
        try:
            while pieces:
                written = os.writev(self.fd, pieces)
                while pieces and written >= len(pieces[0]):
                    written -= len(pieces.pop(0))
                if written:
                    pieces[0] = memoryview(pieces[0])[written:]
        except BaseException:
            # The pool is gone, or the task closed our socket, or a signal handler of its own raised, and nobody knows
            # how much of the frame has left.
            _leave(1)
        finally:
            self._busy = False
        self.catch_up()

    def read_frame(self) -> tuple[Kind, int, bytes]:
        try:
            token, length, kind = HEADER.unpack(self._read(HEADER.size))
            return Kind(kind), token, self._read(length)
        except EOFError:
            _leave(0)
        except BaseException:
            _leave(1)  # as above

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        view, filled = memoryview(data), 0
        while filled < length:
            count = os.readv(self.fd, [view[filled:]])
            if count == 0:
                raise EOFError
            filled += count
        return bytes(data)

    def wait(self, job: Job) -> None:
        """Wait until there are frames about the running call, and act on them."""
        self._busy = True  # from before the look at the credit: a nudge in between would take the grant we wait for
        try:
            if not job.may_send:
                select.select([self.fd], [], [])
        finally:
            self._busy = False
        self._noted = True
        self.catch_up()

    def nudged(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal's handler."""
        self._noted = True
        self.catch_up()

    def catch_up(self) -> None:
        """Act on the frames that arrived while a call runs. Between calls, the main loop reads them."""
        while self._noted and not self._busy and self.running is not None:
            self._busy = True
            try:
                self._noted = False
                if not select.select([self.fd], [], [], 0)[0]:
                    continue
                self._noted = True  # there may be another
                kind, about, body = self.read_frame()
                token, job = self.running
                if about == token and kind is Kind.MORE:
                    job.grant(MORE.unpack(body)[0])
                if about == token and kind is Kind.INTERRUPT:
                    raise _interruption(body)
            finally:
                self._busy = False


def serve(fd: int, handler: Handler) -> NoReturn:
    """Run calls until the pool closes its end of the socket."""
    channel = _Channel(fd)
    signal.signal(NUDGE, channel.nudged)
    try:
        channel.send(Kind.READY, 0, b"")
        while True:
            kind, token, body = channel.read_frame()
            if kind is Kind.CALL:
                _run(channel, token, Job(decode_call(body), token, channel), handler)
    except BaseException:
        traceback.print_exc()
        _leave(1)


def _out_of_the_way(fd: int) -> int:
    """Move the descriptor up, where a task that closes or replaces low ones by number doesn't hit it."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 400)
    except OSError:  # the limit on descriptors is lower than that
        return fd
    os.close(fd)
    return moved


def _run(channel: _Channel, token: int, job: Job, handler: Handler) -> None:
    try:
        try:
            channel.running = (token, job)
            channel.catch_up()
            done, body = handler(job)
        finally:
            channel.running = None
    except Interrupt as interrupt:
        done, body = False, dumps(refusal(ended_by(interrupt)))
    channel.send(Kind.RESULT if done else Kind.ERROR, token, body)
    _flush()


def _leave(code: int) -> NoReturn:
    """End the process: there is no work left that it could do."""
    _flush()
    os._exit(code)


def _flush() -> None:
    with contextlib.suppress(Exception):  # a task may have closed or replaced them
        sys.stdout.flush()
        sys.stderr.flush()


def _interruption(reason: bytes) -> Interrupt:
    return CancelRequest("cancelled") if reason == CANCELLED else TimeLimit("out of time")
