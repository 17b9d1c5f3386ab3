"""``AsyncResult`` and ``GroupResult``: what has become of tasks."""

from __future__ import annotations

import concurrent.futures
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from ...errors import TaskError
from . import states
from .exceptions import (
    ChordError,
    IncompleteStream,
    MaxRetriesExceededError,
    NeedsQueue,
    NotCarriedOver,
    TaskRevokedError,
    TimeoutError,
)
from .members import refuse_member
from .transport import Sent

if TYPE_CHECKING:
    from .app import Celery

__all__ = ["AsyncResult", "EagerResult", "GroupResult", "Result"]

_ERRORS = (ChordError, MaxRetriesExceededError, NeedsQueue, NotCarriedOver, TaskRevokedError, TimeoutError)
_OWN = {error.__name__: error for error in _ERRORS}


class AsyncResult:
    """What has become of a task, or will.

    By its id it is found in any process where the server has a queue, as long as that knows it. Otherwise in the
    process that sent it, as long as the task is on its way or somebody holds its result, and raises ``NeedsQueue``
    elsewhere.

    ``parent`` is the result that its task was given, in a chain or chord; ``children`` are those of ``link``.
    """

    TimeoutError = TimeoutError

    def __init__(self, id: str | Sent, *, app: Celery | None = None) -> None:
        self._sent = id if isinstance(id, Sent) else _find(id, app)
        self.id = self._sent.id
        self.parent: AsyncResult | GroupResult | None = None
        self.children: list[AsyncResult | GroupResult] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} of {self._sent.task}>"

    def __str__(self) -> str:
        return self.id

    def __getattr__(self, name: str) -> Any:
        return refuse_member("result", name, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def task_id(self) -> str:
        """Its id, by its other name."""
        return self.id

    @property
    def name(self) -> str:
        """The task's name."""
        return self._sent.name()

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        no_ack: bool = True,
        follow_parents: bool = True,
        disable_sync_subtasks: bool = True,
        **unknown: Any,
    ) -> Any:
        """The task's result; waits for it up to ``timeout`` seconds, and raises ``TimeoutError`` then.

        Raises what the task raised, or gives it as if it were the result without ``propagate``. The other arguments
        are Celery's, and change nothing: nobody polls, and waiting in a task is allowed.
        """
        _refuse_unknown(unknown)
        error = self._error(timeout)
        if error is None:
            return self._sent.value()
        if propagate:
            raise error
        return error

    wait = get

    def _error(self, timeout: float | None = None) -> BaseException | None:
        """The error with which it ended; waits for its end."""
        try:
            error = self._sent.error(timeout)
        except concurrent.futures.CancelledError:
            return TaskRevokedError(f"{self.name}[{self.id}] was revoked")
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"{self.name}[{self.id}] has no result after {timeout:g} s") from None
        if isinstance(error, TaskError) and error.type in _OWN:
            return _OWN[error.type](error.args[0])
        return error

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Result | None, Result]]:
        """This result and those of what was linked to it, each with the one that it was linked to.

        Raises ``IncompleteStream`` at one that has not ended, unless ``intermediate``.
        """
        found: deque[tuple[Result | None, Result]] = deque([(None, self)])
        while found:
            parent, result = found.popleft()
            yield parent, result
            if result.ready():
                found.extend((result, child) for child in result.children)
            elif not intermediate:
                raise IncompleteStream(f"{result} has not ended")

    def collect(self, intermediate: bool = False, **options: Any) -> Iterator[tuple[Result, Any]]:
        """This result and those of what was linked to it, each with what it gives; ``options`` are those of ``get``."""
        for _, result in self.iterdeps(intermediate):
            yield result, result.get(**options)

    def ready(self) -> bool:
        """Whether it has ended."""
        return self._sent.done()

    def successful(self) -> bool:
        """Whether it has ended well."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return self.state == states.FAILURE

    @property
    def state(self) -> str:
        """One of ``states``, or what the task gave itself by ``update_state``."""
        if not self.ready():
            return self._sent.state or states.PENDING
        error = self._error()
        if error is None:
            return states.SUCCESS
        return states.REVOKED if isinstance(error, TaskRevokedError) else states.FAILURE

    status = state

    @property
    def result(self) -> Any:
        """The result, or the error; while it runs, the ``meta`` of its last ``update_state``."""
        return self.get(propagate=False) if self.ready() else self._sent.meta

    info = result

    @property
    def traceback(self) -> str | None:
        """The text of the task's traceback: of a task in a queue, or where the server sends it (``--debug``)."""
        error = self._error() if self.ready() else None
        if error is None:
            return None
        cause = error.__cause__
        text = cause.args[0] if isinstance(cause, TaskError) else getattr(error, "traceback", None)
        return text if isinstance(text, str) else self._sent.traceback()

    def revoke(self, terminate: bool = False, wait: bool = False, timeout: float | None = None) -> None:
        """Cancel it: what waits does not run.

        With ``terminate`` what runs is interrupted as well (by ``greentask.CancelRequest``, and killed if that doesn't
        end it). Where the server has no queue, it is so without ``terminate``, too.
        """
        self._sent.cancel(terminate=terminate)

    def forget(self) -> None:
        """Drop what this process holds of it by its id."""
        self._sent.forget()

    def when_done(self, tell: Callable[[Any, BaseException | None], None]) -> None:
        """Have ``tell(result, error)`` called at its end, in the thread of the I/O: it must not wait."""

        def done(_: object) -> None:
            error = self._error()
            tell(None if error is not None else self._sent.value(), error)

        self._sent.future.add_done_callback(done)


def _refuse_unknown(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            raise NotCarriedOver(
                f"{name}= of get() is not carried over from Celery: ask for `state` and `info` while it runs, or use "
                "greentask's own client.receipt(id).result(progress=…)"
            )


def _find(id: str, app: Celery | None) -> Sent:
    from .app import current_app

    return (current_app() if app is None else app).transport().find(id)


class EagerResult(AsyncResult):
    """Of a task that has run here (``apply``)."""


class GroupResult:
    """What has become of a group's tasks: ``results``, in their order."""

    def __init__(self, id: str | None = None, results: Iterable[AsyncResult | GroupResult] = ()) -> None:
        self.id = id or str(uuid.uuid4())
        self.results = list(results)
        self.parent: AsyncResult | GroupResult | None = None

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(result.id for result in self.results)}]>"

    def __str__(self) -> str:
        return self.id

    def __getattr__(self, name: str) -> Any:
        return refuse_member("result", name, self)

    @classmethod
    def restore(cls, id: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: what it was put together of is known to the program that sent it."""
        raise NotCarriedOver(f"GroupResult.restore({id!r}) is not carried over from Celery: keep the results' ids")

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AsyncResult | GroupResult]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AsyncResult | GroupResult:
        return self.results[index]

    @property
    def children(self) -> list[AsyncResult | GroupResult]:
        """``results``, by their other name."""
        return self.results

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        no_ack: bool = True,
        disable_sync_subtasks: bool = True,
        **unknown: Any,
    ) -> list[Any]:
        """All results, in the order of the group; ``timeout`` in seconds is for all of them together."""
        _refuse_unknown(unknown)
        until = None if timeout is None else time.monotonic() + timeout
        return [
            result.get(None if until is None else max(0.0, until - time.monotonic()), propagate)
            for result in self.results
        ]

    join = join_native = get

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(result.ready() for result in self.results)

    def successful(self) -> bool:
        """Whether all have ended well."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Whether one has ended with an error."""
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Whether one has not ended."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have ended well."""
        return sum(result.successful() for result in self.results)

    def revoke(self, terminate: bool = False, wait: bool = False, timeout: float | None = None) -> None:
        """Cancel those that have not ended."""
        for result in self.results:
            result.revoke(terminate)

    def forget(self) -> None:
        """Drop what this process holds of them by their ids."""
        for result in self.results:
            result.forget()

    def when_done(self, tell: Callable[[Any, BaseException | None], None]) -> None:
        """Have ``tell(results, error)`` called when all have ended, with the error of the first that failed."""
        values: list[Any] = [None] * len(self.results)
        failed: list[BaseException] = []
        left = [None] * len(self.results)  # one is taken out at each end: that is atomic, in any thread
        if not left:
            tell([], None)
        for index, result in enumerate(self.results):

            def done(value: Any, error: BaseException | None, index: int = index) -> None:
                values[index] = value
                if error is not None:
                    failed.append(error)
                left.pop()
                if not left:
                    tell(values, failed[0] if failed else None)

            result.when_done(done)


Result = AsyncResult | GroupResult
