"""A call that hooks look at: tells them that it came, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..errors import CallError, InvalidResult
from ..pool.calls import Listener
from ..pool.frames import Body
from ..tasks.middleware import CallInfo, Hooks, Outcome, Refused, error_of, outcome_of
from ..tasks.task import Task
from ..wire.message import Args, Call
from .statistics import Statistics

__all__ = ["WatchedCall"]


class WatchedCall:
    """The ``Listener`` of a call in place of the one that waits for it, which hears everything before the hooks do."""

    __slots__ = (
        "_began",
        "_call",
        "_check_result",
        "_hooks",
        "_item",
        "_listener",
        "_peer",
        "_state",
        "_statistics",
        "_task",
        "args",
    )

    def __init__(
        self,
        hooks: Hooks,
        task: Task[..., Any],
        call: Call,
        item: int | None,
        peer: str | None,
        listener: Listener,
        check_result: Callable[[Body], None] | None,
        statistics: Statistics | None,
        args: Args | None,
    ) -> None:
        self.args = args
        self._statistics = statistics
        self._hooks = hooks
        self._task = task
        self._call = call
        self._item = item
        self._peer = peer
        self._listener = listener
        self._check_result = check_result
        self._began = time.monotonic()
        self._state: dict[str, Any] | None = None  # made for the first hook

    @property
    def info(self) -> CallInfo:
        """The call, as hooks see it."""
        task = self._task
        if self._state is None:
            self._state = {}
        return CallInfo(
            task.name, self._call.id, self._item, self._peer, "server", task.group, self._began, self._state
        )

    def begin(self) -> None:
        """It has come. Raises ``CallError`` where a hook refuses it."""
        if self._statistics is not None:
            self._statistics.running[self] = None
        if self._hooks.before_call:
            try:
                self._hooks.ask(self._hooks.before_call, self.info)
            except Refused as refused:
                raise refused.error from None

    def tell_refused(self, error: CallError) -> None:
        """It was not started, and whoever called for it tells the caller."""
        self._tell(outcome_of(error), error)

    def done(self, result: Body) -> None:
        if self._check_result is not None:
            try:
                self._check_result(result)
            except InvalidResult as error:
                self.refuse(error)
                return
        self._listener.done(result)
        if self._statistics is not None:
            self._statistics.ended(self, self._task.name, "done", time.monotonic() - self._began)
        if self._hooks.after_call:
            self._hooks.tell(self._hooks.after_call, self.info.ended("done"))

    def failed(self, error: bytes) -> None:
        self._listener.failed(error)
        self._tell(outcome_of(error), error)

    def refuse(self, error: CallError) -> None:
        self._listener.refuse(error)
        self._tell(outcome_of(error), error)

    def progress(self, report: bytes) -> None:
        self._listener.progress(report)

    def item(self, item: bytes) -> None:
        self._listener.item(item)

    def _tell(self, outcome: Outcome, error: CallError | bytes) -> None:
        hooks = self._hooks
        if self._statistics is not None:
            self._statistics.ended(self, self._task.name, outcome, time.monotonic() - self._began)
        if hooks.call_failed or hooks.after_call:
            ended = self.info.ended(outcome, error_of(error))
            hooks.tell(hooks.call_failed, ended)
            hooks.tell(hooks.after_call, ended)
