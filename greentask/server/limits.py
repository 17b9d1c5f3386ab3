"""What a server takes from its peers, and how much of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..wire.chain import MOST_STEPS
from ..wire.json import DEEPEST, MAX_DEPTH
from ..wire.text import DEFAULT_MAX_LINE

__all__ = ["DEFAULT_DRAIN", "DEFAULT_LISTEN", "DEFAULT_MAX_HOLD", "MAY_BE_0", "Limits"]

DEFAULT_LISTEN = "127.0.0.1:12345"
#: Seconds that calls in flight have for ending when a server stops, or a front is replaced.
DEFAULT_DRAIN = 30.0
#: Seconds that a task may hold up the loop before that is logged.
DEFAULT_MAX_HOLD = 0.5

#: Those that 0 turns off.
MAY_BE_0 = frozenset({"idle_timeout", "line_timeout", "max_connections_per_address", "stream_timeout"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep a server's memory independent of what its peers do.

    max_line
        Bytes of one line; a longer one is answered with ``LineTooLong``, and the connection is closed.
    max_depth
        How deeply arrays and objects may be nested in a line, which is ``InvalidMessage`` otherwise; at most 500, which
        is also the most in a result. (A call's arguments are two levels down in its line.)
    max_steps
        Steps that one line has follow a durable task, or one another; more are refused. They are looked at in one go.
    line_timeout
        Seconds that a line has for arriving, from its first byte on, and one more for each 64 KiB that have come of
        it; after that the connection is closed. Counted while the server is ready to read. 0: any time.
    idle_timeout
        Seconds after which a connection is closed on which no call is in flight and no byte moves. 0: never.
    dead_after
        Seconds without a sign of life after which a connection is given up whose peer's machine or network is gone.
        The peer's kernel answers for it: a program that is busy, stopped, or slow at reading is not meant.
    stream_timeout
        Seconds after which a stream is cancelled whose task waits for its reader: to grant more items, or to read what
        was sent. It takes up a call, and perhaps a task process. 0: never.
    max_connections
        Connections at once; further ones wait in the kernel's queue until one is closed. While some wait, those that
        have been idle for longest (10 seconds at least) are closed.
    max_connections_per_address
        Of these from one IPv4 address or IPv6 network (/64); a further one is closed at once. 0: any number, for
        behind a proxy, and on this machine, many peers share an address. Unix sockets have none.
    max_in_flight
        Calls in flight on one connection, and as many items of its batches that run; further ones wait. Where streams
        are among them, the grants that they wait for may come behind a further one, which is ``Overloaded``.
    max_calls
        Calls in flight in the whole server; further ones are refused with ``Overloaded``. As many items of batches
        run at once; further ones wait.
    max_unsent
        Bytes of answers that a peer has not read. From a quarter of it on none of its calls begins, its next lines and
        the items of its streams wait, and its progress reports are dropped. Results of calls that have begun may go
        past it, where the peer reads on (``read_timeout``). A larger result is ``InvalidResult``.
    read_timeout
        Seconds after which a peer is cut off that reads nothing while its calls wait for that, or that reads less than
        64 KiB a second while it has more than ``max_unsent`` to read.
    max_held
        Bytes that all connections together hold in memory, about; at least twice ``max_line`` and ``max_unsent``. Half
        of it is for lines (those over 2 KiB, with the values in them) whose calls are in flight: where they are more,
        further ones are refused (``Overloaded``). The other half is for unfinished lines and unread answers: where they
        are more, those connections are closed that hold more than the average.
    max_failures
        Failed proofs of a secret from one address (for IPv6, one /64 network; on a Unix socket, one user) in a minute;
        after so many in a row its connections are refused unheard, and one more attempt is allowed each 1/n minute.
    handshake_timeout
        Seconds that a connection has for proving who it is, where that is asked of it.
    """

    max_line: int = DEFAULT_MAX_LINE
    max_depth: int = MAX_DEPTH
    max_steps: int = MOST_STEPS
    line_timeout: float = 30.0
    idle_timeout: float = 0.0
    dead_after: float = 120.0
    stream_timeout: float = 3600.0
    max_connections: int = 10_000
    max_connections_per_address: int = 0
    max_in_flight: int = 1_000
    max_calls: int = 20_000
    max_unsent: int = 64 * 1024 * 1024
    read_timeout: float = 30.0
    max_held: int = 1024 * 1024 * 1024
    max_failures: int = 10
    handshake_timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name in MAY_BE_0 and value == 0:
                continue
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is in seconds above 0, not {value}")
        if self.max_depth > DEEPEST:
            raise ValueError(f"max_depth must be at most {DEEPEST}, which every parser survives, not {self.max_depth}")
        for name in ("max_line", "max_unsent"):
            if self.max_held < 2 * getattr(self, name):
                raise ValueError(f"max_held must be at least twice {name} ({getattr(self, name)}), not {self.max_held}")
