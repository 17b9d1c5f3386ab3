"""A call that is to be run: counted, and told to the hooks when it comes and when it has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..errors import CallError, InvalidResult
from ..pool.calls import Listener
from ..pool.frames import Body, size_of
from ..tasks.middleware import CallInfo, Hooks, Outcome, Refused, error_of, outcome_of
from ..tasks.task import Task
from ..wire.message import Args, Call
from .readers import Reader
from .statistics import Statistics

__all__ = ["Watch", "WatchedCall", "too_large"]


def too_large(size: int, most: float) -> InvalidResult:
    """Refuses a result that would have its peer cut off, with all of its other calls."""
    return InvalidResult(
        f"the result takes {size} bytes, more than max_unsent ({most:.0f}): return less at once, or raise max_unsent"
    )


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks at the calls of a runner: its hooks, its statistics, and how large a result may be."""

    hooks: Hooks
    statistics: Statistics
    max_result: float  # bytes


class WatchedCall:
    """One call of a task, and its ``Listener`` in place of the one that waits for it, which hears everything first.

    It is counted among those that run from the moment that it is made until it has heard of its end.
    ``args`` are the call's, or those of the one item of a batch that this is.
    """

    __slots__ = ("_item", "_listener", "_state", "_watch", "args", "began", "call", "reader", "task")

    def __init__(
        self,
        watch: Watch,
        task: Task[..., Any],
        call: Call,
        args: Args | None,
        listener: Listener,
        reader: Reader,
        item: int | None,
    ) -> None:
        self.task = task
        self.call = call
        self.args = args
        self.reader = reader
        self.began = time.monotonic()
        self._watch = watch
        self._listener = listener
        self._item = item
        self._state: dict[str, Any] | None = None  # made for the first hook
        watch.statistics.running[self] = None

    @property
    def info(self) -> CallInfo:
        """The call, as hooks see it."""
        return self._info(None, None, None)

    def _ended(self, outcome: Outcome, error: dict[str, Any] | None = None) -> CallInfo:
        """The same, at its end."""
        return self._info(time.monotonic() - self.began, outcome, error)

    def _info(self, duration: float | None, outcome: Outcome | None, error: dict[str, Any] | None) -> CallInfo:
        task, call = self.task, self.call
        if self._state is None:
            self._state = {}
        enqueues = 0 if call.enqueue is None else 1 if call.batch is None else len(call.batch)
        return CallInfo(
            task.name,
            call.id,
            self._item,
            self.reader.peer,
            "server",
            task.group,
            self.began,
            self._state,
            duration,
            outcome,
            error,
            enqueues,
        )

    def begin(self) -> None:
        """It has come, which is for hooks to hear (``before_call``). Raises ``CallError`` where one refuses it."""
        watch = self._watch
        if watch.hooks.before_call:
            try:
                watch.hooks.ask(watch.hooks.before_call, self.info)
            except Refused as refused:
                raise refused.error from None

    def tell_refused(self, error: CallError) -> None:
        """It was not started, and whoever called for it tells the caller."""
        self._tell(outcome_of(error), error)

    def done(self, result: Body) -> None:
        watch = self._watch
        size = len(result) if type(result) is bytes else size_of(result)
        if size > watch.max_result:
            self.refuse(too_large(size, watch.max_result))
            return
        self._listener.done(result)
        watch.statistics.ended(self, "done")
        if watch.hooks.after_call:
            watch.hooks.tell(watch.hooks.after_call, self._ended("done"))

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
        hooks = self._watch.hooks
        self._watch.statistics.ended(self, outcome)
        if hooks.call_failed or hooks.after_call:
            ended = self._ended(outcome, error_of(error))
            hooks.tell(hooks.call_failed, ended)
            hooks.tell(hooks.after_call, ended)
