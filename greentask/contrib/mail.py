"""Many mails over a few connections to an SMTP relay."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message

import gevent

__all__ = ["Delivery", "deliver"]

_TIMEOUT = 60.0  # seconds for one command of the relay


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
    """Hand mails to a relay, over up to ``connections`` connections at once where the process is monkey-patched.

    ``on_sent`` is told after each mail how many are done. A mail that the relay refuses is in ``refused``, under its
    ``To``, and the others go on. None is sent twice: not even one whose connection broke, which may have arrived.
    Raises ``OSError`` where the relay can't be reached at all.
    """
    host, _, port = relay.rpartition(":")
    delivery = Delivery()
    waiting = iter(messages)  # shared: each greenlet takes the next one
    first = next(waiting, None)
    if first is None:
        return delivery
    # Unreachable? Then say so once, and not for every mail.
    opened = smtplib.SMTP(host, int(port), timeout=_TIMEOUT)

    def run(relay: smtplib.SMTP, mine: Message | None = None) -> None:
        with _closing(relay):
            for message in _one_then(mine, waiting):
                try:
                    relay.send_message(message)
                    delivery.sent += 1
                except (smtplib.SMTPException, OSError) as error:
                    delivery.refused[str(message["To"])] = f"{type(error).__name__}: {error}"
                if on_sent is not None:
                    on_sent(delivery.sent + len(delivery.refused))
                if getattr(relay, "sock", None) is None:  # it broke, and smtplib has closed it
                    try:
                        relay.connect(host, int(port))
                    except (smtplib.SMTPException, OSError):
                        return

    def connect_and_run() -> None:
        try:
            another = smtplib.SMTP(host, int(port), timeout=_TIMEOUT)
        except (smtplib.SMTPException, OSError):
            return  # the relay wants no more of them: those that it took go on
        run(another)

    runs: list[gevent.Greenlet[..., None]] = [gevent.spawn(run, opened, first)]
    runs += [gevent.spawn(connect_and_run) for _ in range(connections - 1)]
    try:
        gevent.joinall(runs, raise_error=True)
    finally:
        gevent.killall(runs)
    for message in waiting:
        delivery.refused[str(message["To"])] = "no connection to the relay was left"
    return delivery


def _one_then(first: Message | None, others: Iterator[Message]) -> Iterator[Message]:
    if first is not None:
        yield first
    for message in others:  # noqa: UP028 - with `yield from`, whoever stops would close it for all
        yield message


class _closing:
    def __init__(self, relay: smtplib.SMTP) -> None:
        self._relay = relay

    def __enter__(self) -> smtplib.SMTP:
        return self._relay

    def __exit__(self, *_: object) -> None:
        try:
            self._relay.quit()
        except (smtplib.SMTPException, OSError):
            self._relay.close()
