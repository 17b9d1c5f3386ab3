"""Who waits for a call: hears everything about it, and lets a test wait for the end."""

import json
import time
from typing import Any

from greentask.errors import CallError, from_wire, refusal
from greentask.pool.frames import Body, whole
from greentask.wire.json import dumps
from support.waiting import wait_until


class Listener:
    def __init__(self) -> None:
        self.answers: list[tuple[str, bytes]] = []  # more than one is a defect
        self.reports: list[Any] = []
        self.items: list[Any] = []
        self.answered_at = 0.0

    def done(self, result: Body) -> None:
        self.answers.append(("result", whole(result)))
        self.answered_at = time.monotonic()

    def failed(self, error: bytes) -> None:
        self.answers.append(("error", error))
        self.answered_at = time.monotonic()

    def refuse(self, error: CallError) -> None:
        self.failed(dumps(refusal(error)))

    def progress(self, report: bytes) -> None:
        self.reports.append(json.loads(report))

    def item(self, item: bytes) -> None:
        self.items.append(json.loads(item))

    def wait(self, within: float = 10.0) -> tuple[str, bytes]:
        """How the call ended: ``result`` or ``error``, and the bytes."""
        wait_until(lambda: self.answers, within, "an answer")
        assert len(self.answers) == 1, self.answers
        return self.answers[0]

    def result(self, within: float = 10.0) -> Any:
        kind, body = self.wait(within)
        assert kind == "result", body
        return json.loads(body)

    def error(self, within: float = 10.0) -> Exception:
        """The error, as a client raises it."""
        kind, body = self.wait(within)
        assert kind == "error", body
        return from_wire(json.loads(body))

    def wait_for_items(self, count: int, within: float = 10.0) -> list[Any]:
        """The items so far, when there are at least so many."""
        wait_until(lambda: len(self.items) >= count, within, f"item {count}")
        return self.items
