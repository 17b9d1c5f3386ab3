"""For the tests of programs that call tasks: run them in place or on a real server, look at their calls, break them.

>>> from greentask import task
>>> from greentask.testing import eager
>>> @task
... def add(a, b):
...     return a + b
>>> with eager(add) as calls:
...     add.call(1, b=2)
...     [call] = calls.calls_to(add)
3
>>> call.kwargs, call.result
({'a': 1, 'b': 2}, 3)

For pytest there are fixtures of the same (``greentask.contrib.pytest_plugin``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from ..client.carrier import carried_by
from ..pool.coroutines import close_loop
from .calls import Calls, RecordedCall
from .durable import InPlaceQueue, Kept
from .inplace import KeepCause
from .known import App, Known
from .server import LocalServer, ServerCalls
from .watching import Watching

__all__ = ["Calls", "LocalServer", "RecordedCall", "ServerCalls", "eager", "serving", "watching"]


@contextmanager
def eager(*apps: App) -> Iterator[Calls]:
    """While inside, the tasks of all calls run in place, in the greenlet or thread that calls, and no server is needed.

    apps
        The tasks that there are: modules (or their names), registries, tasks or functions. Without any, the tasks of
        all modules that are imported.

    What is between a caller and a task on a server is there all the same: arguments and results go through JSON,
    arguments are bound to the signature, errors come back as the wire brings them (with the task's own traceback as
    their cause), deadlines, progress, streams and ``greentask.current()`` are as there, and so is middleware of calls
    and tasks. What ``process=True`` tasks would have to themselves, they don't have here. Durable tasks have run when
    they are enqueued, whatever their delay, attempt after attempt without a pause.
    Raises ``ConfigurationError`` for APPs that can't be served.
    """
    known = Known(apps, [KeepCause()])
    calls, kept = Calls(known.task, known.names), Kept()
    try:
        with carried_by(lambda router: Watching(calls, InPlaceQueue(kept, known))):
            yield calls
    finally:
        close_loop()


@contextmanager
def watching() -> Iterator[Calls]:
    """While inside, calls go where they go, but are looked at, and may be broken by what it gives."""
    calls = Calls()
    with carried_by(lambda router: Watching(calls, router())):
        yield calls


@contextmanager
def serving(
    *apps: str,
    processes: int = 1,
    options: Iterable[str] = (),
    variables: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Iterator[ServerCalls]:
    """While inside, tasks are called on a real server of their own (see ``LocalServer``), which ends then.

    >>> with serving("shop.tasks") as calls:                  # doctest: +SKIP
    ...     place_order("a book")
    ...     assert calls.calls_to("send_mail")[0].result == "sent"
    ...     print(calls.server.address)
    """
    server = LocalServer(*apps, processes=processes, options=options, variables=variables, timeout=timeout)
    try:
        with server.used() as calls:
            yield calls
    finally:
        server.stop()
