"""The chat example, as its README says to run it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.programs import ROOT, program
from support.servers import LineClient

pytestmark = pytest.mark.once

FOLDER = ROOT / "examples" / "chat"


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with program("server.py", cwd=FOLDER, LISTEN="127.0.0.1:0", PYTHONPATH=str(ROOT)) as (line, _):
        _, host, port = line.split()
        yield host, int(port)


@contextmanager
def guest(address: tuple[str, int], name: str) -> Iterator[LineClient]:
    with LineClient(socket.create_connection(address)) as peer:
        assert peer.line() == b"welcome! What is your name?"
        say(peer, name)
        assert hear(peer) == f"hello {name}; /who lists who is here, /quit leaves"
        yield peer


def say(peer: LineClient, line: str) -> None:
    peer.send_bytes(line.encode() + b"\n")


def hear(peer: LineClient) -> str:
    return (peer.line() or b"(the end)").decode()


def test_everybody_hears_what_the_others_say(address: tuple[str, int]) -> None:
    with guest(address, "Ann") as ann, guest(address, "Bob") as bob:
        assert hear(ann) == "Bob has come"
        with guest(address, "Zoë") as zoe:
            assert (hear(ann), hear(bob)) == ("Zoë has come", "Zoë has come")
            say(bob, "good morning")
            assert (hear(ann), hear(zoe)) == ("Bob: good morning", "Bob: good morning")
            say(zoe, "/who")
            assert hear(zoe) == "Ann, Bob, Zoë"
            say(zoe, "/quit")
            assert (hear(zoe), hear(zoe)) == ("goodbye", "(the end)")
        assert (hear(ann), hear(bob)) == ("Zoë has left", "Zoë has left")


def test_nobody_can_be_somebody_else_or_paint_on_others_terminals(address: tuple[str, int]) -> None:
    with guest(address, "Ann") as ann, guest(address, "Bob") as bob:
        assert hear(ann) == "Bob has come"
        with LineClient(socket.create_connection(address)) as impostor:
            hear(impostor)
            say(impostor, "Ann")
            assert (hear(impostor), hear(impostor)) == ("there is a Ann already", "(the end)")
        bob.send_bytes(b"\x1b[31mred\xff\x07\r\n   \r\n\n/who\n")
        assert hear(ann) == "Bob: [31mred"
        assert hear(bob) == "Ann, Bob"


def test_who_does_not_read_is_cut_off(address: tuple[str, int]) -> None:
    with guest(address, "Ann") as ann, guest(address, "Deaf") as deaf:
        assert hear(ann) == "Deaf has come"
        line = "x" * 900
        for _ in range(100):
            ann.send_bytes((line + "\n").encode() * 200)
            say(ann, "/who")
            heard = hear(ann)
            while heard.startswith("Deaf has"):
                heard = hear(ann)
            if heard == "Ann":
                break
        assert heard == "Ann", "and memory is not taken for it"
        deaf.close()
