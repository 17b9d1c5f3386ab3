"""One connection to a server: opened, read, watched and closed. Which calls go over it is the router's business."""

from __future__ import annotations

import os
import re
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent import getcurrent
from gevent.socket import socket as GreenSocket

from ..errors import InvalidMessage, InvalidResult, LineTooLong, Unauthenticated
from ..hub.home import Home
from ..hub.input import wait_for_input
from ..hub.outlet import Outlet, outlet_of
from ..wire.message import Call, encode_call
from ..wire.proof import Secrets
from ..wire.reply import Reply, decode_reply
from ..wire.text import LineSplitter
from .balance import Name, Target
from .large import LARGE_ANSWER, LargeAnswers
from .life import Life
from .names import Where, look_up
from .opening import open_socket
from .proving import prove

if TYPE_CHECKING:
    from ssl import SSLContext

    from ..hub.tls import TLSSocket

__all__ = ["INTERRUPTED", "PING_ID", "UNTRUSTED", "Link", "LinkEvents", "LinkOptions"]

#: Why a connection ends whose greenlet was hit by a Ctrl-C.
INTERRUPTED = "the client's own greenlet was killed"
#: What is said at the end where a server's certificate is not taken.
UNTRUSTED = "; tls_ca= (--tls-ca) names the authority whose certificates are trusted"

_UNANSWERED = "before it answered"
_IN_MIDDLE = (
    "in the middle of an answer: it died, or its log says that this program did not read (read_timeout, max_unsent); "
    "then let its hub run, or have fewer large answers on their way at once"
)
_TOO_LONG = "the answer is longer than max_line ({} bytes): return less at once, or raise it (Client(max_line=…))"
# What a line about a call begins with: the call, the item of a batch, and what it says.
_ANSWER = re.compile(rb'\{ ?"id": ?(\d{1,20}), ?(?:"index": ?(\d{1,20}), ?)?"(result|error|progress|item)":')

_CHUNK = 64 * 1024  # more would be memory that is mapped anew for each read
_LINES_AT_ONCE = 200  # then others get their turn
#: The id of what asks for a sign of life.
PING_ID = "ping"
_PING = encode_call(Call("greentask.ping", None, PING_ID))
#: What the ids of cancellations begin with.
_CANCEL_ID = "cancel-"
_STUCK_AFTER = 0.25  # seconds without an answer to one


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How a client's connections are made and watched; times in seconds."""

    connect_timeout: float
    max_line: int
    dead_after: float
    idle_after: float
    gone_after: float
    resolve_after: float
    secrets: Callable[[], Secrets] | None = None
    tls: Callable[[], SSLContext] | None = None


class LinkEvents(Protocol):
    """What a link tells its router, in the home's thread."""

    def link_found(self, link: Link, addresses: list[Where]) -> bool:
        """Its target's name has these now. False where the target's own isn't among them: the link ends, untold."""

    def link_opened(self, link: Link) -> None:
        """It can be written to."""

    def link_heard(self, link: Link, reply: Reply) -> None:
        """A line has come."""

    def link_ended(self, link: Link, why: str | Unauthenticated) -> None:
        """It could not be opened, or is closed. Told once, and not where ``close`` was called."""


class Link:
    """Belongs to its home's thread; no method blocks. A greenlet of its own opens it at once, and reads it."""

    def __init__(self, home: Home, target: Target, options: LinkOptions, events: LinkEvents) -> None:
        self.target = target
        self.in_flight = 0  # calls that were given to it, and have not ended
        self.is_leaving = False  # its server goes away: it gets no more calls
        self.unheard = 0  # cancellations that its server has not answered
        self.complaint: str | None = None  # an error about the connection and not about a call
        self._home = home
        self._options = options
        self._events = events
        self._socket: GreenSocket | TLSSocket | None = None
        self._outlet: Outlet | None = None
        self._large = LargeAnswers(options.max_line, self._hear, self._cannot_read)
        self._watch: Any = None  # the timer that looks for signs of life
        self._life = Life(options.dead_after, options.idle_after)
        self._unheard_since = 0.0
        #: That reads it. None when it can't be, or no longer be, opened and used.
        self.greenlet: gevent.Greenlet[..., Any] | None = gevent.spawn(self._live)
        self.greenlet.rawlink(self._died)

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._outlet is not None

    @property
    def unsent(self) -> int:
        """Bytes that were written and have not left."""
        return 0 if self._outlet is None else self._outlet.unsent

    def write(self, data: bytes) -> bool:
        """Send lines, at once where there is one call, else what is written in one turn together; False unless open."""
        outlet = self._outlet
        if outlet is None:
            return False
        if self.in_flight == 1:
            outlet.write_now(data)
        else:
            outlet.write(data)
        return True

    def cancel(self, id: int) -> None:
        """Cancel a call that was sent."""
        if not self.unheard:
            self._unheard_since = time.monotonic()
        self.unheard += 1
        self.write(encode_call(Call("greentask.cancel", {"id": id}, f"{_CANCEL_ID}{id}")))

    def heard_other(self, id: object) -> bool:
        """An answer to what was no call of a caller's has come; False where it is to nothing that we sent."""
        if isinstance(id, str) and id.startswith(_CANCEL_ID):
            self.unheard = max(0, self.unheard - 1)
            self._unheard_since = time.monotonic()
            return True
        return id == PING_ID

    @property
    def is_stuck(self) -> bool:
        """Whether its server reads no further for now: it answers a cancellation at once."""
        return self.unheard > 0 and time.monotonic() - self._unheard_since > _STUCK_AFTER

    def ask(self) -> None:
        """Ask for a sign of life."""
        self.write(_PING)

    def wait_sent(self) -> None:
        """Let other greenlets run until everything has left."""
        if self._outlet is not None:
            self._outlet.wait_below(0)

    def close(self) -> None:
        """Let go of the connection."""
        self.greenlet = None
        if self._watch is not None:
            self._watch.stop()
            self._watch.close()
            self._watch = None
        if self._outlet is not None:
            self._outlet.close()
            self._outlet = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def mend(self) -> None:
        """Do what a Ctrl-C may have taken the place of. Of no effect where it hasn't."""
        greenlet = self.greenlet
        if greenlet is not None and greenlet.dead:
            self._died(greenlet)
        elif self._outlet is not None:
            self._outlet.mend()
            self._large.mend()
            if self._life.is_late(time.monotonic()):
                self._look_for_life()

    def abandon(self) -> None:
        """In a forked child: drop our copy of the connection, without a word to the server."""
        if self._home.is_here():
            self.close()
        elif self._socket is not None:  # the home's thread, and the hub that the socket belongs to, are not here
            raw: Any = getattr(self._socket, "raw", self._socket)  # of TLS
            with suppress(OSError):  # it is closed, before the next address is tried
                os.close(raw._sock.detach())
            self._socket = None

    # ---- Its life

    def _live(self) -> None:
        why: str | Unauthenticated = INTERRUPTED
        try:
            why = self._open_and_read()
        finally:
            self._end(why)

    def _died(self, _greenlet: object) -> None:
        """A Ctrl-C may hit the greenlet anywhere, also where it has not begun, or is about to tell of its end."""
        self.close()
        self._events.link_ended(self, INTERRUPTED)  # of no effect where it was told before

    def _end(self, why: str | Unauthenticated) -> None:
        if self.greenlet is not None:
            self.close()
            self._events.link_ended(self, why)

    def _open_and_read(self) -> str | Unauthenticated:
        target, options = self.target, self._options
        rest = b""
        sock = None
        try:
            if target.name is not None and not self._is_its_address(target.name):
                return ""
            sock = open_socket(target, options.connect_timeout, options.tls, self._hold)
            if options.secrets is not None:
                rest = prove(sock, options.secrets(), options.connect_timeout)
        except (OSError, UnicodeError, Unauthenticated) as error:  # a UnicodeError: no name can be like that
            if sock is not None:
                sock.close()
            if isinstance(error, Unauthenticated):
                return Unauthenticated(f"no call was sent to {target}: {error}")
            told = f"can't connect to {target}: {getattr(error, 'strerror', None) or error}"
            return told + UNTRUSTED if hasattr(error, "verify_code") else told  # an SSLCertVerificationError
        if self.greenlet is not getcurrent():  # it was closed meanwhile
            sock.close()
            return ""
        self._begin(sock)
        why: str | Unauthenticated
        try:
            left = self._read(sock, rest)
            why = self.complaint or f"{target} closed the connection {_IN_MIDDLE if left else _UNANSWERED}"
        except Unauthenticated as error:
            why = error
        except OSError as error:
            why = f"the connection to {target} was lost: {error.strerror or error}"
        except InvalidMessage as error:
            why = self.complaint or self._no_reply(error)
        self.is_leaving = self.is_leaving or self._large.is_busy
        self._large.wait()  # these have come
        return why

    def _is_its_address(self, name: Name) -> bool:
        """Ask for a name's addresses, if it is time, before one of them is used. False where the target's is gone."""
        now = time.monotonic()
        if self.target.where is not None and not name.is_due(now, self._options.resolve_after):
            return True
        name.asked_at = now
        try:
            found = look_up(name.address)
        except (OSError, UnicodeError):
            if self.target.where is None:
                raise
            return True  # what was known is better than nothing
        return self.greenlet is getcurrent() and self._events.link_found(self, found)

    def _hold(self, sock: GreenSocket) -> None:
        """From here on ``close`` closes it, and a forked child lets go of it."""
        if self.greenlet is not getcurrent():
            raise ConnectionAbortedError("the client was closed")
        self._socket = sock

    def _begin(self, sock: GreenSocket | TLSSocket) -> None:
        def failed(error: OSError) -> None:
            self._end(f"the connection to {self.target} was lost: {error.strerror or error}")

        loop = self._home.hub.loop
        self._socket = sock
        self._outlet = outlet_of(sock, loop, failed)
        now = time.monotonic()
        self._life.begin(now)
        self._look_after(self._life.look_at - now)
        self._events.link_opened(self)

    def _read(self, sock: GreenSocket | TLSSocket, first: bytes) -> int:
        """Read it to its end; how many bytes there are of a line that has none."""
        splitter, life = LineSplitter(self._options.max_line), self._life
        while data := first or sock.recv(_CHUNK):
            first = b""
            life.heard_at = time.monotonic()
            try:
                lines = splitter.feed(data)
            except LineTooLong as error:
                for text in error.lines:
                    self._hear(decode_reply(text))
                self._leave_out(error)
                first = self._skip_line(sock) if error.rest is None else error.rest
                continue
            for number, text in enumerate(lines, 1):
                reply = decode_reply(text) if len(text) <= LARGE_ANSWER else self._large.take(text)
                if reply is None:
                    continue
                if type(reply.id) is int:
                    self._events.link_heard(self, reply)
                else:
                    if self._large.is_busy and reply.id is None:  # about all calls that have not been answered
                        self._large.wait()
                    self._hear(reply)
                if number % _LINES_AT_ONCE == 0:
                    gevent.sleep(0)
            wait_for_input(sock)  # recv doesn't wait while there is something: the others must get their turn
        return splitter.pending

    def _leave_out(self, error: LineTooLong) -> None:
        """Fail the call whose answer is too long: the others go on. Raises the error where the line is no answer."""
        found = _ANSWER.match(error.begin)
        if found is None:
            raise error
        id, index, kind = int(found[1]), found[2], found[3]
        if kind != b"progress":
            told = {"type": InvalidResult.__name__, "message": _TOO_LONG.format(self._options.max_line)}
            self._events.link_heard(self, Reply(id, "error", told, None if index is None else int(index)))
        if kind == b"item":
            self.cancel(id)  # there may be more of them

    def _skip_line(self, sock: GreenSocket | TLSSocket) -> bytes:
        """Read on to the end of a line, and forget it; what has come behind it."""
        while data := sock.recv(_CHUNK):
            self._life.heard_at = time.monotonic()
            _, newline, rest = data.partition(b"\n")
            if newline:
                return rest
            wait_for_input(sock)
        return b""

    def _no_reply(self, error: object) -> str:
        return f"{self.target} sent what is no reply of a greentask server: {error}"

    def _cannot_read(self, error: InvalidMessage | None) -> None:
        self._end(INTERRUPTED if error is None else self._no_reply(error))

    def _hear(self, reply: Reply) -> None:
        if reply.id is None and reply.kind == "error":
            if reply.value.get("type") == Unauthenticated.__name__:
                raise Unauthenticated(f"{self.target}: {reply.value.get('message')}")
            self.complaint = f"{reply.value.get('type')}: {reply.value.get('message')}"
        self._events.link_heard(self, reply)

    def _look_for_life(self) -> None:
        """Ask after a server that is silent; give up one that doesn't answer, and a connection that nobody uses."""
        if self._outlet is None or self._socket is None:
            return
        (on_its_way,) = struct.unpack("i", ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))
        life, now = self._life, time.monotonic()
        how = life.look(
            now,
            is_busy=self.in_flight > 0,
            is_leaving=self.is_leaving,
            arrived=self._outlet.written - on_its_way,
            missing=self._outlet.unsent + on_its_way,
        )
        if how == "unused":
            self._end("")
        elif how == "dead":
            self._end(f"{self.target} gave no sign of life for {now - life.heard_at:.1f} s")
        else:
            if how == "silent":
                self.ask()
            self._look_after(life.look_at - now)

    def _look_after(self, seconds: float) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch.close()
        self._watch = self._home.hub.loop.timer(seconds, ref=False)
        self._watch.start(self._look_for_life, update=True)
