"""The receipt of a durable task: what its id and a client make of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConnectionLost, DeadlineExceeded, Draining, from_wire
from ..hub.bell import Bell
from ..tasks.remote import ProgressCallback, Receipt
from ..wire.chain import GROUP

if TYPE_CHECKING:
    from ..tasks.steps import Step
    from ..tasks.task import Task
    from .client import Client

__all__ = ["ClientReceipt"]

R = TypeVar("R")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds between attempts at a server that is lost
_LOST_FOR = 60.0  # seconds after which one who waits without a timeout is told so
_LATE = 5.0  # seconds that the server's last word may take


class ClientReceipt(Receipt[R]):
    """The receipt that a client gives."""

    def __init__(self, client: Client, id: str, placed: list[Any] | None = None) -> None:
        self.id = id
        self._client = client
        self._placed = placed or []  # what follows, as the server says it

    def __repr__(self) -> str:
        return f"<Receipt {self.id}>"

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, ClientReceipt) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def result(self, timeout: float | None = None, *, progress: ProgressCallback | bool | None = None) -> R:
        timeout = self._client._time_left(timeout)
        give_up = None if timeout is None else time.monotonic() + timeout
        pause, lost_at = _SHORTEST_PAUSE, None
        while True:
            asked_at = time.monotonic()
            left = None if give_up is None else max(0.0, give_up - asked_at)
            try:
                found = self._ask("greentask.result", left, progress, wait=True if left is None else left)
                break
            except (ConnectionLost, Draining) as error:
                now = time.monotonic()
                # One that had the question was there until now, perhaps for hours, and one that drains is still there.
                if lost_at is None or isinstance(error, Draining) or error.sent:
                    lost_at = now
                if now - asked_at > _LONGEST_PAUSE:
                    pause = _SHORTEST_PAUSE
                if now + pause > (lost_at + _LOST_FOR if give_up is None else give_up):
                    raise
                Bell().wait(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
        if "error" in found:
            raise from_wire(found["error"])
        if "result" not in found:
            raise DeadlineExceeded(
                f"the task {self.id} ({found['name']}) is {found['state']} after {timeout:g} s",
                started=found["state"] == "running",
            )
        result: R = found["result"]
        return result

    @property
    def state(self) -> str:
        return str(self._ask("greentask.result")["state"])

    @property
    def progress(self) -> dict[str, Any] | None:
        found = self._ask("greentask.result")
        report: dict[str, Any] | None = found.get("progress")
        if report is None and found["name"] == GROUP:  # of which the result is how far it came
            report = found.get("result")
        return report

    def revoke(self, *, running: bool = False) -> bool:
        return bool(self._ask("greentask.revoke", **({"running": True} if running else {})))

    def then(self, function: str | Task[..., Any] | Step, /, *args: Any, **kwargs: Any) -> Receipt[Any]:
        return self._client._enqueue_after(self.id, function, args, kwargs)

    @property
    def following(self) -> tuple[Receipt[Any], ...]:
        ids = (one if isinstance(one, str) else one["group"] for one in self._placed)
        return tuple(ClientReceipt(self._client, id) for id in ids)

    def _ask(
        self,
        function: str,
        left: float | None = None,
        progress: ProgressCallback | bool | None = None,
        **more: Any,
    ) -> Any:
        timeout = None if left is None else left + _LATE
        return self._client.call_args(function, {"task": self.id, **more}, timeout=timeout, progress=progress)
