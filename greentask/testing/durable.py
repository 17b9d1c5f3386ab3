"""Durable tasks in place: what is enqueued has run when it is acknowledged, and its result is kept."""

from __future__ import annotations

import itertools
import time
from typing import Any

from ..client.carrier import Receiver
from ..errors import CallError, QueueError, from_wire, refusal
from ..hub.home import Home
from ..pool.frames import Body, whole
from ..queue.ids import id_text
from ..tasks.task import Task
from ..wire.json import dumps, loads
from ..wire.message import Args, Call, decode_request
from .inplace import Answer, InPlace
from .known import Known

__all__ = ["InPlaceQueue", "Kept"]


class Kept:
    """What has become of the durable tasks so far, by their ids, and the keys of some."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self._ids = itertools.count(int(time.time() * 1000) << 20)

    def next_id(self) -> str:
        """The id of another one."""
        return id_text(next(self._ids))


class InPlaceQueue:
    """A ``Carrier``: runs durable tasks at once, whatever ``delay`` and ``at`` say, attempt after attempt without a
    pause; everything else is for the one behind it.
    """

    def __init__(self, kept: Kept, known: Known) -> None:
        self._kept = kept
        self._known = known
        self._inner = InPlace(known)

    @property
    def home(self) -> Home:
        return self._inner.home

    def check_may_wait(self) -> None:
        self._inner.check_may_wait()

    def start(self, id: int, data: bytes, receiver: Receiver, timeout: float | None, idempotent: bool = False) -> None:
        call = decode_request(data.rstrip(b"\n"))
        assert isinstance(call, Call)
        try:
            if call.enqueue is not None:
                receiver.ended(self._enqueue(id, call), None)
            elif call.function in ("greentask.result", "greentask.revoke"):
                found = self._find(call)
                receiver.ended(found if call.function == "greentask.result" else False, None)
            else:
                self._inner.start(id, data, receiver, timeout, idempotent)
        except CallError as error:
            receiver.ended(None, from_wire(loads(dumps(refusal(error)))))

    def send(self, id: int, data: bytes) -> None:
        self._inner.send(id, data)

    def forget(self, id: int) -> None:
        self._inner.forget(id)

    def _find(self, call: Call) -> dict[str, Any]:
        args = call.args if isinstance(call.args, dict) else {}
        found = self._kept.found.get(args.get("task", ""))
        if found is None:
            raise QueueError(f"no task {args.get('task')!r} was enqueued here")
        return found

    def _enqueue(self, id: int, call: Call) -> dict[str, Any]:
        task, _ = self._known.find(call.function)
        items = [call.args] if call.batch is None else list(call.batch)
        for args in items:
            task.binder.bind(args)
        tasks = [self._run(id, call, task, args) for args in items]
        return {"task": tasks[0]} if call.batch is None else {"tasks": tasks}

    def _run(self, id: int, call: Call, task: Task[..., Any], args: Args | None) -> str:
        """Run it, attempt after attempt, and keep what comes of it."""
        options, kept = call.enqueue, self._kept
        assert options is not None
        if options.key is not None and options.key in kept.keys:
            return kept.keys[options.key]
        receipt, attempts = kept.next_id(), 0
        if options.key is not None:
            kept.keys[options.key] = receipt
        while True:
            attempts += 1
            outcome = _Outcome(task)
            self._inner.run(id, Call(call.function, args, receipt, attempt=attempts), outcome, None)
            error = outcome.found.get("error")
            if error is None or task.policy.delay(error, attempts, options.retries) is None:
                break
        if error is not None:
            error.pop("retry", None)
            error.pop("traceback", None)
        state = "done" if error is None else "failed"
        kept.found[receipt] = {"task": receipt, "name": task.name, "state": state, "attempts": attempts}
        kept.found[receipt].update(outcome.found)
        return receipt


class _Outcome(Answer):
    """The listener of an attempt: keeps its result, or its error with what that is worth."""

    def __init__(self, task: Task[..., Any]) -> None:
        super().__init__(_Nobody())
        self._task = task
        self.found: dict[str, Any] = {}

    def done(self, result: Body) -> None:
        self.found = {"result": loads(whole(result))}

    def failed(self, error: bytes) -> None:
        described = loads(error)
        described.setdefault("retry", self._task.policy.wants_retry(from_wire(described)))
        self.found = {"error": described}


class _Nobody(Receiver):
    def ended(self, value: Any, error: BaseException | None) -> None:
        raise AssertionError("its outcome is kept")
