"""One task process as its pool sees it: the channel to it, and the calls that were sent to it."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from gevent import monkey

from ..hub.outlet import Outlet
from .calls import PoolCall
from .child import MORE
from .frames import Body, FrameReader, Kind, call_head, frame_header, unpack_tokens, whole

__all__ = ["Process", "ProcessEvents", "close_now"]

_RESULT, _ERROR = Kind.RESULT, Kind.ERROR
_READ = 1  # the event loop's name for "readable"
_SMALL = 4096  # bytes that are cheaper to copy than to write on their own

#: gevent's closes a descriptor when the loop goes round, which may be much later, and in a forked child never.
close_now: Callable[[int], None] = monkey.get_original("os", "close")


class ProcessEvents(Protocol):
    """What a process tells its pool, in the hub."""

    def process_ready(self, process: Process) -> None:
        """It takes calls from now on."""

    def process_unfit(self, process: Process, trace: str) -> None:
        """It could not be made ready; the traceback's text. It exits."""

    def process_answered(self, process: Process, call: PoolCall, seconds: float) -> None:
        """A call has been answered after it ran so long, and the listener was told."""

    def process_has_room(self, process: Process) -> None:
        """After one or more answers: it may take further calls."""

    def calls_handed_back(self, process: Process, calls: list[PoolCall]) -> None:
        """These were not started, and are to be the pool's again: ``forget`` them."""

    def call_not_started(self, call: PoolCall, reason: bytes) -> None:
        """It was ended before it began."""

    def process_lost(self, process: Process) -> None:
        """Its socket ended."""

    def process_missed(self, process: Process) -> None:
        """A Ctrl-C came as it was heard: what it said is lost, and nobody knows which of its calls have run."""


class Process:
    """Our end of a process's socket. Belongs to the hub whose ``loop`` it gets.

    ``calls`` are those that were sent and not answered, in that order: the first one runs, the rest are ahead of it.
    One whose answer is being told is ``taken`` out of them.
    """

    __slots__ = (
        "_events",
        "_fd",
        "_has_ended",
        "_outlet",
        "_reader",
        "_watcher",
        "asked_back",
        "born",
        "calls",
        "done",
        "doom",
        "heard",
        "is_nudged",
        "load",
        "lookers",
        "outdated",
        "pid",
        "ready",
        "retiring",
        "slot",
        "taken",
    )

    def __init__(self, loop: Any, slot: int, pid: int, fd: int, events: ProcessEvents) -> None:
        self.slot = slot
        self.pid = pid
        self.ready = False
        self.outdated = False  # it works until another one can take its place
        self.retiring = False  # it gets no more calls
        self.calls: deque[PoolCall] = deque()
        self.load = 0.0  # seconds that they are expected to run, all together
        self.done = 0  # calls that it has answered
        self.heard = 0.0  # when it last began or answered something, on the monotonic clock
        self.is_nudged = False  # it will be told to look at its socket, which has not happened yet
        self.asked_back = False  # the calls that it has not started
        self.doom: str | None = None  # why it is being killed
        self.born = time.monotonic()
        self.lookers: deque[Callable[[str], object]] = deque()  # who asked what it is doing
        self.taken: PoolCall | None = None
        self._events = events
        self._fd = fd
        self._has_ended = False  # nothing that it says is heard any more
        os.set_blocking(fd, False)
        self._outlet = Outlet(loop, fd, lambda _: None)  # the reader hears of the end as well
        self._reader = FrameReader()
        self._watcher = loop.io(fd, _READ)
        self._watcher.start(self._readable)

    @property
    def has_worked(self) -> bool:
        """Whether it has begun a call, or more."""
        return self.done > 0 or bool(self.calls)

    @property
    def is_heard(self) -> bool:
        """Whether it can say something still: its socket has not ended."""
        return not self._has_ended

    # ---- What is sent

    def send(self, call: PoolCall, estimate: float) -> None:
        """Send it a call, to be run behind those that it has."""
        head = call_head(call.token, call.name.encode(), call.size, call.deadline, call.limit, call.window, call.flags)
        is_idle = not self.calls
        if is_idle:
            self.heard = time.monotonic()
        self.calls.append(call)
        self.load += estimate
        call.estimate = estimate
        call.process = self
        payload = call.payload
        if not isinstance(payload, bytes):
            self._outlet.write(head, *payload)
        elif call.size > _SMALL:
            self._outlet.write(head, payload)
        elif is_idle:
            self._outlet.write_now(head + payload)
        else:
            self._outlet.write(head + payload)

    def grant(self, call: PoolCall, items: int) -> None:
        """Tell a stream that its reader takes so many more items."""
        body = MORE.pack(items)
        self._outlet.write(frame_header(Kind.MORE, call.token, len(body)), body)

    def interrupt(self, call: PoolCall, reason: bytes) -> None:
        """Tell a call to end; the process looks at its socket when it is nudged."""
        self._outlet.write(frame_header(Kind.INTERRUPT, call.token, len(reason)), reason)

    def look(self, told: Callable[[str], object]) -> None:
        """Ask what it is doing; it looks at its socket when it is nudged."""
        self.lookers.append(told)
        self._outlet.write(frame_header(Kind.LOOK, 0, 0))

    def ask_back(self) -> None:
        """Ask for the calls that it has not started; the process looks at its socket when it is nudged."""
        self.asked_back = True
        self._outlet.write(frame_header(Kind.HAND_BACK, 0, 0))

    @property
    def is_behind(self) -> bool:
        """Whether it has not taken yet what was sent to it."""
        return self._outlet.unsent > 0

    def wait_until_sent(self) -> None:
        """Let other greenlets run until it has."""
        self._outlet.wait_below(0)

    # ---- Its end

    def read_rest(self) -> None:
        """Take what a process that has exited left in its socket."""
        if not self._has_ended:
            self._read(until_empty=True)

    def give_up(self) -> list[PoolCall]:
        """Hear it no more; the calls of which nobody knows whether they have run."""
        self._stop_reading()
        return [*self.calls] if self.taken is None else [self.taken, *self.calls]

    def mend(self) -> None:
        """Do what a Ctrl-C may have taken the place of. Of no effect where it hasn't."""
        if self._fd >= 0 and not self._has_ended:
            self._outlet.mend()
            if not self._watcher.active:  # gevent has stopped it
                self._watcher.start(self._readable)

    def close(self) -> None:
        """Let go of the socket: a process that lives sees its end, and exits."""
        if self._fd >= 0:
            self._watcher.stop()
            self._watcher.close()
            self._outlet.close()
            fd, self._fd = self._fd, -1  # not after that: a Ctrl-C would have it closed twice, and be another's by then
            close_now(fd)

    def abandon(self) -> None:
        """In a forked child: drop our copy of the socket."""
        if self._fd >= 0:
            self._watcher.stop()
            self._outlet.abandon()
            close_now(self._fd)
            self._fd = -1

    # ---- What it says

    def _readable(self) -> None:
        try:
            self._read(until_empty=False)
        except BaseException:  # a Ctrl-C that hit us by chance, and is the main greenlet's
            self._events.process_missed(self)
            raise

    def _stop_reading(self) -> None:
        self._has_ended = True
        self._watcher.stop()

    def _read(self, *, until_empty: bool) -> None:
        while self._fd >= 0:
            size = self._reader.chunk
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._stop_reading()
                self._events.process_lost(self)
                return
            try:
                frames = self._reader.feed(data)
            except ValueError:  # the task wrote into our socket
                self._stop_reading()
                self._events.process_lost(self)
                return
            if frames:
                answered = self.done
                for kind, token, body, microseconds in frames:
                    self._take(kind, token, body, microseconds)
                if self.done != answered:
                    self.heard = time.monotonic()
                    self._events.process_has_room(self)
            if not until_empty and len(data) < size:
                return

    def _take(self, kind: Kind, token: int, body: Body, microseconds: int) -> None:
        if kind is _RESULT or kind is _ERROR:
            call = self._remove(token)
            if call is not None:
                self.done += 1
                call.finish(kind is _RESULT, body)
                self.taken = None
                self._events.process_answered(self, call, microseconds / 1e6)
        else:
            self._take_other(kind, token, whole(body))

    def _take_other(self, kind: Kind, token: int, body: bytes) -> None:
        if kind is Kind.READY:
            self.ready = True
            self._events.process_ready(self)
        elif kind is Kind.HANDED_BACK:
            self.asked_back = False
            tokens = {*unpack_tokens(body)}
            self._events.calls_handed_back(self, [call for call in self.calls if call.token in tokens])
        elif kind is Kind.NOT_STARTED:
            call = self._remove(token)
            if call is not None:
                self.done += 1
                self._events.call_not_started(call, body)
                self.taken = None
        elif kind is Kind.LOOKED:
            if self.lookers:
                self.lookers.popleft()(body.decode("utf-8", "replace"))
        elif kind is Kind.UNFIT:
            self._events.process_unfit(self, body.decode("utf-8", "replace"))
        elif self.calls and self.calls[0].token == token:
            listener = self.calls[0].listener
            self.calls[0].tell(listener.progress if kind is Kind.PROGRESS else listener.item, body)

    def forget(self, calls: Iterable[PoolCall]) -> None:
        """It hasn't got these any more."""
        for call in calls:
            self._remove(call.token)
        self.taken = None

    def _remove(self, token: int) -> PoolCall | None:
        # No call in which a Ctrl-C could come takes one out before it is known which: see ``give_up``.
        calls = self.calls
        if calls and calls[0].token == token:
            call = self.taken = calls[0]
            del calls[0]
        else:
            for call in calls:
                if call.token == token:
                    self.taken = call
                    calls.remove(call)
                    break
            else:
                return None
        call.process = None
        self.load = self.load - call.estimate if calls else 0.0
        return call
