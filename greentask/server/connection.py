"""One connection that carries lines: what arrives is read here, what leaves goes through its outlet."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent import monkey
from gevent.hub import get_hub
from gevent.socket import socket as GreenSocket

from ..errors import CallError, DeadlineExceeded, LineTooLong, Overloaded
from ..hub.input import wait_for_input
from ..hub.outlet import outlet_of
from ..wire.text import LineSplitter
from .backlog import Backlog
from .limits import Limits
from .origin import origin_of
from .silence import Silence, ask_after, on_its_way

if TYPE_CHECKING:
    from ..hub.tls import TLSSocket

__all__ = ["LineConnection"]

_poll: Callable[[], Any] = monkey.get_original("select", "poll")

_CHUNK = 64 * 1024
_A_TURN = 1e-9  # seconds; any time at all lets the loop turn
_FLUSHED_WITHIN = 30.0  # seconds that a peer has for reading the last answers, and more while it reads
_LINGERS = 2.0  # seconds that a peer has for finishing what nobody reads
_SIGN_OF_LIFE = b"\n"  # an empty line, which says nothing else
_LINE_RATE = 64 * 1024  # bytes a second; a long line may be so slow, and so may be who reads what is too much


class Owner(Protocol):
    """Who knows more about a connection than that it carries lines."""

    @property
    def held(self) -> int:
        """Bytes of answers that are not sent yet."""

    @property
    def is_full(self) -> bool:
        """Whether it reads no further for now, so that a peer's question for a sign of life isn't heard either."""

    def is_busy(self) -> bool:
        """Whether it has something to wait for, and isn't idle."""

    def went_idle(self) -> None:
        """Close it, and let the peer know."""


def _ignore(*_told: object) -> None:
    pass


class LineConnection:
    """A socket, its splitter and its outlet.

    One greenlet reads (``read``) and closes. Writing never waits; the outlet is the socket's only writer. Time passes
    for it where the acceptor says so (``grow_older``): a timer for each connection would cost more than it saves.
    """

    __slots__ = (
        "_backlog",
        "_ended",
        "_grew",
        "_has_much",
        "_heard",
        "_is_over",
        "_limits",
        "_line_age",
        "_moved",
        "_outlet",
        "_peer",
        "_reads",
        "_silence",
        "_socket",
        "_splitter",
        "_taken",
        "_unread_for",
        "_went_past",
        "bytes_read",
        "error",
        "fault",
        "gone",
        "idle",
        "is_patient",
        "lags",
        "on_break",
        "owner",
        "peer",
    )

    def __init__(
        self,
        sock: GreenSocket | TLSSocket,
        peer: Any,
        limits: Limits,
        grew: Callable[[int], object] = _ignore,
        went_past: Callable[[str, str], object] = _ignore,
    ) -> None:
        self.peer = _name(peer)
        self._peer = peer
        self.gone = False  # nobody reads any more what we write
        self.error: OSError | None = None  # by which it broke
        self.fault: CallError | None = None  # the peer's, for which nothing more is read
        self.on_break: Callable[[], object] | None = None  # called when it is found out that it is gone
        self.owner: Owner | None = None
        self.idle = 0.0  # seconds without a byte in either direction
        self.bytes_read = 0
        self.lags = False  # the peer may be behind
        self.is_patient = False  # past max_unsent the peer is cut off only where it doesn't read
        self._socket = sock
        self._limits = limits
        self._grew = grew  # told when it holds more
        self._went_past = went_past  # told of the limit for which it is closed or cut off, and of the peer's name
        self._splitter = LineSplitter(limits.max_line)
        self._ended = False  # nothing more can arrive
        self._has_much = False  # more has come than is read at once
        self._reads = False  # waiting for what the peer sends
        self._line_age = 0.0  # seconds that a line has not ended in, while it could have been read
        self._moved = 0  # bytes that had moved when it last grew older
        self._silence: Silence | None = None
        self._backlog: Backlog | None = None
        self._unread_for = 0.0  # seconds for which the peer has not read what it should have
        self._taken = 0  # bytes that it had taken at the last look at that
        self._heard = 0  # bytes that were written, of which the peer has all for sure
        self._is_over = False  # the last was said: what arrives now is forgotten
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask_after(sock, limits.dead_after)
        self._outlet = outlet_of(sock, get_hub().loop, self._failed)

    @property
    def origin(self) -> str:
        """What it shares with other connections of the same peer."""
        return origin_of(self._socket, self._peer)

    @property
    def remote(self) -> tuple[str, int]:
        """The peer's IP address and port; nothing and 0 for a unix socket."""
        return self._peer[:2] if isinstance(self._peer, tuple) else ("", 0)

    @property
    def local(self) -> str:
        """Our own address, named as the peer's, or a unix socket's path; empty once it is closed."""
        try:
            own = self._socket.getsockname()
        except OSError:
            return ""
        return _name(own) if isinstance(own, tuple) else str(own)

    @property
    def unsent(self) -> int:
        """Bytes of answers that the peer has not taken."""
        return self._outlet.unsent

    @property
    def bytes_written(self) -> int:
        """Bytes that the peer has taken."""
        return self._outlet.written

    @property
    def _arrived(self) -> int:
        """Bytes that have come to the peer's machine."""
        return self._outlet.written - on_its_way(self._socket)

    @property
    def pending(self) -> int:
        """Bytes of a line whose end has not come."""
        return self._splitter.pending

    @property
    def max_line(self) -> int:
        """Bytes that a line may have from now on."""
        return self._splitter.max_line

    @max_line.setter
    def max_line(self, most: int) -> None:
        self._splitter.max_line = most

    @property
    def is_behind(self) -> bool:
        """Whether the peer reads its answers too slowly."""
        return self._outlet.unsent > self._limits.max_unsent // 4

    def hold(self, begin: Callable[[], object]) -> None:
        """Call ``begin`` when the peer has caught up, or is gone."""
        if self._backlog is None:
            self._backlog = Backlog(self)
        self._backlog.add(begin)

    def read(self) -> list[bytes] | None:
        """The next lines (perhaps none yet); None at the end.

        That is where the peer has shut down its side, where the connection broke (``gone``), or after a line that was
        too long or took too long (``fault``).
        """
        self.wait_until_read()
        # Where more has arrived, reading doesn't wait, and a peer that never pauses would hold the hub. One that sends
        # much waits for a whole turn of the loop, which sleep(0) is not: or its lines were taken faster than they are
        # worked off, and its answers came in a heap.
        if self._has_much:
            gevent.sleep(_A_TURN)
        if self.fault is not None:
            return None
        self._reads = True
        try:
            if not self._has_much:
                wait_for_input(self._socket)
            data = self._socket.recv(_CHUNK)
        except OSError as error:
            if error.errno == errno.EBADF and not self.gone:
                return []  # end_reading has woken us, and what has arrived before comes with the next call
            self.abort(error)
            return None
        finally:
            self._reads = False
        if not data or self.fault is not None:
            self._ended = self.fault is None
            return None
        self.bytes_read += len(data)
        self._has_much = len(data) == _CHUNK
        if self._is_over:
            return []
        try:
            lines = self._splitter.feed(data)
        except LineTooLong as error:
            if self.max_line == self._limits.max_line:  # else who asks for a proof counts it
                self._tell_limit("max_line")
            self.fault = error.with_traceback(None)  # whose frames would keep us
            return list(error.lines)
        if lines:
            self._line_age = 0.0
        if self._splitter.pending > _CHUNK:
            self._grew(len(data))
        return lines

    def wait_until_read(self, part: int = 8) -> None:
        """Let other greenlets run until the peer has caught up, to a ``part`` of what it may have unread."""
        if self.is_behind:
            self._outlet.wait_below(self._limits.max_unsent // part)

    def flush(self, timeout: float | None = None) -> bool:
        """Let other greenlets run until the peer has taken everything; False if not within so many seconds."""
        return self._outlet.wait_below(0, timeout)

    def keep_empty_lines(self) -> None:
        """Let ``read`` return empty lines, too."""
        self._splitter.keeps_empty = True

    def send(self, *data: bytes) -> None:
        """Send behind what was sent before. Cuts a peer off that doesn't read."""
        if not self.gone:
            self._outlet.write(*data)
            if self._outlet.unsent > _CHUNK:
                self._check_unsent(sum(map(len, data)))

    def send_line(self, data: bytes) -> None:
        """``send`` of one piece: the same, and quicker."""
        if not self.gone:
            outlet = self._outlet
            outlet.write(data)
            if outlet.unsent > _CHUNK:
                self._check_unsent(len(data))

    def send_now(self, data: bytes) -> None:
        """The same, and at once where nothing else waits, not at the end of the loop's turn."""
        if not self.gone:
            self._outlet.write_now(data)
            if self._outlet.unsent > _CHUNK:
                self._check_unsent(len(data))

    def _check_unsent(self, added: int) -> None:
        self.grew(added)
        if self.is_behind:
            self.lags = True
            if self._outlet.unsent > self._limits.max_unsent and not self.is_patient:
                self.leave_unread()

    def leave_unread(self) -> None:
        """Cut the peer off, for it has more to read than it may."""
        self._cut_off("max_unsent", errno.ECONNABORTED, "it has not read what it was sent")

    def _cut_off(self, limit: str, number: int, why: str) -> None:
        self._tell_limit(limit)
        self.abort(ConnectionAbortedError(number, f"{why} ({limit})"))

    def _tell_limit(self, limit: str) -> None:
        if not self.gone:
            told, self._went_past = self._went_past, _ignore  # the first one it is
            told(limit, self.peer)

    def grew(self, size: int) -> None:
        """It holds so many bytes more, and is one that holds many."""
        self._grew(size)

    @property
    def held(self) -> int:
        """Bytes that are kept in memory for it."""
        return self._splitter.pending + self._outlet.unsent + (0 if self.owner is None else self.owner.held)

    @property
    def stuck(self) -> float:
        """For how many seconds a line has not ended, or nothing has moved."""
        return max(self._line_age, self.idle, self._unread_for)

    def give_way(self) -> None:
        """Hold nothing any more, for all connections together hold too much: a line is refused, answers are lost."""
        if self._splitter.pending < self.held - self._splitter.pending:
            self._cut_off("max_held", errno.ECONNABORTED, "it has not read what it was sent")
        else:
            # Not end_reading: whoever is just sending is to read what it is told, and not to get a reset.
            self._refuse_line(Overloaded("too much has come at once, from all connections (max_held): try again later"))

    def end_reading(self) -> None:
        """Make ``read`` come to its end, after what has arrived already, also where it waits for a peer to catch up."""
        if self.is_behind:
            gevent.spawn(self._catch_up)
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # the peer was faster

    def grow_older(self, seconds: float) -> bool:
        """Time has passed: end what is over a limit. True where that was a line that took too long."""
        self._look_for_life()
        if self.lags:
            self._look_at_reading(seconds)
        limits, moved = self._limits, self.bytes_read + self._outlet.written
        waits = self._reads or self.is_behind
        if moved == self._moved and self.owner is not None and self.owner.is_full:
            self.send(_SIGN_OF_LIFE)
        if moved != self._moved or not waits or (self.owner is not None and self.owner.is_busy()):
            self._moved = moved
            self.idle = 0.0
        else:
            self.idle += seconds
            if 0 < limits.idle_timeout < self.idle:
                self.end_idle("idle_timeout")
        if self.fault is not None:
            if self._reads:
                self.end_reading()  # it had to give way, and has sent nothing since
            return False
        if not self._reads:
            return False
        pending = self._splitter.pending
        self._line_age = self._line_age + seconds if pending else 0.0
        if not 0 < limits.line_timeout < self._line_age - pending / _LINE_RATE:
            return False
        self._refuse_line(
            DeadlineExceeded(
                f"a line did not end within {limits.line_timeout:g} s: send it at once, or raise line_timeout",
                started=False,
            )
        )
        self.end_reading()
        return True

    def _look_at_reading(self, seconds: float) -> None:
        """Cut off a peer that doesn't read, where its calls wait for that, or it has more to read than it may."""
        limits, taken = self._limits, self._arrived - self._taken
        self._taken += taken
        has_too_much = self._outlet.unsent > limits.max_unsent
        if not (has_too_much or self._backlog):
            self._unread_for = 0.0
            self.lags = self.is_behind
        elif taken > (seconds * _LINE_RATE if has_too_much else 0):
            self._unread_for = 0.0
        else:
            self._unread_for += seconds
            if self._unread_for >= limits.read_timeout:
                self._cut_off("read_timeout", errno.ECONNABORTED, "it has not read what it was sent")

    def _look_for_life(self) -> None:
        """Give up a peer that acknowledges nothing of what it was sent, for its machine or network is gone."""
        written = self._outlet.written
        if written == self._heard or self._socket.family == socket.AF_UNIX:
            return
        try:
            if self._silence is None:
                self._silence = Silence()
            silent = self._silence.of(self._socket, time.monotonic())
        except OSError:
            return  # it is closed
        if silent is None:
            self._heard, self._silence = written, None
        elif silent >= self._limits.dead_after:
            self._cut_off("dead_after", errno.ETIMEDOUT, f"no sign of life for {silent:.0f} s")

    def _refuse_line(self, fault: CallError) -> None:
        self.fault = fault
        self._splitter = LineSplitter(self._limits.max_line)  # what has come of it is nobody's any more

    def end_idle(self, limit: str) -> None:
        """Close a connection on which nothing happens, for a limit. What has arrived meanwhile is still read."""
        self.idle = 0.0
        self._tell_limit(limit)
        if self._outlet.unsent:
            self._cut_off(limit, errno.ECONNABORTED, "it reads nothing")
        elif self.owner is not None:
            self.owner.went_idle()
        else:
            self.end_reading()

    def has_input(self) -> bool:
        """Whether something has arrived that was not read, the peer's end among it."""
        if self.gone:
            return True
        decrypted: Callable[[], bool] | None = getattr(self._socket, "has_input", None)  # of TLS
        if decrypted is not None and decrypted():
            return True
        poll = _poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def end_with(self, last: bytes) -> None:
        """Send the last line, and close the connection once the peer has read it, or after a while."""
        if not (self._is_over or self.gone):
            self._is_over = True
            self._outlet.write(last)
            gevent.spawn(self._end)

    def _end(self) -> None:
        self._flush_to_who_reads()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer was faster
        gevent.spawn_later(_LINGERS, self.abort)

    def finish(self) -> None:
        """Wait until everything is sent, or the peer is gone or does not read."""
        if self.gone:
            return
        self._flush_to_who_reads()
        if not self._ended:
            # A socket that is closed before what has arrived was read resets the connection, and the peer might never
            # see its last answers. So tell it that they are the last, and forget what it sends until it stops.
            try:
                self._socket.shutdown(socket.SHUT_WR)
                gevent.with_timeout(_LINGERS, self._forget_the_rest, timeout_value=None)
            except OSError:
                pass  # the peer was faster

    def abort(self, error: OSError | None = None) -> None:
        """Give the peer up at once, for this error where it has none yet."""
        if not self.gone and error is not None:
            if error.errno == errno.ETIMEDOUT:
                self._tell_limit("dead_after")  # ours, or the kernel has asked for a sign of life
            self.error = error.with_traceback(None)  # whose frames would keep us
        self.gone = True
        self._outlet.close()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader
        except OSError:
            pass
        if self.on_break is not None:
            self.on_break()

    def close(self) -> None:
        """Let go of the socket, and of who hears of it. The reader calls it."""
        self.gone = True
        self._outlet.close()
        self._socket.close()
        self.on_break = self.owner = self._backlog = None  # else it would stay until the garbage collector comes along

    def _flush_to_who_reads(self) -> bool:
        """``flush`` for as long as it takes, where the peer reads; False where it doesn't."""
        arrived = self._arrived
        while not self.flush(_FLUSHED_WITHIN):
            before, arrived = arrived, self._arrived
            if arrived - before < _FLUSHED_WITHIN * _LINE_RATE:
                return False
        return True

    def _catch_up(self) -> None:
        if not self._flush_to_who_reads():
            self.abort(ConnectionAbortedError(errno.ECONNABORTED, "it has not read its last answers"))

    def _forget_the_rest(self) -> None:
        while self._socket.recv(_CHUNK):
            gevent.sleep(0)

    def _failed(self, error: OSError) -> None:
        self.abort(error)


def _name(peer: Any) -> str:
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix socket"
