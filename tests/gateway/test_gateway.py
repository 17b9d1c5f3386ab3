"""The gateway, over real sockets: what a browser may ask, what it hears, and what happens to those who misbehave."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    create_connection,
)

from support.programs import TESTS, program

pytestmark = pytest.mark.once

SERVICE = str(TESTS / "support" / "gateway_service.py")
DONE = "tâche terminée"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    page = tmp_path_factory.mktemp("page") / "page.html"
    page.write_text("<!doctype html><title>é</title>", encoding="utf-8")
    with program(SERVICE, str(page)) as (line, _):
        yield line


@pytest.fixture
def browser(url: str) -> Iterator[WebSocket]:
    browser = connect(url)
    yield browser
    browser.close()


def connect(url: str, **options: Any) -> WebSocket:
    return create_connection(url.replace("http", "ws"), timeout=10, suppress_origin=True, **options)


def where(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    return host, int(port)


def ask(browser: WebSocket, message: dict[str, Any]) -> dict[str, Any]:
    browser.send(json.dumps(message))
    return hear(browser)


def hear(browser: WebSocket) -> dict[str, Any]:
    answer = json.loads(browser.recv())
    assert isinstance(answer, dict)
    return answer


# ---- Calls


def test_a_result_comes_with_the_closing_message(browser: WebSocket) -> None:
    answer = ask(browser, {"id": 7, "function": "echo", "args": {"value": ["é", 1, None]}})
    assert answer == {"id": 7, "result": ["é", 1, None], "message": DONE}


def test_a_call_without_an_id_is_answered_too(browser: WebSocket) -> None:
    assert ask(browser, {"function": "echo", "args": [1]}) == {"result": 1, "message": DONE}


def test_a_ping_is_answered_without_ceremony(browser: WebSocket) -> None:
    assert ask(browser, {"id": "p", "function": "greentask.ping"}) == {"id": "p", "result": "pong"}


def test_progress_is_told_and_its_last_report_always(browser: WebSocket) -> None:
    browser.send(json.dumps({"id": 1, "function": "count", "args": {"to": 20, "pause": 0.01}}))
    messages = [hear(browser)]
    while "progress" in messages[-1]:
        messages.append(hear(browser))
    assert messages[-2] == {"id": 1, "progress": {"done": 20, "total": 20}}
    assert messages[-1] == {"id": 1, "result": 20, "message": DONE}
    assert len(messages) < 20, "an eye doesn't see more than twenty reports a second"


def test_everybody_else_is_served_while_a_task_runs(url: str, browser: WebSocket) -> None:
    browser.send(json.dumps({"id": 1, "function": "nap", "args": [0.5]}))
    other = connect(url)
    assert ask(other, {"id": 1, "function": "greentask.ping"})["result"] == "pong"
    assert ask(browser, {"id": 2, "function": "greentask.ping"}) == {"id": 2, "result": "pong"}
    assert hear(browser) == {"id": 1, "result": 0.5, "message": DONE}
    other.close()


def test_a_result_as_deep_as_may_be_returned_arrives(browser: WebSocket) -> None:
    browser.send(json.dumps({"id": 1, "function": "deep", "args": [500]}))
    assert browser.recv() == f'{{"id":1,"result":{"[" * 500}{"]" * 500},"message":"{DONE}"}}'
    assert ask(browser, {"id": 2, "function": "deep", "args": [501]})["error"]["type"] == "InvalidResult"


@pytest.mark.parametrize(
    ("message", "kind", "part"),
    [
        ({"id": 1, "function": "fail", "args": ["no stock"]}, "ValueError", "no stock"),
        ({"id": 1, "function": "fail_in_own_way", "args": ["none left"]}, "NoStock", "none left"),
        ({"id": 1, "function": "hidden"}, "UnknownTask", "offers no task 'hidden'"),
        ({"id": 1, "function": "greentask.status"}, "UnknownTask", "greentask.status"),
        ({"id": 1, "function": "echo", "args": {"valu": 1}}, "InvalidArguments", "valu"),
        ({"id": 1, "function": "nap", "args": [5], "timeout": 0.1}, "DeadlineExceeded", "time ran out"),
        ({"id": 1, "function": "echo", "batch": [[1]]}, "InvalidMessage", "batch"),
        ({"id": 1, "function": "echo", "stream": True}, "InvalidMessage", "stream"),
        ({"id": 1, "more": 1}, "InvalidMessage", "id"),
    ],
)
def test_errors_name_their_type(browser: WebSocket, message: dict[str, Any], kind: str, part: str) -> None:
    answer = ask(browser, message)
    assert answer["id"] == 1
    assert answer["error"]["type"] == kind
    assert part in answer["error"]["message"]


def test_what_is_no_json_is_answered_and_the_connection_goes_on(browser: WebSocket) -> None:
    browser.send("hello")
    assert hear(browser)["error"]["type"] == "InvalidMessage"
    browser.send_binary(b"\xff\xfe")
    assert hear(browser)["error"]["type"] == "InvalidMessage"
    assert ask(browser, {"function": "greentask.ping"}) == {"result": "pong"}


def test_calls_in_flight_are_bounded(browser: WebSocket) -> None:
    for id in range(5):
        browser.send(json.dumps({"id": id, "function": "nap", "args": [0.3]}))
    refused = hear(browser)
    assert (refused["id"], refused["error"]["type"]) == (4, "Overloaded")
    assert sorted(hear(browser)["id"] for _ in range(4)) == [0, 1, 2, 3]


@pytest.mark.slow
def test_frames_of_answers_at_once_never_mix(browser: WebSocket) -> None:
    """Large and small answers, ended in the same moment by different greenlets, to a reader that is not in a hurry."""
    for round in range(20):
        browser.send(json.dumps({"id": 2 * round, "function": "large", "args": [400_000]}))
        browser.send(json.dumps({"id": 2 * round + 1, "function": "echo", "args": ["small"]}))
        answers = {answer["id"]: answer["result"] for answer in (hear(browser), hear(browser))}
        assert answers == {2 * round: "x" * 400_000, 2 * round + 1: "small"}


# ---- HTTP


def get(url: str, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(*where(url), timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    result = answer.status, answer.getheader("Content-Type", ""), answer.read()
    connection.close()
    return result


def test_the_page_and_the_script_are_served(url: str) -> None:
    assert get(url, "/") == (200, "text/html; charset=utf-8", "<!doctype html><title>é</title>".encode())
    status, kind, body = get(url, "/greentask.js")
    assert (status, kind) == (200, "text/javascript; charset=utf-8")
    assert b"class Greentask" in body
    assert get(url, "/", "HEAD") == (200, "text/html; charset=utf-8", b"")


@pytest.mark.parametrize("path", ["/other", "/../setup.cfg", "/%2e%2e/setup.cfg", "//greentask.js"])
def test_nothing_else_is(url: str, path: str) -> None:
    assert get(url, path)[0] == 404


def test_only_get_is_taken(url: str) -> None:
    assert get(url, "/", "POST")[0] == 405


# ---- Strangers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_strangers_may_not_connect(url: str, origin: str) -> None:
    with pytest.raises(WebSocketBadStatusException) as refused:
        create_connection(url.replace("http", "ws"), timeout=10, origin=origin)
    assert refused.value.status_code == 403


def test_its_own_pages_and_those_that_are_named_may(url: str) -> None:
    for origin in (url.rstrip("/"), "https://shop.example", "HTTPS://SHOP.EXAMPLE"):
        create_connection(url.replace("http", "ws"), timeout=10, origin=origin).close()


def test_a_name_that_was_pointed_here_is_refused(url: str) -> None:
    with pytest.raises(WebSocketBadStatusException) as refused:
        connect(url, host="evil.example:80")
    assert refused.value.status_code == 403


@pytest.mark.parametrize(
    ("key", "version"), [("abc", "13"), ("", "13"), (base64.b64encode(b"short").decode(), "13"), (None, "99")]
)
def test_a_bad_handshake_gets_a_plain_400(url: str, key: str | None, version: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode() if key is None else key
    status, _ = handshake(url, key, version)
    assert status == 400


def handshake(url: str, key: str, version: str = "13") -> tuple[int, socket.socket]:
    host, port = where(url)
    raw = socket.create_connection((host, port), timeout=10)
    raw.sendall(
        (
            f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n\r\n"
        ).encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += raw.recv(1)
    if b" 101 " in head:
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        assert accept in head
        return 101, raw
    raw.close()
    return int(head.split()[1]), raw


def raw_connection(url: str) -> socket.socket:
    status, raw = handshake(url, base64.b64encode(os.urandom(16)).decode())
    assert status == 101
    return raw


def close_code(raw: socket.socket) -> int:
    """The code of the close frame that ends what is read."""
    data = b""
    while chunk := raw.recv(4096):
        data += chunk
    raw.close()
    assert data[0] == 0x88, data
    return int(struct.unpack("!H", data[2:4])[0])


def masked(first: int, payload: bytes) -> bytes:
    assert len(payload) < 126
    return bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def test_a_message_that_is_too_long_closes_with_1009(browser: WebSocket) -> None:
    browser.send("x" * 200_000)
    frame = browser.recv_frame()
    assert frame.opcode == ABNF.OPCODE_CLOSE
    assert struct.unpack("!H", frame.data[:2]) == (1009,)
    with pytest.raises(WebSocketConnectionClosedException):
        browser.recv()


def test_a_message_of_endless_fragments_closes_with_1009(url: str) -> None:
    raw = raw_connection(url)
    raw.sendall(masked(0x01, b"x" * 100))
    for _ in range(2000):
        raw.sendall(masked(0x00, b"x" * 100))
    assert close_code(raw) == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (masked(0xC1, b"hi"), 1002),  # a reserved bit
        (masked(0x83, b"hi"), 1002),  # a reserved opcode
        (masked(0x81, b"\xff\xff"), 1007),  # not UTF-8
        (masked(0x80, b"hi"), 1002),  # a continuation of nothing
        (masked(0x88, struct.pack("!H", 1000) + b"bye"), 1000),  # a goodbye is returned
        (masked(0x88, struct.pack("!H", 1005)), 1002),  # a code that may not be sent
    ],
)
def test_what_breaks_the_protocol_is_closed_with_the_code_for_it(url: str, frame: bytes, code: int) -> None:
    raw = raw_connection(url)
    raw.sendall(frame)
    assert close_code(raw) == code


def test_browsers_are_told_when_the_service_goes_away() -> None:
    with program(SERVICE) as (url, service):
        raw = raw_connection(url)
        service.terminate()
        assert close_code(raw) == 1001


def test_a_call_in_flight_is_answered_before_the_service_goes_away() -> None:
    with program(SERVICE) as (url, service):
        browser = connect(url)
        browser.send(json.dumps({"id": 1, "function": "count", "args": {"to": 2, "pause": 0.2}}))
        assert "progress" in hear(browser)
        service.terminate()
        answers = [hear(browser)]
        while "progress" in answers[-1]:
            answers.append(hear(browser))
        browser.close()
        assert answers[-1] == {"id": 1, "result": 2, "message": DONE}


@pytest.mark.slow
def test_browsers_that_do_not_read_do_not_hold_up_the_end() -> None:
    call = masked(0x81, b'{"function":"large","args":[9000000],"id":1}')
    with program(SERVICE) as (url, service):
        browsers = [raw_connection(url) for _ in range(2)]
        for raw in browsers:
            raw.sendall(call)
            assert raw.recv(1) == b"\x81"
        began = time.monotonic()
        service.terminate()
        assert service.wait(15) == 0
        assert time.monotonic() - began < 10, "two seconds for calls, and a moment for goodbyes"
        for raw in browsers:
            raw.close()


# ---- Connections, and time


LIMITED = """
from gevent import monkey
monkey.patch_all()
import sys
from greentask import Client, Gateway
gateway = Gateway(
    Client("127.0.0.1:1"), [], "127.0.0.1:0",
    page=sys.argv[1], max_connections=2, request_timeout=0.5, max_head=2000,
)
gateway.start()
print(gateway.url, flush=True)
gateway.serve_forever()
"""
PAGE = 20_000_000  # bytes: more than sockets hold


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    page = tmp_path_factory.mktemp("large") / "page.html"
    page.write_bytes(b"x" * PAGE)
    with program("-c", LIMITED, str(page)) as (line, _):
        yield line


def sending(url: str, data: bytes, *, reads: bool = True) -> socket.socket:
    raw = socket.socket()
    if not reads:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect(where(url))
    raw.sendall(data)
    return raw


def read_to_the_end(raw: socket.socket) -> bytes:
    data = bytearray()
    with raw, contextlib.suppress(ConnectionResetError):
        while chunk := raw.recv(1 << 20):
            data += chunk
    return bytes(data)


@pytest.mark.parametrize("part", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: webs"])
def test_a_request_that_does_not_arrive_is_not_waited_for(limited: str, part: bytes) -> None:
    assert b"200" not in read_to_the_end(sending(limited, part))


def test_nor_is_one_that_arrives_byte_by_byte(limited: str) -> None:
    with sending(limited, b"GET / HTTP/1.1\r\nX: ") as raw:
        raw.settimeout(0.02)
        give_up = time.monotonic() + 10
        while not is_over(raw, b"x"):
            assert time.monotonic() < give_up


def is_over(raw: socket.socket, sent: bytes) -> bool:
    try:
        raw.sendall(sent)
        return not raw.recv(1000)
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_a_connection_that_asks_for_nothing_more_is_closed(limited: str) -> None:
    answer = read_to_the_end(sending(limited, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_browser_that_says_nothing_stays_beyond_the_time_of_a_request(limited: str) -> None:
    raw = raw_connection(limited)
    read_to_the_end(sending(limited, b""))  # it has had that time
    raw.sendall(masked(0x89, b"there?"))
    assert raw.recv(100) == b"\x8a\x06there?"
    raw.close()


def test_a_head_that_is_too_long_is_refused(limited: str) -> None:
    answer = read_to_the_end(sending(limited, b"GET / HTTP/1.1\r\nX: " + b"x" * 3000 + b"\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_connections_beyond_the_limit_wait_until_one_is_closed(limited: str) -> None:
    browsers = [raw_connection(limited) for _ in range(2)]
    waits = sending(limited, b"HEAD /greentask.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    waits.settimeout(0.3)
    with pytest.raises(TimeoutError):
        waits.recv(1)
    waits.settimeout(10)
    browsers[0].close()
    assert read_to_the_end(waits).startswith(b"HTTP/1.1 200 OK\r\n")
    browsers[1].close()


def test_who_does_not_read_the_page_keeps_nobody_out_for_long(limited: str) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    unread = [sending(limited, request, reads=False) for _ in range(2)]
    assert len(read_to_the_end(sending(limited, request))) > PAGE
    assert all(len(read_to_the_end(raw)) < PAGE for raw in unread)


@pytest.mark.parametrize("limit", [{"max_connections": 0}, {"request_timeout": 0.0}, {"max_head": 0}])
def test_what_is_no_limit_is_refused(limit: dict[str, Any]) -> None:
    from greentask import Client, ConfigurationError, Gateway

    with pytest.raises(ConfigurationError, match=f"{next(iter(limit))} is .* not 0"):
        Gateway(Client("127.0.0.1:1"), [], "127.0.0.1:0", **limit)


def test_a_page_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    from greentask import Client, Gateway

    with pytest.raises(FileNotFoundError):
        Gateway(Client("127.0.0.1:1"), [], "127.0.0.1:0", page=tmp_path / "none.html")


def test_it_starts_without_asking_the_dns_for_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import gevent.socket

    from greentask import Client, Gateway

    asked: list[object] = []
    monkeypatch.setattr(gevent.socket, "getfqdn", lambda *name: asked.append(name) or "nobody")
    gateway = Gateway(Client("127.0.0.1:1"), [], "127.0.0.1:0")
    gateway.start()
    gateway.stop(0)
    assert not asked


def test_a_browser_that_never_pauses_does_not_hold_up_the_others(url: str, browser: WebSocket) -> None:
    flood = raw_connection(url)
    flood.settimeout(0.1)
    call = masked(0x81, b'{"function":"nap","args":[20],"id":"n"}')
    give_up = time.monotonic() + 1.0
    with contextlib.suppress(TimeoutError):  # held back: it doesn't read its answers
        while time.monotonic() < give_up:
            flood.sendall(call * 100)
    assert ask(browser, {"function": "greentask.ping"}) == {"result": "pong"}
    flood.close()
