"""Where a connection comes from."""

import ipaddress
import os
import socket

import pytest

from greentask.errors import ConfigurationError
from greentask.server.origin import Networks, ip_of, origin_of


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


# ---- Networks


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["11.0.0.0", "9.255.255.255", "::10.1.2.3"]),
        ("192.0.2.7", ["192.0.2.7", "::ffff:c000:207"], ["192.0.2.8", "::1"]),
        ("::ffff:192.0.2.0/120", ["192.0.2.0", "::ffff:192.0.2.255"], ["192.0.3.0"]),
        ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db9::", "192.0.2.1"]),
        ("::1", ["::1"], ["127.0.0.1", "::2"]),
        ("fe80::/10", ["fe80::1%eth0"], ["fec0::1%eth0"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::1", "::"]),
        ("::/0", ["::1", "2001:db8::"], ["127.0.0.1", "::ffff:127.0.0.1"]),
        (" 127.0.0.0/255.0.0.0 ", ["127.1.2.3"], ["128.0.0.1"]),
    ],
)
def test_what_is_in_a_network(network: str, inside: list[str], outside: list[str]) -> None:
    networks = Networks(["203.0.113.9", network])
    assert [ip_of((host, 1)) in networks for host in inside] == [True] * len(inside)
    assert [ip_of((host, 1)) in networks for host in outside] == [False] * len(outside)


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.1/8", "localhost", "10.0.0", "::/129", "10.0.0.0/8,::1"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Networks([text])
    assert str(caught.value).startswith(f"{text!r} is no network: write 10.0.0.0/8 or 2001:db8::/32")
