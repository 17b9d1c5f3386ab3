"""``Outbox``: what a program calls in its own transaction."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import LineTooLong
from ...tasks.enqueueing import with_options
from ...tasks.task import Task, each_arguments, merge_arguments
from ...wire.enqueue import Enqueue
from ...wire.message import Args, Call, encode_call
from ...wire.text import DEFAULT_MAX_LINE
from .table import TABLE, check_name, cursor_of, dialect_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ...wire.enqueue import EnqueueOptions

__all__ = ["Outbox"]


class Outbox:
    """Enqueues tasks in the caller's transaction: they run if it is committed, and only then.

    table
        The table, which ``create_table`` makes.

    Cursors and connections are those of sqlite3, psycopg, psycopg2 or Django. An outbox holds nothing of its own, and
    may be shared by threads and processes.

    >>> outbox = Outbox()
    >>> outbox.enqueue(cursor, send_mail, to="b@example.org")             # doctest: +SKIP
    '5f0c…'
    >>> outbox.using(delay=60).enqueue(cursor, "send_mail", "b@example.org")      # doctest: +SKIP
    '81d2…'
    """

    def __init__(self, table: str = TABLE) -> None:
        self.table = check_name(table)
        self._options = Enqueue()

    def __repr__(self) -> str:
        return f"<Outbox {self.table}>"

    def using(self, **options: Unpack[EnqueueOptions]) -> Outbox:
        """This outbox, with options for what is enqueued: those of ``Client.using``.

        ``delay`` and ``ttl`` count from the enqueueing here.
        """
        other = Outbox(self.table)
        other._options = with_options(self._options, options)
        return other

    def enqueue(self, cursor: Any, function: str | Task[..., Any], /, *args: Any, **kwargs: Any) -> str:
        """Enqueue a task when this transaction is committed; returns its key.

        Raises ``InvalidArguments`` for what JSON can't carry and, where ``function`` is a task, for arguments that it
        doesn't take.
        """
        if not isinstance(function, (str, Task)):
            raise TypeError(f"what is enqueued is a @task or the name of one, not {function!r:.200}")
        binder = None if isinstance(function, str) else function.binder
        return self.enqueue_args(cursor, function, merge_arguments(args, kwargs, binder))

    def enqueue_args(self, cursor: Any, function: str | Task[..., Any], args: Args) -> str:
        """``enqueue``, with the arguments as the wire has them: a dict by name, or a list by position."""
        row = self._row(function, args)
        with cursor_of(cursor) as used:
            dialect, mark = dialect_of(used)
            used.execute(dialect.insert_into(self.table, mark), row)
        return row[0]

    def enqueue_many(self, cursor: Any, function: str | Task[..., Any], items: Iterable[Args], /) -> list[str]:
        """As ``enqueue``, for many: each item is one call's arguments, a dict by name or a sequence by position.

        They are tasks by themselves, and no group as those that ``Client.enqueue_many`` enqueues.
        """
        if self._options.key is not None:
            raise TypeError("a key is one task's: enqueue those that have one by themselves")
        if self._options.then is not None:
            raise TypeError(
                "what is enqueued in a transaction is no group, so that nothing can follow all of it: enqueue one task "
                "there, which enqueues the many, and what follows them, with a client"
            )
        rows = [self._row(function, item) for item in each_arguments(items)]
        with cursor_of(cursor) as used:
            dialect, mark = dialect_of(used)
            used.executemany(dialect.insert_into(self.table, mark), rows)
        return [row[0] for row in rows]

    def _row(self, function: str | Task[..., Any], args: Args) -> tuple[str, str, str, str, float]:
        now, options = time.time(), self._options
        name = function if isinstance(function, str) else function.name
        if not isinstance(function, str):
            function.binder.bind(args)
        line = encode_call(Call(name, args, 0, enqueue=options))  # raises what a client would
        if len(line) > DEFAULT_MAX_LINE:
            raise LineTooLong(f"the call of {name} is {len(line)} bytes long, and a server takes {DEFAULT_MAX_LINE}")
        at = options.at if options.delay is None else now + options.delay  # from now, and not from when it is sent
        told = replace(options, key=None, delay=None, at=at).to_json()
        return options.key or uuid.uuid4().hex, name, json.dumps(args), json.dumps(told), now
