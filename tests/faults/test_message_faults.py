"""What a server must survive in a message: one test (or group) for each fault. Continues N7 of the network's faults."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from support.servers import LineClient, module_server
from support.values import values

server = module_server()


def answer(peer: LineClient, line: bytes) -> bytes:
    peer.send_bytes(line + b"\n")
    answered = peer.line()
    assert answered is not None
    return answered


# ---- N7: never a changed value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values)
@example({"\x00\x1f\x7f\x85\u2028\ufeff\uffff": '\U0001f600"\\/'})
@example([0, -1, 2**63, -(2**63) - 1, 10**4_000])
@example([0.1, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e22, 1e23, 123456789.12345678])
@example([[[]], {}, {"": {"": None}}, True, False, None])
def test_n7_a_process_is_given_and_gives_the_bytes_that_a_greenlet_does(peer: LineClient, value: Any) -> None:
    """Four ways: each parser reads it, each side writes it; one by one, and as the item of a batch."""
    arguments = json.dumps([value]).encode()
    here = answer(peer, b'{"function":"echo","args":%b}' % arguments)
    assert json.loads(here) == {"result": value}
    assert answer(peer, b'{"function":"echo_in_process","args":%b}' % arguments) == here
    for function in (b"echo", b"echo_in_process"):
        item = answer(peer, b'{"id":1,"function":"%b","batch":[%b]}' % (function, arguments))
        assert item == b'{"id":1,"index":0,' + here[1:]
        assert peer.hear() == {"id": 1, "result": {"done": 1, "failed": 0}}


# ---- N7: duplicate keys


@pytest.mark.parametrize(
    "line",
    [
        b'{"function":"greentask.ping","function":"fail"}',
        b'{"function":"fail","function":"greentask.ping"}',
        b'{"function":"fail","\\u0066unction":"greentask.ping"}',
        b'{"function":"greentask.ping","id":1,"id":2}',
        b'{"function":"greentask.ping","timeout":1,"timeout":1}',
        b'{"function":"echo_in_process","args":{"value":1},"args":{"value":2}}',
        b'{"function":"echo","args":{"value":1,"value":2}}',
        b'{"function":"echo_in_process","args":[{"user":"me","user":"root"}]}',
    ],
)
def test_n7_a_line_that_says_two_things_is_refused(peer: LineClient, line: bytes) -> None:
    error = json.loads(answer(peer, line))["error"]
    assert error["type"] == "InvalidMessage"
    assert error["message"].endswith("twice")
