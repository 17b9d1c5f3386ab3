"""What stands before the routers of all clients: whom it serves, in which order, and until when."""

from collections.abc import Callable
from typing import Any

import pytest

from greentask import Client, ConnectionLost, configure, default_client, task
from greentask.client.carrier import Carrier, Receiver, carried_by
from greentask.hub.home import Home, find_home
from greentask.wire.message import Call, decode_request


class Echo:
    """Answers calls with what stands in their lines."""

    def __init__(self, router: Callable[[], Carrier], said: str) -> None:
        self._said = said
        self._router = router

    @property
    def home(self) -> Home:
        return find_home()

    def check_may_wait(self) -> None:
        pass

    def start(self, id: int, data: bytes, receiver: Receiver, timeout: float | None, idempotent: bool = False) -> None:
        call = decode_request(data)
        assert isinstance(call, Call)
        if call.function == "beyond":
            self._router().start(id, data, receiver, timeout, idempotent)
        else:
            receiver.ended([self._said, call.function, call.args], None)

    def forget(self, id: int) -> None:
        pass

    def send(self, id: int, data: bytes) -> None:
        pass


def say(said: str) -> Callable[[Callable[[], Carrier]], Carrier]:
    return lambda router: Echo(router, said)


@task
def add(a: int, b: int) -> Any:
    return a + b


def test_it_carries_the_calls_of_every_client_while_it_is_there(unused_port: int) -> None:
    before = default_client()
    configure(f"127.0.0.1:{unused_port}")
    with Client(f"127.0.0.1:{unused_port}") as client, carried_by(say("here")):
        assert client.call("add", 1, 2) == ["here", "add", [1, 2]]
        assert add.submit(1, b=2).result() == ["here", "add", {"a": 1, "b": 2}]
        assert list(client.map("add", [1], [2])) == [["here", "add", [1, 2]]]
    with pytest.raises(ConnectionLost):
        client.call("add", 1, 2)
    configure(before)


def test_of_several_the_last_one_stands_before_the_others() -> None:
    with Client("127.0.0.1:1") as client, carried_by(say("outer")):
        with carried_by(say("inner")):
            assert client.call("add") == ["inner", "add", {}]
            assert client.submit("beyond").exception() is not None  # passed on by both, to a server that isn't there
        assert client.call("add") == ["outer", "add", {}]
