"""Every exception that crosses the API, and its name on the wire.

.. code-block:: text

    Exception
    └── GreentaskError
        ├── ConfigurationError          an address, APP or option that can't be used  (also ValueError)
        ├── PoolBroken                  task processes could not be started
        ├── ConnectionLost              the link broke before the answer              (also ConnectionError)
        └── CallError                   a call ended without a result
            ├── InvalidMessage          not JSON, wrong shape, unknown member
            │   └── LineTooLong         a line longer than max_line
            ├── UnknownTask             no task of that name                          (also LookupError)
            ├── InvalidArguments        they don't fit the signature                  (also TypeError)
            ├── Overloaded              admission refused it
            ├── Draining                the server is going away
            ├── Unauthenticated         a secret is required
            ├── DeadlineExceeded        out of time                                   (also TimeoutError)
            ├── Cancelled               somebody cancelled it
            ├── WorkerLost              the process that ran it died
            ├── QueueError              the durable queue can't take or find it
            │   └── QueueFull           its disk is full
            ├── InvalidResult           JSON can't carry what the task returned
            └── TaskError               an error whose class is not known here
    BaseException
    └── Interrupt                       raised inside a running task
        ├── TimeLimit                   its time is up
        └── CancelRequest               its caller gave up

The names below ``CallError`` are the protocol's own error types. A task's other exceptions travel by
their class name, and come back as the builtin of that name where there is one.
"""

from __future__ import annotations

import builtins
from concurrent.futures import BrokenExecutor
from typing import Any

__all__ = [
    "CallError",
    "CancelRequest",
    "Cancelled",
    "ConfigurationError",
    "ConnectionLost",
    "DeadlineExceeded",
    "Draining",
    "GreentaskError",
    "Interrupt",
    "InvalidArguments",
    "InvalidMessage",
    "InvalidResult",
    "LineTooLong",
    "Overloaded",
    "PoolBroken",
    "QueueError",
    "QueueFull",
    "TaskError",
    "TimeLimit",
    "Unauthenticated",
    "UnknownTask",
    "WorkerLost",
    "describe",
    "ended_by",
    "from_wire",
    "out_of_time",
    "refusal",
]


class GreentaskError(Exception):
    """The root of all errors that greentask raises."""


class ConfigurationError(GreentaskError, ValueError):
    """An address, APP or option can't be used; the message names it and says what would do."""


class PoolBroken(GreentaskError, BrokenExecutor):
    """Task processes can't be started: the code that they import fails. The message carries its traceback."""


class ConnectionLost(GreentaskError, ConnectionError):
    """The server can't be reached, or the link broke before the answer.

    ``sent`` says whether the call may have reached a server: False means that it certainly did not run.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class CallError(GreentaskError):
    """A call ended without a result.

    ``started`` is True when the task ran (in part), False when it did not, None when nobody knows.
    ``traceback`` is the remote traceback's text, where the server was told to send it.
    """

    started: bool | None = False
    traceback: str | None = None

    def __init__(self, message: str = "", *, started: bool | None = None, traceback: str | None = None) -> None:
        super().__init__(message)
        if started is not None:
            self.started = started
        if traceback is not None:
            self.traceback = traceback

    @property
    def type(self) -> str:
        """The error's name on the wire."""
        return type(self).__name__


class InvalidMessage(CallError):
    """A line is not JSON, has the wrong shape or a member that is not in the protocol."""


class LineTooLong(InvalidMessage):
    """A line exceeds ``max_line`` bytes. Send less at once, or raise ``--max-line`` on the server.

    ``lines`` holds the whole lines that arrived before it, ``begin`` its first bytes, ``rest`` what arrived behind it;
    None where it has not ended.
    """

    lines: tuple[bytes, ...] = ()
    begin: bytes = b""
    rest: bytes | None = None


class UnknownTask(CallError, LookupError):
    """The server has no task of that name; the message lists close names."""


class InvalidArguments(CallError, TypeError):
    """The arguments don't fit the task's signature."""


class Overloaded(CallError):
    """Too many calls are in flight; try again later, or elsewhere."""


class Draining(CallError):
    """The server is going away and starts nothing new; call another one."""


class Unauthenticated(CallError):
    """The server requires a secret that was not proven."""


class DeadlineExceeded(CallError, TimeoutError):
    """The call's time ran out; ``started`` says whether the task had begun."""


class Cancelled(CallError):
    """The call was cancelled; ``started`` says whether the task had begun."""


class WorkerLost(CallError):
    """The process that ran the task died; the message says of what. The task ran in part."""

    started = True


class QueueError(CallError):
    """The server's durable queue can't do what was asked; nothing has changed. The message says why."""


class QueueFull(QueueError):
    """The queue's disk is full, and a task could not be kept. What was kept before is safe: make room."""


class InvalidResult(CallError):
    """The task returned what JSON can't carry, and the message says where in the value; or more than may be sent."""

    started = True


class TaskError(CallError):
    """The task raised an error whose class is not known here; ``type`` is the class's name."""

    started = True

    def __init__(
        self,
        message: str = "",
        *,
        type: str = "TaskError",
        started: bool | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message, started=started, traceback=traceback)
        self._type = type

    @property
    def type(self) -> str:
        """The remote exception's class name."""
        return self._type

    def __str__(self) -> str:
        return f"{self._type}: {self.args[0]}" if self.args[0] else self._type


class Interrupt(BaseException):
    """Raised inside a running task to end it.

    Like ``gevent.Timeout`` it is not an ``Exception``, so that a task's ``except Exception`` doesn't swallow it.
    """


class TimeLimit(Interrupt):
    """The task's time is up. It may clean up for the length of the grace; then its process is killed."""


class CancelRequest(Interrupt):
    """The task's caller cancelled it or went away."""


#: The protocol's own error types: those that a server may send and a client raises as the class itself.
PROTOCOL_TYPES: dict[str, type[CallError]] = {
    cls.__name__: cls
    for cls in (
        InvalidMessage,
        LineTooLong,
        UnknownTask,
        InvalidArguments,
        Overloaded,
        Draining,
        Unauthenticated,
        DeadlineExceeded,
        Cancelled,
        WorkerLost,
        QueueError,
        QueueFull,
        InvalidResult,
    )
}

# StopIteration would end a generator that awaits the result, without a sound.
_NOT_RAISED_LOCALLY = (StopIteration, StopAsyncIteration)


def describe(error: BaseException, *, traceback: str | None = None) -> dict[str, Any]:
    """The wire's ``error`` object for an exception that a task raised.

    A protocol error that a task raised itself (it called another task, say) goes out under the name
    ``greentask.<Type>``: under its own name it would tell the caller that *this* task did not run.
    """
    if isinstance(error, TaskError):
        name, message = error.type, str(error.args[0])
    elif isinstance(error, (CallError, Interrupt)):
        name, message = f"greentask.{type(error).__name__}", str(error)
    else:
        name, message = type(error).__name__, _message(error)
    if name in PROTOCOL_TYPES:  # somebody else's class, such as google.api_core.exceptions.DeadlineExceeded
        name = f"{type(error).__module__}.{name}"
    described: dict[str, Any] = {"type": name, "message": message.encode("utf-8", "replace").decode()}
    if traceback is not None:
        described["traceback"] = traceback.encode("utf-8", "replace").decode()
    return described


def refusal(error: CallError) -> dict[str, Any]:
    """The wire's ``error`` object for one of the protocol's own errors, raised by greentask itself."""
    described: dict[str, Any] = {
        "type": error.type,
        "message": str(error).encode("utf-8", "replace").decode(),
    }
    if isinstance(error, (DeadlineExceeded, Cancelled)):
        described["started"] = error.started is not False  # it may have begun, where nobody knows
    if error.traceback is not None:
        described["traceback"] = error.traceback
    return described


def out_of_time(*, started: bool) -> DeadlineExceeded:
    """The error for a call whose deadline passed."""
    when = "while the task ran" if started else "before the task started"
    return DeadlineExceeded(f"the time ran out {when}", started=started)


def ended_by(interrupt: Interrupt) -> CallError:
    """The error for a call whose task an interrupt has ended."""
    if isinstance(interrupt, CancelRequest):
        return Cancelled("cancelled while it ran", started=True)
    return out_of_time(started=True)


def from_wire(described: dict[str, Any]) -> Exception:
    """The exception that a client raises for an ``error`` object.

    One of the protocol's own classes, or the builtin exception of that name where a message alone makes
    one, or ``TaskError``.
    """
    name, message = str(described.get("type", "TaskError")), str(described.get("message", ""))
    traceback = described.get("traceback")
    traceback = traceback if isinstance(traceback, str) else None
    started = described.get("started")
    known = PROTOCOL_TYPES.get(name)
    if known is not None:
        return known(message, started=started if isinstance(started, bool) else None, traceback=traceback)
    builtin = getattr(builtins, name, None)
    if isinstance(builtin, type) and issubclass(builtin, Exception) and not issubclass(builtin, _NOT_RAISED_LOCALLY):
        try:
            error = builtin(message)
        except TypeError:  # UnicodeDecodeError and ExceptionGroup want more than a message
            pass
        else:
            if traceback is not None:
                error.__cause__ = TaskError(traceback, type=f"Remote traceback of {name}")
            return error
    return TaskError(message, type=name, traceback=traceback)


def _message(error: BaseException) -> str:
    # str(KeyError("x")) is "'x'": the bare key is what makes an equal KeyError again.
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]
    try:
        return str(error)
    except Exception as failed:
        return f"<its message can't be shown: {type(failed).__name__}>"
