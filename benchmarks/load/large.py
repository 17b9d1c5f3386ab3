"""One client that sends lines of 16 MiB without pause: what everybody else feels of it."""

import json
import random
import select
import socket
import time
from typing import Any

import psutil

from benchmarks.common import percentile, server

from .clients import PATIENCE, call_line, connect, elsewhere, front_of, take_turns
from .figures import Figure

__all__ = ["SHAPES", "measure"]

APP = "benchmarks.load.tasks"
SHAPES = ("text", "numbers", "records", "nested")
LINE = 16 * 1024 * 1024


def measure(
    seconds: float = 4.0, length: int = LINE, shapes: tuple[str, ...] = SHAPES, clients: int = 20, seed: int = 5
) -> list[Figure]:
    """``clients`` call every 5 ms, quiet and for ``seconds`` beside each shape of line, to greenlets and processes."""
    line = call_line("echo", {"to": "customer@example.com"})
    figures = []
    with server(APP, processes=2) as address, elsewhere() as executor:
        front = psutil.Process(front_of(address))
        take_turns(address, clients, 1.0, line, 0.005)
        quiet = percentile(take_turns(address, clients, seconds, line, 0.005), 0.99)
        figures.append(Figure(f"p99 of {clients} clients, quiet", quiet, "ms"))
        worst = 0.0
        for function in ("size", "size_in_process", "give_back"):
            for shape in shapes:
                flood = executor.submit(send_without_pause, address, function, shape, length, seconds + 1.0, seed)
                time.sleep(0.5)
                taken = take_turns(address, clients, seconds, line, 0.005)
                worst = max(worst, front.memory_info().rss / 2**20)
                lines = flood.result(PATIENCE)
                name = f"p99 beside {length / 2**20:g} MiB of {shape} to {function} ({lines / (seconds + 1):.1f}/s)"
                figures.append(Figure(name, percentile(taken, 0.99), "ms", most=20.0))
        figures.append(Figure("memory of the front meanwhile, at most", worst, "MB"))
    return figures


def make_value(shape: str, length: int, seed: int) -> Any:
    """A value whose JSON has about ``length`` bytes, or somewhat fewer."""
    random_ = random.Random(seed)
    words = ["".join(random_.choices('abcdefghij é€\\"\n', k=40)) for _ in range(500)]
    if shape == "text":
        text = "".join(random_.choices(words, k=length // 42))
        return text[: int(len(text) * length / len(json.dumps(text, ensure_ascii=False).encode()))]
    makers = {
        "numbers": lambda: random_.randrange(10**9),
        "records": lambda: {"id": random_.randrange(10**6), "name": random_.choice(words), "sent": True, "at": 0.5},
        "nested": lambda: [[random_.random(), {"a": [random_.choice(words)]}], {"b": {}}],
    }
    some = [makers[shape]() for _ in range(2000)]
    size = len(json.dumps(some, ensure_ascii=False).encode()) / len(some)
    return [some[number % len(some)] for number in range(int(length / size))]


def send_without_pause(address: str, function: str, shape: str, length: int, seconds: float, seed: int) -> int:
    """Send such lines for so long; how many were answered, which all of them must be with the right result."""
    value = make_value(shape, length - 1000, seed)
    message = {"function": function, "args": [value]}
    line = memoryview(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    result = value if function == "give_back" else len(value)
    expected = json.dumps({"result": result}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    answers, answered, sent = bytearray(), 0, 0
    until = time.monotonic() + seconds
    with connect(address) as sock:
        sock.setblocking(False)
        rest = line
        while rest or time.monotonic() < until:
            if not rest:
                rest, sent = line, sent + 1
            reading, writing, _ = select.select([sock], [sock], [], PATIENCE)
            assert reading or writing, f"nothing moved for {PATIENCE:g} s"
            if reading:
                answered += _take(sock.recv(1024 * 1024), answers, expected)
            if writing:
                rest = rest[sock.send(rest[: 1024 * 1024]) :]
        sock.setblocking(True)
        sock.settimeout(PATIENCE)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(1024 * 1024):
            answered += _take(data, answers, expected)
    assert answered == sent + 1, f"{answered} answers for {sent + 1} lines"
    assert not answers, answers[:300]
    return answered


def _take(data: bytes, answers: bytearray, expected: bytes) -> int:
    """How many answers are complete with this; each must be the right one."""
    answers += data
    count = 0
    while len(answers) >= len(expected):
        assert answers.startswith(expected), answers[:300]
        del answers[: len(expected)]
        count += 1
    return count
