"""What runs in a task process: one call after another, read from the socket that its pool holds the other end of.

Everything happens in the process's main thread. A signal (SIGURG, which nobody uses and whose default is to be
ignored) only says "look at your socket": its handler reads the frame that tells which call is meant, so an
interruption that comes too late for its call can't hit the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ..errors import Cancelled, CancelRequest, Interrupt, TimeLimit, out_of_time, refusal
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
            self._credit += self._channel.wait_for_more(self._token)
        self._credit -= 1
        self._channel.send(Kind.ITEM, self._token, item)

    def grant(self, items: int) -> None:
        """The reader takes that many more."""
        self._credit += items


#: Runs one call: returns whether it ended well, and the JSON of its result or of its error object.
Handler = Callable[[Job], tuple[bool, bytes]]


class _Channel:
    """The process's end of the socket. Blocking; read by the main loop, or inside a call by the nudge's handler."""

    def __init__(self, fd: int) -> None:
        self.fd = _out_of_the_way(fd)
        self._pid = os.getpid()
        self.running: tuple[int, Job] | None = None
        self._reading = False

    def send(self, kind: Kind, token: int, body: bytes) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a child that the task forked came back out of the task: the channel is its parent's
        # A nudge between two partial writes may raise: the rest must still go out, or the stream is cut.
        pieces: list[bytes | memoryview] = [frame_header(kind, token, len(body)), body]
        interrupted: Interrupt | None = None
        while pieces:
            try:
                written = os.writev(self.fd, pieces)
            except Interrupt as interrupt:
                interrupted = interrupt
                continue
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if written:
                pieces[0] = memoryview(pieces[0])[written:]
        if interrupted is not None:
            raise interrupted

    def read_frame(self) -> tuple[Kind, int, bytes]:
        token, length, kind = HEADER.unpack(self._read(HEADER.size))
        return Kind(kind), token, self._read(length)

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        view, filled = memoryview(data), 0
        while filled < length:
            count = os.readv(self.fd, [view[filled:]])
            if count == 0:
                raise EOFError
            filled += count
        return bytes(data)

    def wait_for_more(self, token: int) -> int:
        """Wait for the reader's next grant of the running stream."""
        while True:
            self._reading = True
            try:
                kind, about, body = self.read_frame()
            finally:
                self._reading = False
            if about != token:
                continue
            if kind is Kind.MORE:
                return int(MORE.unpack(body)[0])
            if kind is Kind.INTERRUPT:
                raise _interruption(body)

    def nudged(self, _signal: int, _frame: FrameType | None) -> None:
        """Act on the frames that arrived while a call runs. Between calls, the main loop reads them."""
        while self.running is not None and not self._reading and select.select([self.fd], [], [], 0)[0]:
            kind, about, body = self.read_frame()
            token, job = self.running
            if about != token:
                continue
            if kind is Kind.MORE:
                job.grant(MORE.unpack(body)[0])
            elif kind is Kind.INTERRUPT:
                raise _interruption(body)


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
    except (EOFError, OSError):
        pass  # the pool is gone, or the task closed our socket: either way this process has no work left
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)


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
            done, body = handler(job)
        finally:
            channel.running = None
    except Interrupt as interrupt:
        done, body = False, _describe(interrupt)
    channel.send(Kind.RESULT if done else Kind.ERROR, token, body)
    with contextlib.suppress(Exception):  # a task may have closed or replaced them
        sys.stdout.flush()
        sys.stderr.flush()


def _interruption(reason: bytes) -> Interrupt:
    return CancelRequest("cancelled") if reason == CANCELLED else TimeLimit("out of time")


def _describe(interrupt: Interrupt) -> bytes:
    if isinstance(interrupt, CancelRequest):
        return dumps(refusal(Cancelled("cancelled while it ran", started=True)))
    return dumps(refusal(out_of_time(started=True)))
