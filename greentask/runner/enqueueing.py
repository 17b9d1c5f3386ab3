"""A call that asks for tasks to be enqueued, as the hooks of calls see it: they may refuse it as any other.

It is one call for them, of each task that it names: of the one that it calls, and of those that are to follow. A batch
is kept as a whole or not at all, so it is asked about once, and not for each item; ``CallInfo.enqueues`` says how many.
What runs later, attempt after attempt, are calls of their own. Statistics count those, and not this one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..errors import CallError
from ..pool.calls import Listener
from ..pool.frames import Body
from ..tasks.middleware import CallInfo, Hooks, Refused, error_of, outcome_of
from ..tasks.task import Task
from ..wire.message import Id

__all__ = ["watch_enqueueing"]


def watch_enqueueing(
    hooks: Hooks, tasks: Mapping[Task[..., Any], int], id: Id | None, peer: str | None, listener: Listener
) -> Listener:
    """Ask the hooks whether so many of these tasks may be enqueued, by who is ``peer``.

    The listener that is returned hears what came of it, in place of the one that was given. Raises the ``CallError`` of
    a hook that refuses it.
    """
    watched = _Enqueueing(hooks, tasks, id, peer, listener)
    if hooks.before_call:
        watched.ask()
    return watched


class _Enqueueing:
    """The ``Listener`` of such a call."""

    __slots__ = ("_began", "_hooks", "_id", "_infos", "_listener", "_peer", "_tasks")

    def __init__(
        self, hooks: Hooks, tasks: Mapping[Task[..., Any], int], id: Id | None, peer: str | None, listener: Listener
    ) -> None:
        self._hooks = hooks
        self._tasks = tasks
        self._id = id
        self._peer = peer
        self._listener = listener
        self._began = time.monotonic()
        self._infos: list[CallInfo] | None = None  # made for the first hook

    def ask(self) -> None:
        """Ask the hooks. Raises ``CallError``, of which they have heard then."""
        for info in self._told():
            try:
                self._hooks.ask(self._hooks.before_call, info)
            except Refused as refused:
                self._fail(refused.error)
                raise refused.error from None

    def done(self, result: Body) -> None:
        self._listener.done(result)
        if self._hooks.after_call:
            for info in self._told():
                self._hooks.tell(self._hooks.after_call, info.ended("done"))

    def failed(self, error: bytes) -> None:
        self._listener.failed(error)
        self._fail(error)

    def refuse(self, error: CallError) -> None:
        self._listener.refuse(error)
        self._fail(error)

    def progress(self, report: bytes) -> None:
        self._listener.progress(report)

    def item(self, item: bytes) -> None:
        self._listener.item(item)

    def _fail(self, error: CallError | bytes) -> None:
        hooks = self._hooks
        if hooks.call_failed or hooks.after_call:
            for info in self._told():
                ended = info.ended(outcome_of(error), error_of(error))
                hooks.tell(hooks.call_failed, ended)
                hooks.tell(hooks.after_call, ended)

    def _told(self) -> list[CallInfo]:
        """The call, as hooks see it, of each task."""
        if self._infos is None:
            self._infos = [
                CallInfo(task.name, self._id, None, self._peer, "server", task.group, self._began, {}, enqueues=count)
                for task, count in self._tasks.items()
                if count
            ]
        return self._infos
