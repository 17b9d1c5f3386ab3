"""Many mails over a few connections to an SMTP relay."""

from __future__ import annotations

import itertools
import re
import smtplib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message

import gevent
from gevent.lock import BoundedSemaphore

from ..errors import ConfigurationError

__all__ = ["Delivery", "deliver"]

_TIMEOUT = 60.0  # seconds for one command of the relay
_RELAY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass
class Delivery:
    """What became of the mails: how many the relay accepted, and why it did not take the others."""

    sent: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def deliver(
    messages: Iterable[Message],
    relay: str = "127.0.0.1:25",
    *,
    connections: int = 20,
    on_sent: Callable[[int], None] | None = None,
) -> Delivery:
    """Hand mails to a relay (``host:port``, or ``host`` for SMTP's port 25).

    It is done over up to ``connections`` connections at once where the process is monkey-patched. ``on_sent`` is told
    after each mail how many are done. A mail that the relay refuses is in ``refused``, under its ``To``, and the others
    go on. None is sent twice: not even one whose connection broke, which may have arrived. Raises ``OSError`` where the
    relay can't be reached at all, ``ConfigurationError`` where it is no such address.
    """
    host, port = _place(relay)
    delivery = Delivery()
    waiting = iter(messages)
    first = next(waiting, None)
    if first is None:
        return delivery
    queue = itertools.chain([first], waiting)  # shared: each connection takes the next one
    one_at_a_time = BoundedSemaphore(1)
    done = itertools.count(1)

    def connect() -> smtplib.SMTP:
        return smtplib.SMTP(host, port, timeout=_TIMEOUT)

    def send(message: Message, connection: smtplib.SMTP) -> None:
        try:
            connection.send_message(message)
            delivery.sent += 1
        except Exception as error:  # of this mail: a refusal, a broken connection, an address that is none
            delivery.refused[str(message["To"])] = f"{type(error).__name__}: {error}"
        if on_sent is not None:
            on_sent(next(done))

    def run(connection: smtplib.SMTP | None) -> None:
        while True:
            if connection is None:
                try:
                    connection = connect()
                except (smtplib.SMTPException, OSError):
                    return  # the relay wants no more of them: those that it took go on
            with one_at_a_time:  # a generator that waits (for a database, say) can't be asked by two
                message = next(queue, None)
            if message is None:
                _quit(connection)
                return
            send(message, connection)
            if connection.sock is None:  # it broke, and smtplib has closed it
                connection = None

    try:
        opened = connect()
    except OSError as error:  # unreachable: said once, and not for every mail
        told = f"the relay {relay} can't be reached (port {port}): {error.strerror or error}"
        raise OSError(error.errno, told) from error
    runs = [gevent.spawn(run, opened), *(gevent.spawn(run, None) for _ in range(connections - 1))]
    try:
        gevent.joinall(runs, raise_error=True)
    finally:
        gevent.killall(runs)
    for message in queue:
        delivery.refused[str(message["To"])] = "no connection to the relay was left"
    return delivery


def _place(relay: str) -> tuple[str, int]:
    """The relay's host and port."""
    found = _RELAY.fullmatch(relay)
    port = smtplib.SMTP_PORT if found is None or found["port"] is None else int(found["port"])
    if found is None or not 0 < port <= 65535:
        raise ConfigurationError(
            f"{relay!r} is no relay: write host:port, or host for port {smtplib.SMTP_PORT}; [::1]:port for IPv6"
        )
    return found["v6"] or found["host"], port


def _quit(connection: smtplib.SMTP) -> None:
    try:
        connection.quit()
    except (smtplib.SMTPException, OSError):
        connection.close()
