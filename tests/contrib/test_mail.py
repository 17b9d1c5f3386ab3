"""Delivery of many mails, to real SMTP servers: one that takes everything, and some that don't."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.mime.text import MIMEText
from threading import Lock, Thread
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from greentask.contrib.mail import deliver
from greentask.errors import ConfigurationError
from support.programs import environment


class Handler:
    """Accepts mails, refuses some recipients, and hangs up on others."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.lock = Lock()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("unknown"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if any(address.startswith("hangup") for address in envelope.rcpt_tos):
            server.transport.close()
            return "421 bye"
        with self.lock:
            self.accepted += envelope.rcpt_tos
        return "250 OK"


@contextmanager
def relay(host: str = "127.0.0.1") -> Iterator[tuple[str, Handler]]:
    handler, loop = Handler(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: SMTP(handler, loop=loop), host, 0))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}", handler
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def mail(to: str) -> MIMEText:
    message = MIMEText("hello")
    message["From"], message["To"] = "shop@example.org", to
    return message


def test_each_mail_is_delivered_once_and_told() -> None:
    with relay() as (address, handler):
        told: list[int] = []
        to = [f"customer{number}@example.org" for number in range(50)]
        delivery = deliver(map(mail, to), address, connections=5, on_sent=told.append)
    assert (delivery.sent, delivery.refused) == (50, {})
    assert sorted(handler.accepted) == sorted(to)
    assert told == list(range(1, 51))


def test_a_refused_recipient_does_not_stop_the_others() -> None:
    with relay() as (address, handler):
        delivery = deliver(map(mail, ["a@x.org", "unknown@x.org", "b@x.org"]), address, connections=2)
    assert delivery.sent == 2
    assert sorted(handler.accepted) == ["a@x.org", "b@x.org"]
    assert list(delivery.refused) == ["unknown@x.org"]
    assert "no such user" in delivery.refused["unknown@x.org"]


def test_a_connection_that_breaks_costs_one_mail() -> None:
    with relay() as (address, handler):
        to = ["a@x.org", "hangup@x.org", "b@x.org", "c@x.org"]
        delivery = deliver(map(mail, to), address, connections=1)
    assert delivery.sent == 3
    assert handler.accepted == ["a@x.org", "b@x.org", "c@x.org"]
    assert list(delivery.refused) == ["hangup@x.org"]


def test_a_relay_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConnectionRefusedError, match=r"the relay 127\.0\.0\.1:1 "):
        deliver(map(mail, ["a@x.org"]), "127.0.0.1:1")


def test_a_relay_without_a_port_has_that_of_smtp() -> None:
    for relay in ("127.0.0.213", "[::ffff:127.0.0.213]"):
        with pytest.raises(ConnectionRefusedError, match=r"can't be reached \(port 25\)"):
            deliver(map(mail, ["a@x.org"]), relay)


@pytest.mark.parametrize("relay", ["", ":25", "mail.example.org:", "127.0.0.1:smtp", "::1", "h:0", "h:65536", "h/x:25"])
def test_what_is_no_relay_is_told_with_what_one_is(relay: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(repr(relay))} is no relay: write host:port, or host"):
        deliver(map(mail, ["a@x.org"]), relay)


def test_a_relay_may_have_an_ipv6_address() -> None:
    with relay("::1") as (address, handler):
        assert deliver(map(mail, ["a@x.org"]), address).sent == 1
    assert handler.accepted == ["a@x.org"]


def test_nothing_to_send_needs_no_relay() -> None:
    assert deliver([], "127.0.0.1:1").sent == 0


def test_in_a_patched_process_the_connections_work_at_once() -> None:
    program = """
from gevent import monkey; monkey.patch_all()
import os, sys
from email.mime.text import MIMEText
from greentask.contrib.mail import deliver
def mail(number):
    message = MIMEText("hello")
    message["From"], message["To"] = "a@x.org", f"customer{number}@x.org"
    return message
delivery = deliver((mail(n) for n in range(40)), sys.argv[1], connections=10)
print(delivery.sent, delivery.refused)
"""
    smtp = subprocess.Popen(
        [sys.executable, "-m", "greentask.demo.smtp", "127.0.0.1", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert smtp.stdout is not None
    address = smtp.stdout.readline().strip()
    done = subprocess.run(
        [sys.executable, "-c", program, address], capture_output=True, text=True, env=environment(), timeout=30
    )
    assert done.stdout == "40 {}\n", done.stderr
    told, _ = smtp.communicate("\n", timeout=10)
    assert told == '{"mails": 40, "recipients": 40, "twice": 0}\n'
