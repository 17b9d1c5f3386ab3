"""Where a connection comes from."""

import ipaddress
import os
import socket

import pytest

from greentask.server.origin import ip_of, origin_of


@pytest.mark.parametrize(
    ("host", "ip", "origin"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("::1", "::1", "::/64"),
    ],
)
def test_ip_addresses(host: str, ip: str, origin: str) -> None:
    assert ip_of((host, 1)) == ipaddress.ip_address(ip)
    assert origin_of(None, (host, 1, 0, 0)) == origin


def test_a_unix_socket_has_no_address_but_a_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert ip_of("") is None
        assert origin_of(ours, "") == f"user {os.getuid()}"
