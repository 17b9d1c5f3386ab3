"""greentask: a task server for synchronous Python.

>>> from greentask import task
>>> @task
... def add(a, b):
...     return a + b
>>> add(1, 2)                  # here
3
>>> add.call(1, 2)             # on the server                # doctest: +SKIP
3

Importing it patches nothing, opens nothing and starts nothing. What needs gevent is imported at first use: a task
process imports this package for ``task`` and ``current``, and stays a plain, small Python.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _early, errors  # noqa: F401  # the former first, before the rest takes its time
from ._version import __version__
from .errors import (
    CallError,
    Cancelled,
    CancelRequest,
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    GreentaskError,
    InvalidArguments,
    InvalidMessage,
    InvalidResult,
    LineTooLong,
    Overloaded,
    PoolBroken,
    QueueError,
    QueueFull,
    TaskError,
    TimeLimit,
    Unauthenticated,
    UnknownTask,
    WorkerLost,
)
from .tasks.context import RunningTask, current
from .tasks.middleware import CallInfo, Middleware
from .tasks.registry import Tasks
from .tasks.remote import BatchReceipt, Receipt, TaskFuture, provide_default_caller
from .tasks.resources import Resource, resource
from .tasks.retries import Backoff, Retry
from .tasks.steps import Fan, Step
from .tasks.task import Task, task

if TYPE_CHECKING:
    from .client import Client, as_completed, configure, default_client, gather, wait
    from .gateway import Gateway
    from .hub.files import TLSFiles
    from .pool.executor import Pool
    from .queue.service import TaskQueue
    from .server.groups import Group
    from .server.limits import Limits
    from .server.server import Server
    from .server.text import TextConnection, TextServer

__all__ = [
    "Backoff",
    "BatchReceipt",
    "CallError",
    "CallInfo",
    "CancelRequest",
    "Cancelled",
    "Client",
    "ConfigurationError",
    "ConnectionLost",
    "DeadlineExceeded",
    "Draining",
    "Fan",
    "Gateway",
    "GreentaskError",
    "Group",
    "InvalidArguments",
    "InvalidMessage",
    "InvalidResult",
    "Limits",
    "LineTooLong",
    "Middleware",
    "Overloaded",
    "Pool",
    "PoolBroken",
    "QueueError",
    "QueueFull",
    "Receipt",
    "Resource",
    "Retry",
    "RunningTask",
    "Server",
    "Step",
    "TLSFiles",
    "Task",
    "TaskError",
    "TaskFuture",
    "TaskQueue",
    "Tasks",
    "TextConnection",
    "TextServer",
    "TimeLimit",
    "Unauthenticated",
    "UnknownTask",
    "WorkerLost",
    "__version__",
    "as_completed",
    "configure",
    "current",
    "default_client",
    "errors",
    "gather",
    "resource",
    "task",
    "wait",
]

_NEEDS_GEVENT = {
    "Client": "client",
    "as_completed": "client",
    "configure": "client",
    "default_client": "client",
    "gather": "client",
    "wait": "client",
    "Gateway": "gateway",
    "Group": "server.groups",
    "Limits": "server.limits",
    "Pool": "pool.executor",
    "Server": "server.server",
    "TLSFiles": "hub.files",
    "TaskQueue": "queue.service",
    "TextConnection": "server.text",
    "TextServer": "server.text",
}


def __getattr__(name: str) -> Any:
    module = _NEEDS_GEVENT.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NEEDS_GEVENT})


provide_default_caller(lambda: __getattr__("default_client")())
