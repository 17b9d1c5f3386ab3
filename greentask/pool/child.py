"""What runs in a task process: one call after another, read from the socket that its pool holds the other end of.

Everything happens in the process's main thread. A signal (SIGURG, which nobody uses and whose default is to be
ignored) only says "look at your socket": its handler reads the frame that tells what is meant, so an interruption that
comes too late for its call can't hit the next one. One that comes too early, or in the middle of a frame, is noted and
attended to as soon as the call runs and the frame is through.

Calls may be sent ahead of the one that runs. Before one is started, the answer of the one before it has left whole: of
the calls that a dead process left unanswered, only the first can have been started. Those that have not been started
are handed back when the pool asks; from then on they are the pool's.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections import deque
from types import FrameType
from typing import NoReturn, Protocol

from ..errors import CancelRequest, Interrupt, TimeLimit
from .cpus import processors
from .frames import (
    CHUNK,
    HEADER,
    LARGE,
    MOST_HEAD,
    MOST_MICROSECONDS,
    PROGRESS,
    Body,
    CallFrame,
    Kind,
    chunk_for,
    decode_call,
    frame_header,
    pack_tokens,
    size_of,
    whole,
)

__all__ = ["CANCELLED", "MORE", "NUDGE", "OUT_OF_TIME", "Handler", "Job", "serve"]

NUDGE = signal.SIGURG
MORE = struct.Struct("<I")

#: Reasons of an INTERRUPT frame.
OUT_OF_TIME, CANCELLED = b"t", b"c"

_MOST_PIECES = 256  # of one writev; the kernel's limit (IOV_MAX) is 1024
#: Seconds that a process looks for its next call before it sleeps: to be woken takes about as long.
_AWAKE = 0.0001
_HAS_COMPANY = processors() > 1  # on the only processor it would be in the others' way
_HERE = os.path.dirname(__file__)  # whose frames are of no interest to those who look at a task
_HEADER_SIZE, _unpack_header = HEADER.size, HEADER.unpack_from
_CALL, _RESULT, _ERROR = Kind.CALL, Kind.RESULT, Kind.ERROR


class Job:
    """One running call as its handler sees it: the call, and ways to report on it."""

    __slots__ = ("_channel", "_credit", "_token", "call")

    def __init__(self, call: CallFrame, token: int, channel: _Channel) -> None:
        self.call = call
        self._token = token
        self._channel = channel
        self._credit = call.window

    def take_payload(self) -> Body:
        """The call's payload, which is then the caller's alone: it is gone as soon as he lets it go."""
        payload, self.call.payload = self.call.payload, b""
        return payload

    @property
    def wants_progress(self) -> bool:
        """Whether the caller asked for progress reports."""
        return bool(self.call.flags & PROGRESS)

    def progress(self, report: bytes) -> None:
        """Send a progress report."""
        self._channel.send(Kind.PROGRESS, self._token, report)

    def item(self, item: bytes) -> None:
        """Send one item of a stream; waits while the reader has not granted any more."""
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


class Handler(Protocol):
    """What runs the calls of a process. Made in the template, before the processes are forked from it."""

    def prepare(self) -> None:
        """Called in each process before its first call. What it raises makes the process unfit, and is told."""

    def run(self, job: Job) -> tuple[bool, Body]:
        """Run one call: whether it ended well, and its result or its error, encoded. May raise ``Interrupt``."""

    def finish(self) -> None:
        """Called at the end of a process that the pool lets go, when it has no call any more. It limits itself."""

    def interrupted(self, interrupt: Interrupt) -> bytes:
        """The error, encoded, of a call that ended by an interrupt."""


class _Channel:
    """The process's end of the socket. Blocking; read by the main loop, or inside a call by the nudge's handler."""

    def __init__(self, fd: int) -> None:
        self.fd = _out_of_the_way(fd)
        self.running: tuple[int, Job] | None = None
        self.ahead: deque[tuple[int, Body]] = deque()  # calls that were read, and not started
        self.granted: dict[int, int] = {}  # items, to streams among them
        self._pid = os.getpid()
        self._readable = select.poll()
        self._readable.register(self.fd, select.POLLIN)
        self._stays_awake = False
        self._read = b""  # bytes that have been read, from _start on not taken yet
        self._start = 0
        self._busy = False  # with the socket: the nudge's handler must not touch it
        self._noted = False  # there was a nudge, perhaps not attended to yet

    # ---- Sending

    def send(self, kind: Kind, token: int, body: Body, microseconds: int = 0) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a child that the task forked came back out of the task: the channel is its parent's
        self._busy = True
        try:
            pieces = (body,) if isinstance(body, bytes) else body
            self._write(frame_header(kind, token, size_of(body), microseconds), *pieces)
        finally:
            self._busy = False
        if self._noted:
            self.catch_up()

    def _write(self, *pieces: bytes) -> None:
        try:
            written = os.writev(self.fd, pieces[:_MOST_PIECES])
            for piece in pieces:
                if written >= len(piece):
                    written -= len(piece)
                    continue
                rest = memoryview(piece)[written:]
                written = 0
                while rest:
                    rest = rest[os.write(self.fd, rest) :]
        except BaseException:
            # The pool is gone, or the task closed our socket, or a signal handler of its own raised, and nobody knows
            # how much of the frame has left.
            _leave(1)

    # ---- Reading

    def next_call(self) -> tuple[int, Body]:
        """The next call; waits for one."""
        while not self.ahead:
            kind, token, body = self._take_frame()
            if kind == _CALL:
                return token, body
            if kind == Kind.HAND_BACK:
                self._hand_back()
            elif kind == Kind.LOOK:
                self._look()
            # Whatever else there is, is about a call that has been answered.
        return self.ahead.popleft()

    def _take_frame(self) -> tuple[int, int, Body]:
        try:
            while len(self._read) - self._start < _HEADER_SIZE:
                self._fill()
            token, length, kind, _ = _unpack_header(self._read, self._start)
            body = self._start + _HEADER_SIZE
            end = body + length
            if length > LARGE and end > len(self._read):
                return kind, token, self._take_large(body, length)
            while end > len(self._read):
                self._fill()
                body = _HEADER_SIZE
                end = body + length
            self._start = end
            return kind, token, self._read[body:end]
        except EOFError:
            if self.running is None:
                raise
            _leave(0)
        except BaseException:
            _leave(1)  # as with _write

    def _fill(self) -> None:
        began = time.monotonic()
        if self._stays_awake:
            while not self._readable.poll(0) and time.monotonic() < began + _AWAKE:
                os.sched_yield()
        data = os.read(self.fd, CHUNK)
        # A caller who asks again as soon as he has his answer finds us awake. One who takes his time costs nothing.
        self._stays_awake = _HAS_COMPANY and time.monotonic() < began + _AWAKE
        if not data:
            raise EOFError
        rest = self._read[self._start :]
        self._read = rest + data if rest else data
        self._start = 0

    def _take_large(self, body: int, length: int) -> list[bytes]:
        """A body in pieces, of which the first has a call's head."""
        pieces = [self._read[body:]]
        self._read, self._start = b"", 0
        missing = length - len(pieces[0])
        chunk = chunk_for(length)
        while missing:
            data = os.read(self.fd, min(missing, chunk))
            if not data:
                raise EOFError
            missing -= len(data)
            if len(pieces[0]) < MOST_HEAD:
                pieces[0] += data
            else:
                pieces.append(data)
        return pieces

    def _has_more(self) -> bool:
        return self._start < len(self._read) or bool(self._readable.poll(0))

    # ---- While a call runs

    def wait(self, job: Job) -> None:
        """Wait until there are frames about the running call, and act on them."""
        self._busy = True  # from before the look at the credit: a nudge in between would take the grant we wait for
        try:
            if not job.may_send and self._start == len(self._read):
                self._readable.poll()
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
                if not self._has_more():
                    continue
                self._noted = True  # there may be another
                self._attend(self.running)
            finally:
                self._busy = False

    def _attend(self, running: tuple[int, Job]) -> None:
        kind, about, body = self._take_frame()
        token, job = running
        if kind == _CALL:
            self.ahead.append((about, body))
        elif kind == Kind.HAND_BACK:
            self._hand_back()
        elif kind == Kind.LOOK:
            self._look()
        elif kind == Kind.MORE:
            items = MORE.unpack(whole(body))[0]
            if about == token:
                job.grant(items)
            elif any(about == waits for waits, _ in self.ahead):
                self.granted[about] = self.granted.get(about, 0) + items
        elif kind == Kind.INTERRUPT and about == token:
            raise _interruption(whole(body))
        elif kind == Kind.INTERRUPT:
            kept = deque(call for call in self.ahead if call[0] != about)
            if len(kept) < len(self.ahead):
                self.ahead = kept
                self.granted.pop(about, None)
                self._write(frame_header(Kind.NOT_STARTED, about, len(body)), whole(body))

    def _hand_back(self) -> None:
        tokens = pack_tokens(token for token, _ in self.ahead)
        self.ahead.clear()
        self.granted.clear()
        self._write(frame_header(Kind.HANDED_BACK, 0, len(tokens)), tokens)

    def _look(self) -> None:
        """Tell the stacks of all threads, the main one's without what answers this."""
        told = []
        for thread, frame in sys._current_frames().items():
            is_main = thread == threading.main_thread().ident
            stack = [
                one
                for one in traceback.extract_stack(frame)
                if os.path.dirname(one.filename) != _HERE and one.filename != "<string>"
            ]
            heading = "main thread" if is_main else f"thread {thread}"
            told.append(f"{heading}:\n" + ("".join(traceback.format_list(stack)) or "  waits for a call\n"))
        text = "".join(told).encode("utf-8", "replace")
        self._write(frame_header(Kind.LOOKED, 0, len(text)), text)


def serve(fd: int, handler: Handler) -> NoReturn:
    """Run calls until the pool closes its end of the socket."""
    channel = _Channel(fd)
    signal.signal(NUDGE, channel.nudged)
    try:
        try:
            handler.prepare()
        except BaseException:
            channel.send(Kind.UNFIT, 0, traceback.format_exc().encode("utf-8", "replace"))
            _leave(1)
        channel.send(Kind.READY, 0, b"")
        while True:
            try:
                token, body = channel.next_call()
            except EOFError:
                break
            job = Job(decode_call(body), token, channel)
            if channel.granted:
                job.grant(channel.granted.pop(token, 0))
            del body  # the payload is the job's to let go of
            _run(channel, token, job, handler)
        handler.finish()
        _leave(0)
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
    call = job.call
    began = time.monotonic()
    if call.deadline is not None and began >= call.deadline:
        channel.send(Kind.NOT_STARTED, token, OUT_OF_TIME)
        return
    if call.limit is not None:
        until = began + call.limit
        call.deadline = until if call.deadline is None else min(call.deadline, until)
    try:
        try:
            channel.running = (token, job)
            if channel._noted:
                channel.catch_up()
            done, body = handler.run(job)
        finally:
            channel.running = None
    except Interrupt as interrupt:
        channel.running = None  # it may have hit us at the very end
        done, body = False, handler.interrupted(interrupt)
    ran = min(int((time.monotonic() - began) * 1e6), MOST_MICROSECONDS)
    _flush()  # before the answer: who has it may read what the task printed
    channel.send(_RESULT if done else _ERROR, token, body, ran)


def _leave(code: int) -> NoReturn:
    """End the process: there is no work left that it could do."""
    _flush()
    os._exit(code)


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        pass  # a task may have closed or replaced them


def _interruption(reason: bytes) -> Interrupt:
    return CancelRequest("cancelled") if reason == CANCELLED else TimeLimit("out of time")
