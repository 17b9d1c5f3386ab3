"""``TaskQueue``: a server's durable tasks, from the line that enqueues one to the answer for who waits for it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

import gevent

from ..errors import (
    CallError,
    ConfigurationError,
    Draining,
    InvalidArguments,
    InvalidMessage,
    QueueError,
)
from ..hub.home import Home
from ..hub.steps import run_in_turns
from ..pool.calls import Listener
from ..runner.enqueueing import watch_enqueueing
from ..tasks.binding import Binder
from ..tasks.checks import check_count
from ..tasks.schedules import Schedule
from ..tasks.task import Task
from ..wire.chain import check_chain, check_length
from ..wire.enqueue import Enqueue
from ..wire.message import Call, decode_enqueueing
from ..wire.steps import LARGE, loads_in_steps
from ..wire.writing import dumps_in_steps
from .asked import Enqueued, answer_with, manage
from .consumer import Consumer
from .interface import Message, Repeat, Step
from .limits import (
    DEFAULT_DEAD_LIMIT,
    DEFAULT_GREENLETS,
    DEFAULT_KEEP_ATTEMPTS,
    DEFAULT_KEY_TTL,
    DEFAULT_LEASE,
    DEFAULT_MAX_BATCH,
    DEFAULT_MAX_LOST_FRONTS,
    DEFAULT_MAX_LOST_PROCESSES,
    DEFAULT_MAX_MEMBERS,
    DEFAULT_MAX_TAKEN,
    DEFAULT_MEMORY,
    DEFAULT_RESULT_TTL,
)
from .lookout import look_out
from .messages import chain_of, count_steps, message_of, messages_of, step_of
from .sqlite import SQLiteQueue
from .waiting import Waiters, Waiting

if TYPE_CHECKING:
    from ..server.server import Server

__all__ = ["TaskQueue"]


class TaskQueue:
    """The durable tasks of a server, in a file. Several servers of one machine may share it.

    path
        The file; it is made where there is none.
    greenlets
        How many durable tasks run in greenlets at once.
    lease
        Seconds of silence after which others run what a server had. One that died is noticed within a second.
    result_ttl
        Seconds for which a task that has ended is known, with its result. Dead letters stay.
    key_ttl
        Seconds for which a key holds when its task is no longer known.
    dead_limit
        Dead letters that are kept; of more, the oldest are forgotten.
    max_batch
        Tasks of one line that are kept together.
    max_lost_fronts, max_lost_processes
        Servers that may die, or be silent, while they have one task, and processes that may die while they run it;
        then it is a dead letter.
    max_members
        Members of a group whose results are taken.
    max_taken
        Bytes of results that one task takes of others.
    memory
        Bytes of arguments of the tasks that are here at once; one task may have more.
    keep_attempts
        Attempts of a task, the newest ones, of which all of the error is kept.

    Raises ``ConfigurationError`` for what one of these can't be.

    >>> Server([send_mail], queue=TaskQueue("tasks.db"))      # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        greenlets: int = DEFAULT_GREENLETS,
        lease: float = DEFAULT_LEASE,
        result_ttl: float = DEFAULT_RESULT_TTL,
        key_ttl: float = DEFAULT_KEY_TTL,
        dead_limit: int = DEFAULT_DEAD_LIMIT,
        max_batch: int = DEFAULT_MAX_BATCH,
        max_lost_fronts: int = DEFAULT_MAX_LOST_FRONTS,
        max_lost_processes: int = DEFAULT_MAX_LOST_PROCESSES,
        max_members: int = DEFAULT_MAX_MEMBERS,
        max_taken: int = DEFAULT_MAX_TAKEN,
        memory: int = DEFAULT_MEMORY,
        keep_attempts: int = DEFAULT_KEEP_ATTEMPTS,
    ) -> None:
        try:
            check_count("greenlets of a queue", greenlets)
            check_count("max_batch of a queue", max_batch)
            check_count("max_lost_processes of a queue", max_lost_processes)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from None
        self._queue = SQLiteQueue(
            path,
            lease=lease,
            result_ttl=result_ttl,
            key_ttl=key_ttl,
            dead_limit=dead_limit,
            max_lost_fronts=max_lost_fronts,
            max_members=max_members,
            max_taken=max_taken,
            memory=memory,
            keep_attempts=keep_attempts,
        )
        self._max_batch, self._max_lost_processes = max_batch, max_lost_processes
        self._greenlets = greenlets
        self._server: Server | None = None
        self._consumer: Consumer | None = None
        self._waiters = Waiters(self._queue, self._newest_report)
        self._is_draining = False
        #: Whether it says who has the file's lock when it waits for that for too long. A front's master does so itself.
        self.looks_out = True
        self._lookout: gevent.Greenlet[..., None] | None = None
        self._once: dict[Task[..., Any], Mapping[Task[..., Any], int]] = {}  # of each task: that it is enqueued once
        self._functions: dict[str, Callable[[Call, Listener, str | None], Waiting | None]] = {
            "greentask.enqueue": self._enqueue_named,
            "greentask.result": self._result,
            "greentask.revoke": self._revoke,
            "greentask.compose": self._compose_chain,
            "greentask.queue": self._manage,
        }

    # ---- The server's

    def start(self, server: Server) -> None:
        """Begin to run what is in it: for the server."""
        self._server = server
        self._queue.open(Home())
        if self.looks_out:
            self._lookout = gevent.spawn(look_out, self._queue.path, self._queue.lease, self._queue.waited)
        self._consumer = Consumer(
            self._queue,
            server.runner,
            greenlets=self._greenlets,
            max_lost_processes=self._max_lost_processes,
            progress=self._waiters.report,
        )
        self._consumer.start()
        self._queue.repeat([_repeat(task, task.schedule) for task in server.tasks if task.schedule is not None])

    def enqueue(self, call: Call, text: bytes, answer: Listener, peer: str | None = None) -> None:
        """Keep what a call asks for: for the server."""
        server, options = self._server, call.enqueue
        assert server is not None
        assert options is not None
        task = server.tasks.find(call.function)
        if call.batch is None and options.then is None:
            counts = self._once.get(task) or self._once.setdefault(task, {task: 1})
        else:
            counts = Counter({task: 1 if call.batch is None else len(call.batch)})
            if options.then is not None:
                counts += count_steps(server.tasks, options.then)
        answer = watch_enqueueing(server.runner.hooks, counts, call.id, peer, answer)
        try:
            self._enqueue(call, options, task, text, answer)
        except CallError as error:
            answer.refuse(error)

    def _enqueue(self, call: Call, options: Enqueue, task: Task[..., Any], text: bytes, answer: Listener) -> None:
        if call.batch is not None:
            if options.after is not None:
                raise InvalidArguments("a batch doesn't follow anything: after is for one task")
            if options.key is not None:  # or all but the first would be taken for it
                raise InvalidArguments("a key is one task's: enqueue those that have one by themselves")
            if len(call.batch) > self._max_batch:
                raise InvalidArguments(
                    f"{len(call.batch):,} tasks in one batch to enqueue, and {self._max_batch:,} are the most "
                    "(max_batch): send several"
                )
            messages = run_in_turns(messages_of(task, call.batch, options))
        else:
            args = call.args
            if task.process and len(text) > LARGE:  # of such a line the arguments were left out
                if task.singleton or options.after is not None:
                    args = run_in_turns(loads_in_steps(text)).get("args")
            elif options.after is None:
                task.binder.bind(args)
            if options.after is not None:
                step = step_of(task, args, options, takes=options.takes, errors=options.errors)
                answer_with(self._queue.compose([step], options.after), answer, lambda placed: {"task": placed[0]})
                return
            messages = [message_of(task, text, args, options)]
        if options.then is not None or options.group is not False or options.open:
            self._compose(call, messages, options, answer)
            return

        self._queue.keep(messages, Enqueued(answer, is_batch=call.batch is not None))

    def _compose(self, call: Call, messages: list[Message], options: Enqueue, answer: Listener) -> None:
        """Keep messages as a group, or one with what follows it."""
        assert self._server is not None
        then = run_in_turns(chain_of(self._server.tasks, options.then or []))
        if call.batch is None:
            if options.group is not False or options.open:
                raise InvalidArguments("a group is made of a batch: group and open don't go without one")
            kept = self._queue.compose([Step(messages[0], takes=False), *then])
            answer_with(kept, answer, lambda placed: {"task": placed[0], "then": placed[1:]})
        else:
            group = options.group if isinstance(options.group, str) else None
            answer_with(
                self._queue.enqueue_group(messages, then, group, is_open=options.open),
                answer,
                lambda kept: {"tasks": kept[0], "group": kept[1], "then": kept[2]},
            )

    def call(self, call: Call, answer: Listener, peer: str | None = None) -> Waiting | None:
        """Run one of the queue's own functions: for the server."""
        if call.batch is not None or call.stream:
            raise InvalidArguments(f"{call.function} takes no batch and has no stream")
        return self._functions[call.function](call, answer, peer)

    def drain(self) -> None:
        """Begin nothing more: for the server."""
        self._is_draining = True
        if self._consumer is not None:
            self._queue.repeat([])
            self._consumer.stop()
        self._waiters.refuse(Draining("this server is going away: ask another, or again in a moment"))

    def join(self, timeout: float) -> None:
        """Wait until what runs has ended: for the server."""
        if self._consumer is not None:
            self._consumer.join(timeout)

    def close(self) -> None:
        """End, and leave to others what has not ended: for the server."""
        if self._lookout is not None:
            self._lookout.kill(block=False)
        if self._consumer is not None:
            self._consumer.close()
        self._queue.close()

    def status(self) -> dict[str, Any]:
        """How it is: for the server."""
        consumer = self._consumer
        if consumer is None:
            return {}
        return {"running": consumer.running, **consumer.counts, **self._queue.counters()}

    def count(self, timeout: float) -> dict[str, Any]:
        """What ``greentask queue stats`` shows of the file. Raises ``QueueError``, also where it takes longer."""
        try:
            counted: dict[str, Any] = self._queue.count().result(timeout)
        except FutureTimeout:
            raise QueueError(f"the queue could not be looked at within {timeout:g} s") from None
        except CallError as error:
            raise QueueError(f"the queue can't be looked at: {error}") from None
        return counted

    # ---- greentask.result

    def _result(self, call: Call, answer: Listener, _peer: str | None) -> Waiting | None:
        def result(task: str = "", wait: bool | float = False, key: str = "") -> tuple[str, str, float | None]:
            if not isinstance(key, str) or bool(task) == bool(key):
                raise InvalidArguments("greentask.result: it is asked for a task by its id, or by its key, a string")
            if isinstance(wait, bool):
                return task, key, None if wait else 0.0
            if not isinstance(wait, (int, float)) or not 0 <= wait < 1e9:
                raise InvalidArguments(f"greentask.result: wait is true, or a number of seconds, not {wait!r:.80}")
            return task, key, float(wait)

        id, key, patience = _bind(result, call)
        if self._is_draining and patience != 0:
            raise Draining("this server is going away: ask another, or again in a moment")
        return self._waiters.wait(id, key, answer, patience, wants_progress=call.progress)

    def _newest_report(self, id: str) -> bytes | None:
        return None if self._consumer is None else self._consumer.reports.get(id)

    @property
    def _max_steps(self) -> int:
        assert self._server is not None
        return self._server.limits.max_steps

    # ---- greentask.enqueue, greentask.revoke, greentask.compose, greentask.queue

    def _enqueue_named(self, call: Call, answer: Listener, peer: str | None) -> None:
        """For those whose protocol has no place for how a call is to run: JSON-RPC."""
        try:
            asked = run_in_turns(decode_enqueueing(call.args, call.id, self._max_steps))
        except InvalidMessage as error:
            raise InvalidArguments(f"greentask.enqueue: {error}") from None
        text = b"" if asked.batch is not None else b"".join(run_in_turns(dumps_in_steps({"args": asked.args})))
        self.enqueue(asked, text, answer, peer)

    def _revoke(self, call: Call, answer: Listener, _peer: str | None) -> None:
        def revoke(task: str, running: bool = False) -> tuple[str, bool]:
            if not isinstance(running, bool):
                raise InvalidArguments(f"greentask.revoke: running is true or false, not {running!r:.80}")
            return task, running

        task, running = _bind(revoke, call)
        answer_with(self._queue.revoke(task, running=running), answer)

    def _compose_chain(self, call: Call, answer: Listener, peer: str | None) -> None:
        def compose(chain: Any) -> Any:
            return chain

        assert self._server is not None
        positional, named = Binder(compose, call.function).bind(call.args)
        try:
            given = compose(*positional, **named)
            check_length(given, "chain", self._max_steps)
            given = check_chain(given, "chain", lambda options: Enqueue(**options))
        except ValueError as error:
            raise InvalidArguments(f"greentask.compose: {error}") from None
        counts = count_steps(self._server.tasks, given)
        answer = watch_enqueueing(self._server.runner.hooks, counts, call.id, peer, answer)
        try:
            chain = run_in_turns(chain_of(self._server.tasks, given, is_first=True))
            answer_with(self._queue.compose(chain), answer, lambda placed: {"tasks": placed})
        except CallError as error:
            answer.refuse(error)

    def _manage(self, call: Call, answer: Listener, _peer: str | None) -> None:
        assert self._server is not None
        manage(self._queue, call, answer, self.status, hides_arguments=self._server.hides_arguments)


def _repeat(task: Task[..., Any], schedule: Schedule) -> Repeat:
    return Repeat(message_of(task, b'{"args":{}}', None, Enqueue()), schedule, task.catch_up)


def _bind(function: Callable[..., Any], call: Call) -> Any:
    positional, named = Binder(function, call.function).bind(call.args)
    task = named.get("task", positional[0] if positional else "")
    if not isinstance(task, str):
        raise InvalidArguments(
            f"{call.function}: task is the id that enqueueing has answered, a string, not {task!r:.80}"
        )
    return function(*positional, **named)
