"""Addresses: the forms there are, and what is none."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greentask.errors import ConfigurationError
from greentask.wire.address import Address, parse_address, parse_addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:12345", Address("tcp", "127.0.0.1", 12345)),
        ("example.org:80", Address("tcp", "example.org", 80)),
        ("  localhost:0\n", Address("tcp", "localhost", 0)),
        (":8080", Address("tcp", "127.0.0.1", 8080)),
        ("tcp://:8080", Address("tcp", "127.0.0.1", 8080)),
        ("tcp://10.0.0.1:65535", Address("tcp", "10.0.0.1", 65535)),
        ("Text://0.0.0.0:5678", Address("tcp", "0.0.0.0", 5678)),
        ("TEXT://h:1", Address("tcp", "h", 1)),
        ("tls://example.org:443", Address("tls", "example.org", 443)),
        ("[::1]:12345", Address("tcp", "::1", 12345)),
        ("tls://[2001:db8::1]:443", Address("tls", "2001:db8::1", 443)),
        ("[fe80::1%eth0]:1", Address("tcp", "fe80::1%eth0", 1)),
        ("unix:///run/greentask.sock", Address("unix", path="/run/greentask.sock")),
        ("UNIX:///a b/c:1", Address("unix", path="/a b/c:1")),
        ("m\xfcller.example:80", Address("tcp", "m\xfcller.example", 80)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("tcp", "127.0.0.1", 1), "tcp://127.0.0.1:1"),
        (Address("tls", "::1", 1), "tls://[::1]:1"),
        (Address("unix", path="/run/x"), "unix:///run/x"),
    ],
)
def test_an_address_is_written(address: Address, text: str) -> None:
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write host:port"),
        ("localhost", "write host:port"),
        ("localhost:", "write host:port"),
        ("localhost:http", "write host:port"),
        ("localhost:-1", "write host:port"),
        ("localhost:1:2", "write host:port"),
        ("localhost:123456", "write host:port"),
        ("localhost:\u0661\u0662", "write host:port"),
        ("local host:1", "write host:port"),
        ("::1:80", "write host:port"),
        ("[::1]", "write host:port"),
        ("[]:1", "write host:port"),
        ("tcp://localhost:1/path", "write host:port"),
        ("localhost:65536", "port 65536 is above 65535"),
        ("[dead]:1", "'dead' is no IPv6 address"),
        ("[127.0.0.1]:1", "'127.0.0.1' is no IPv6 address"),
        ("[::1::2]:1", "'::1::2' is no IPv6 address"),
        ("http://localhost:1", "'http' is no scheme of ours; write host:port"),
        ("://localhost:1", "'' is no scheme of ours"),
        ("unix://relative/path", "write unix:///absolute/path"),
        ("unix://", "write unix:///absolute/path"),
        ("unix:///a\0b", "write unix:///absolute/path"),
    ],
)
def test_what_is_no_address_is_refused_with_the_forms_there_are(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(text)
    assert str(caught.value).startswith(f"{text!r} is not an address: ")
    assert says in str(caught.value)


@given(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "tcp://", "Text://", "tls://", "unix://", "x://"]),
        st.sampled_from(["", "h", "127.0.0.1", "[::1]", "[", "/p"]) | st.text(max_size=8),
        st.sampled_from(["", ":", "::"]),
        st.integers(-1, 70_000) | st.text(max_size=3),
    )
    | st.text()
)
@example("[0:0]:1")
def test_any_text_is_an_address_that_reads_the_same_again_or_is_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigurationError:
        return
    assert parse_address(str(address)) == address
    assert 0 <= address.port <= 65535


# ---- Several


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a:1", ["tcp://a:1"]),
        ("a:1,tls://b:2, unix:///c ", ["tcp://a:1", "tls://b:2", "unix:///c"]),
        (",a:1,,b:2,", ["tcp://a:1", "tcp://b:2"]),
        (["a:1", "b:2"], ["tcp://a:1", "tcp://b:2"]),
        (("[::1]:1",), ["tcp://[::1]:1"]),
        (iter(["a:1"]), ["tcp://a:1"]),
        (["unix:///a,b"], ["unix:///a,b"]),
    ],
)
def test_several_come_comma_separated_or_as_a_list(text: str | list[str], written: list[str]) -> None:
    assert [str(address) for address in parse_addresses(text)] == written


@pytest.mark.parametrize("text", ["", " ", ",,", [], [" "]])
def test_no_address_at_all_is_refused(text: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="no address given: write host:port"):
        parse_addresses(text)


def test_a_port_alone_is_no_address() -> None:
    with pytest.raises(ConfigurationError, match="12345 is not an address: write host:port"):
        parse_addresses(12345)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [b"a:1", ["a:1", 5], [b"a:1"]])
def test_what_is_no_text_is_no_address(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not an address: write host:port"):
        parse_addresses(given)


def test_one_bad_address_among_good_ones_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'b' is not an address"):
        parse_addresses("a:1,b")


# ---- Who can reach it


@pytest.mark.parametrize(
    "text", ["127.0.0.1:1", "127.8.9.10:1", "localhost:1", "[::1]:1", "[::1%lo]:1", "unix:///x", ":1"]
)
def test_loopback_is_for_this_machine_only(text: str) -> None:
    assert parse_address(text).is_loopback


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "localhost.example:1", "127.1:1"]
)
def test_everything_else_may_be_reached_from_elsewhere(text: str) -> None:
    assert not parse_address(text).is_loopback
