"""Clients that enqueue numbered tasks for as long as they are let, through whatever happens to the server."""

import itertools
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Acknowledged", "Clients", "Line"]

_LASTS = 0.05  # of the tasks: up to 0.3 s; the others are done at once
PATIENCE = 20.0  # seconds for an answer
MOST_WAITING = 1000  # tasks: where so many wait, the clients do


@dataclass(frozen=True)
class Acknowledged:
    """What was promised of a number: its task, and the moment (by the monotonic clock) before which it doesn't run."""

    task: str
    not_before: float


@dataclass(frozen=True)
class _Order:
    """One call: numbers and how they are to run."""

    numbers: list[int]
    call: dict[str, Any]
    not_before: float
    is_sent_again: bool  # where no answer comes, under its key


class Line:
    """A connection. It raises ``OSError`` where it is cut off, or nothing comes."""

    def __init__(self, address: tuple[str, int], patience: float = PATIENCE) -> None:
        self._socket = socket.create_connection(address, patience)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("cut off")
        message: dict[str, Any] = json.loads(line)
        if "result" not in message and "id" not in message:  # the server goes away
            raise ConnectionResetError(message["error"]["message"])
        return message

    def call(self, function: str, **args: object) -> Any:
        """The result of one call."""
        self.send({"function": function, "args": args, "id": 1})
        reply = self.hear()
        if "error" in reply:
            raise ConnectionError(reply["error"]["message"])
        return reply["result"]


class Clients:
    """So many threads; ``effects`` says how many tasks have run, so that not too many wait."""

    def __init__(self, address: tuple[str, int], file: str, seed: int, count: int, effects: Callable[[], int]) -> None:
        self.acknowledged: dict[int, Acknowledged] = {}
        #: The errors that were answered, and connections that broke.
        self.refused = Counter[str]()
        self._address, self._file, self._effects = address, file, effects
        self._numbers = itertools.count()
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {who}"),)) for who in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Enqueue nothing more."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        orders = self._orders(chance)
        order = next(orders)
        while not self._ends.is_set():
            try:
                with Line(self._address) as line:
                    while not self._ends.is_set():
                        while len(self.acknowledged) - self._effects() > MOST_WAITING and not self._ends.is_set():
                            time.sleep(0.01)
                        if self._is_taken(line, order) or not order.is_sent_again:
                            order = next(orders)
            except OSError:
                self.refused["connection broke"] += 1
                time.sleep(0.02)
                if not order.is_sent_again:
                    order = next(orders)

    def _is_taken(self, line: Line, order: _Order) -> bool:
        line.send(order.call)
        reply = line.hear()
        if "error" in reply:
            self.refused[reply["error"]["type"]] += 1
            time.sleep(0.01)
            return False
        result = reply["result"]
        for number, task in zip(order.numbers, result.get("tasks") or [result["task"]]):
            self.acknowledged[number] = Acknowledged(task, order.not_before)
        return True

    def _orders(self, chance: random.Random) -> Iterator[_Order]:
        while True:
            size = chance.choice((1, 1, 1, 1, 20))
            numbers = [next(self._numbers) for _ in range(size)]
            options: dict[str, Any] = {"priority": chance.choice((0, 0, 0, 5, -5))}
            when = chance.random()
            if when < 0.1:
                options["delay"] = chance.uniform(0.01, 3.0)
            elif when < 0.15:
                options["at"] = time.time() + chance.uniform(-1.0, 2.0)
            if size == 1 and chance.random() < 0.5:
                options["key"] = f"number {numbers[0]}"
            items = [[self._file, number, 0.3 * chance.random() * (chance.random() < _LASTS)] for number in numbers]
            call = {"function": chance.choice(("in_greenlet", "in_process")), "id": 1, "enqueue": options}
            call |= {"args": items[0]} if size == 1 else {"batch": items}
            yield _Order(numbers, call, time.monotonic() + options.get("delay", 0.0), "key" in options)
