"""Durable tasks in place: what is enqueued has run when it is acknowledged, and its result is kept."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ..client.carrier import Receiver
from ..errors import CallError, InvalidArguments, InvalidMessage, QueueError, UnknownTask, from_wire, refusal
from ..hub.home import Home
from ..pool.calls import Listener
from ..pool.frames import Body, whole
from ..queue.ids import id_text
from ..queue.messages import step_of
from ..runner.enqueueing import watch_enqueueing
from ..tasks.task import Task
from ..wire.chain import GROUP, Chain, check_chain
from ..wire.enqueue import Enqueue
from ..wire.json import dumps, loads
from ..wire.message import Args, Call, decode_enqueueing, decode_request
from .inplace import Answer, InPlace
from .known import Known

__all__ = ["MOST_ATTEMPTS", "InPlaceQueue", "Kept"]


#: Attempts at a task that says by ``Retry`` alone whether there is a further one: here it could be so for ever.
MOST_ATTEMPTS = 1000


class Kept:
    """What has become of the durable tasks so far, by their ids, and the keys of some."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.members: dict[str, list[str]] = {}  # of groups
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
                self._ask_and_enqueue(id, call, Answer(receiver))
            elif call.function == "greentask.enqueue":
                self._ask_and_enqueue(id, _enqueueing(call), Answer(receiver))
            elif call.function == "greentask.compose":
                self._ask_and_compose(id, call, Answer(receiver))
            elif call.function in ("greentask.result", "greentask.revoke"):
                found = self._find(call)
                receiver.ended(found if call.function == "greentask.result" else False, None)
            elif call.function.startswith("greentask."):
                raise UnknownTask(
                    f"{call.function} is not there in eager mode, which has no server and no queue to look at: ask the "
                    "receipt of a task, or use a server (the fixture greentask_server, or serving())"
                )
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
        named = args.get("task") or args.get("key")
        found = self._kept.found.get(self._kept.keys.get(args["key"], "") if "key" in args else args.get("task", ""))
        if found is None:
            raise QueueError(f"no task {named!r} was enqueued here")
        return found

    def _ask_and_enqueue(self, id: int, call: Call, answer: Listener) -> None:
        assert call.enqueue is not None
        counts = Counter({call.function: 1 if call.batch is None else len(call.batch)})
        counts += Counter(_functions(call.enqueue.then or []))
        self._ask(call, counts, answer, lambda: self._enqueue(id, call))

    def _ask_and_compose(self, id: int, call: Call, answer: Listener) -> None:
        given = call.args.get("chain") if isinstance(call.args, dict) else (call.args or [None])[0]
        try:
            chain = check_chain(given, "chain", lambda options: Enqueue(**options))
        except ValueError as error:
            raise InvalidArguments(f"greentask.compose: {error}") from None
        self._ask(call, Counter(_functions(chain)), answer, lambda: {"tasks": self._follow(id, chain, None)})

    def _ask(self, call: Call, counts: Counter[str], answer: Listener, enqueue: Callable[[], dict[str, Any]]) -> None:
        """Enqueue it if the hooks have nothing against it, of each task that it names."""
        try:
            for name, count in counts.items():
                task, hooks = self._known.find(name)
                answer = watch_enqueueing(hooks, {task: count}, call.id, None, answer)
            kept = enqueue()
        except CallError as error:
            answer.refuse(error)
        else:
            answer.done(dumps(kept))

    def _enqueue(self, id: int, call: Call) -> dict[str, Any]:
        task, _ = self._known.find(call.function)
        options = call.enqueue
        assert options is not None
        if options.after is not None:
            step = {"function": call.function, "args": call.args, "takes": options.takes, "errors": options.errors}
            return {"task": self._follow(id, [step], options.after)[0]}
        items = [call.args] if call.batch is None else list(call.batch)
        for args in items:
            task.binder.bind(args)
        tasks = [self._run(id, call, task, args) for args in items]
        if call.batch is None:
            then = {"then": self._follow(id, options.then, tasks[0])} if options.then else {}
            return {"task": tasks[0], **then}
        if options.group is False and options.then is None:
            return {"tasks": tasks}
        group = self._group(tasks, options.group if isinstance(options.group, str) else None)
        return {"tasks": tasks, "group": group, "then": self._follow(id, options.then or [], group)}

    # ---- What follows

    def _group(self, tasks: list[str], group: str | None = None) -> str:
        kept = self._kept
        group = group or kept.next_id()
        members = kept.members.setdefault(group, [])
        members += tasks
        failed = sum(self._value(member, with_errors=False) is None for member in members)
        counts = {"total": len(members), "done": len(members) - failed, "failed": failed}
        kept.found[group] = {"task": group, "name": GROUP, "state": "done", "attempts": 0, "result": counts}
        return group

    def _follow(self, id: int, chain: Chain, before: str | None) -> list[Any]:
        """Run these one after another: their ids."""
        placed: list[Any] = []
        for step in chain:
            if "group" in step:
                chains = [self._follow(id, inner, before) for inner in step["group"]]
                ends = [inner[-1] if isinstance(inner[-1], str) else inner[-1]["group"] for inner in chains]
                before = self._group(ends)
                placed.append({"group": before, "tasks": chains})
            else:
                before = self._run_step(id, step, before)
                placed.append(before)
        return placed

    def _run_step(self, id: int, step: dict[str, Any], before: str | None) -> str:
        task, _ = self._known.find(step["function"])
        takes, errors = step.get("takes", True), step.get("errors", False)
        taken = (None,) if before is None else self._value(before, with_errors=errors)
        options = Enqueue(**step.get("enqueue", {}))
        planned = step_of(task, step.get("args"), options, takes=takes and before is not None, errors=errors)
        args = loads(planned.message.payload)["args"]
        if taken is None:
            receipt = self._kept.next_id()
            error = self._error(before or "")
            self._kept.found[receipt] = {"task": receipt, "name": task.name, "state": "failed", "attempts": 0}
            self._kept.found[receipt]["error"] = error
            return receipt
        if takes and before is not None:  # it is the first one
            args = {**args, next(iter(args)): taken[0]} if isinstance(args, dict) else [taken[0], *args[1:]]
        return self._run(id, Call(step["function"], args, id, enqueue=options), task, args)

    def _value(self, receipt: str, *, with_errors: bool) -> tuple[Any] | None:
        """What came of one, as another takes it; None where it has failed, and that one takes no errors."""
        if receipt in self._kept.members:
            values = [self._value(member, with_errors=with_errors) for member in self._kept.members[receipt]]
            return None if None in values else ([value[0] for value in values if value is not None],)
        found = self._kept.found.get(receipt)
        if found is None:
            raise QueueError(f"no task {receipt!r:.80} was enqueued here")
        if not with_errors:
            return (found["result"],) if "result" in found else None
        return ({name: found[name] for name in ("result", "error") if name in found},)

    def _error(self, receipt: str) -> Any:
        for member in self._kept.members.get(receipt, [receipt]):
            if self._value(member, with_errors=False) is None:
                return self._error(member) if member in self._kept.members else self._kept.found[member]["error"]
        raise AssertionError("nothing has failed")

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
            if attempts == MOST_ATTEMPTS and options.retries is None and task.policy.retries is None:
                kept.keys.pop(options.key or "", None)
                raise QueueError(
                    f"{task.name} asks for a further attempt after {attempts:,} of them, and in place no time passes "
                    "between two: have there be what it waits for before it is enqueued, or say retries=…"
                )
        if error is not None:
            error.pop("retry", None)
            error.pop("traceback", None)
        state = "done" if error is None else "failed"
        kept.found[receipt] = {"task": receipt, "name": task.name, "state": state, "attempts": attempts}
        kept.found[receipt].update(outcome.found)
        return receipt


def _enqueueing(call: Call) -> Call:
    """What ``greentask.enqueue`` asks for, as a call of the task. Raises ``InvalidArguments``."""
    steps = decode_enqueueing(call.args, call.id)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        asked: Call = end.value
        return asked
    except InvalidMessage as error:
        raise InvalidArguments(f"greentask.enqueue: {error}") from None


def _functions(chain: Chain) -> Iterator[str]:
    """Of each step of a chain, the name of its task."""
    for step in chain:
        if "group" in step:
            for inner in step["group"]:
                yield from _functions(inner)
        else:
            yield step["function"]


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
