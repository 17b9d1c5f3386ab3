"""What a server asks of its durable queue. It doesn't know what that is: the queue is made of parts like the server's.

All of it is called in the server's hub: ``enqueue`` in the greenlet that reads the connection, which may let others run
meanwhile. ``join`` and ``close`` wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..errors import QueueError
from ..pool.calls import Listener
from ..runner import Running
from ..wire.message import Call

if TYPE_CHECKING:
    from .server import Server

__all__ = ["QUEUE_FUNCTIONS", "Durable", "Pending", "queue_of"]

#: The server's own functions that are the queue's.
QUEUE_FUNCTIONS = frozenset(f"greentask.{name}" for name in ("enqueue", "result", "revoke", "compose", "queue"))


class Pending(Running, Protocol):
    """A call that waits for something to happen: nothing is lost where nobody hears of that."""

    waits: bool


class Durable(Protocol):
    """A queue, as its server sees it."""

    def start(self, server: Server) -> None:
        """Begin to run what is in it. Raises ``ConfigurationError``."""

    def enqueue(self, call: Call, text: bytes, answer: Listener, peer: str | None) -> None:
        """Keep what the call, which came as ``text`` from ``peer``, asks for; answer when it is on disk.

        The hooks are asked first. May raise ``CallError``.
        """

    def call(self, call: Call, answer: Listener, peer: str | None) -> Pending | None:
        """Run one of ``QUEUE_FUNCTIONS``. May raise ``CallError``."""

    def drain(self) -> None:
        """Begin nothing more."""

    def join(self, timeout: float) -> None:
        """Wait until what runs has ended."""

    def close(self) -> None:
        """End, and leave to others what has not ended."""

    def status(self) -> dict[str, Any]:
        """How it is."""

    def count(self, timeout: float) -> dict[str, Any]:
        """How many tasks are in which state, by a look at its file. Raises ``QueueError`` where there is none."""


def queue_of(server: Server) -> Durable:
    """The queue of a server. Raises ``QueueError`` where it has none."""
    if server.queue is None:
        raise QueueError("this server has no queue for durable tasks: start it with --queue FILE")
    return server.queue
