"""The relay: takes committed rows, enqueues each under its key, and deletes those that are on the server's disk.

It may die anywhere. What it had enqueued and not yet deleted is sent again, under the same key, by which the queue
knows it.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from ...client import Client
from ...client.enqueueing import start_enqueueing
from ...errors import (
    Cancelled,
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    GreentaskError,
    Overloaded,
    QueueError,
    QueueFull,
    Unauthenticated,
)
from ...tasks.retries import Backoff
from ...wire.enqueue import Enqueue, decode_enqueue
from .database import Database, DatabaseLost, Refused, Row, database_at
from .table import TABLE, check_name

__all__ = ["DEFAULT_BATCH", "DEFAULT_KEEP", "Relay", "end_on_signals", "relay"]

logger = logging.getLogger(__name__)

#: How many rows are on their way at once.
DEFAULT_BATCH = 500
#: Seconds for which a row that is refused is sent again and again.
DEFAULT_KEEP = 30 * 86400.0

_MOST_BYTES = 4 << 20  # of arguments in one batch, in memory; a longer row goes alone
_PATIENCE = 30.0  # seconds for a server's answer; less than a database lets a relay be silent
_IDLE = 5.0  # seconds between two looks at a database that said nothing
_STEP = 0.5  # seconds within which a stop is noticed
_LEAST_WAIT = 0.1  # seconds between two looks for rows that are due, and that others may have
_LEAST_TTL = 1e-6  # seconds: what is late is shown by the queue as expired
_TROUBLES = 3  # batches in a row that were lost, after which it is looked which row it is
_LOG_ARGS = 2000  # characters
_ERROR = 2000  # characters

# What the server can't do now, and for none of the rows; anything else is said of one row.
_TROUBLE = (Cancelled, ConnectionLost, DeadlineExceeded, Draining, Overloaded, QueueError, Unauthenticated)

_AWAY = Backoff(base=0.1, factor=2, max=15)
_AGAIN = Backoff(base=1, factor=2, max=3600)


def relay(
    database: str,
    client: Client,
    *,
    table: str = TABLE,
    batch: int = DEFAULT_BATCH,
    keep: float = DEFAULT_KEEP,
    stop: threading.Event | None = None,
    drain: bool = False,
) -> int:
    """Hand what is committed in an outbox to a server with a queue, until told to stop; returns how many tasks.

    database
        ``postgresql://…`` or another DSN of PostgreSQL's, or the path of an SQLite file.
    client
        Of one server, or of several that share one queue: another queue doesn't know what this one has.
    batch
        Rows that are on their way at once.
    keep
        Seconds after which a row that is still refused is forgotten, and logged.
    stop
        What ends it when it is set, within a second or when the rows that are on their way have arrived.
    drain
        End when nothing is there to be sent, and raise at the first trouble (``ConnectionLost``, ``DatabaseLost``),
        which otherwise is logged and waited for.

    Raises ``ConfigurationError`` where the database has no such table, or is none.

    >>> relay("postgresql:///shop", Client("127.0.0.1:12345"))            # doctest: +SKIP
    """
    return Relay(database_at(database, table), client, table=table, batch=batch, keep=keep, stop=stop).run(drain=drain)


def end_on_signals(stop: threading.Event) -> None:
    """Have SIGTERM and Ctrl-C set it: for programs that do nothing else."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


class Relay:
    """One relay: runs in one thread, which alone uses its database."""

    def __init__(
        self,
        database: Database,
        client: Client,
        *,
        table: str = TABLE,
        batch: int = DEFAULT_BATCH,
        keep: float = DEFAULT_KEEP,
        stop: threading.Event | None = None,
    ) -> None:
        check_name(table)
        if batch < 1:
            raise ConfigurationError(f"a relay sends at least one row at once, not {batch!r}")
        if not keep > 0:
            raise ConfigurationError(f"keep is in seconds above 0, not {keep!r}")
        self.sent = 0
        self._database = database
        self._client = client
        self._batch = batch
        self._keep = keep
        self._stop = stop or threading.Event()
        self._troubles = 0  # in a row, of the server or of the database
        self._careful = 0  # rows still to be sent one by one, for one of them may be the cause

    def run(self, *, drain: bool = False) -> int:
        """Go on until it is stopped, or with ``drain`` until nothing is left; how many tasks it enqueued."""
        while not self._stop.is_set():
            try:
                self._database.open()
                self._serve(drain=drain)
                break
            except DatabaseLost as error:
                if drain:
                    raise
                self._pause(error)
            finally:
                self._database.close()
        return self.sent

    def _serve(self, *, drain: bool) -> None:
        while not self._stop.is_set():
            is_alone = self._careful > 0
            rows = self._database.take(1 if is_alone else self._batch, _MOST_BYTES, time.time())
            if rows:
                error = self._send(rows, is_alone=is_alone)
                if error is None:
                    self._troubles = 0
                    self._careful = max(0, self._careful - 1)
                elif drain:
                    raise error
                else:
                    self._pause(error)
            elif drain:
                return
            else:
                self._wait()

    def _send(self, rows: list[Row], *, is_alone: bool) -> GreentaskError | None:
        """Enqueue these; what the server can't do now."""
        done: list[Row] = []
        refused: list[Refused] = []
        trouble: GreentaskError | None = None
        for row, sending in [(row, self._start(row)) for row in rows]:
            try:
                sending.result()
                done.append(row)
            except _TROUBLE as error:
                if not (is_alone and self._is_of_the_row(error)):
                    trouble = error
                elif isinstance(error, ConnectionLost) and self._arrives(row):
                    done.append(row)
                else:
                    refused.append(self._refuse(row, error))
            except Exception as error:
                refused.append(self._refuse(row, error))
        self._database.settle(done, refused)
        self.sent += len(done)
        return trouble

    def _start(self, row: Row) -> Future[Any]:
        try:
            options = decode_enqueue(json.loads(row.options)) or Enqueue()
            ttl = options.ttl
            if ttl is not None:
                ttl = max(_LEAST_TTL, ttl - max(0.0, time.time() - row.created))
            options = replace(options, key=row.key, ttl=ttl)
            return start_enqueueing(self._client, row.task, json.loads(row.args), options, _PATIENCE)
        except Exception as error:  # as an answer, like any other
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def _refuse(self, row: Row, error: Exception) -> Refused:
        told = f"{type(error).__name__}: {error}"[:_ERROR]
        now = time.time()
        if now - row.created > self._keep:
            logger.error(
                "row %d is forgotten, refused %d times: %s(%s): %s",
                *(row.id, row.attempts + 1, row.task, row.args[:_LOG_ARGS], told),
            )
            return Refused(row, told, None)
        if row.attempts == 0:
            logger.warning("row %d (%s) is set aside, and sent again later: %s", row.id, row.task, told)
        return Refused(row, told, now + _AGAIN.delay(min(row.attempts + 1, 30)))

    def _is_of_the_row(self, error: GreentaskError) -> bool:
        """Whether the server is well without that row."""
        if not isinstance(error, (ConnectionLost, QueueError)) or isinstance(error, QueueFull):
            return False
        # A server without a queue has no such function.
        function = "greentask.queue" if isinstance(error, QueueError) else "greentask.ping"
        try:
            self._client.call_args(function, [], timeout=_PATIENCE / 2)
        except GreentaskError:
            return False
        return True

    def _arrives(self, row: Row) -> bool:
        """Whether it is taken when it is sent again: the server may have gone for reasons of its own, and be back."""
        try:
            self._start(row).result()
        except Exception:  # which is told when it is sent the next time
            return False
        return True

    def _wait(self) -> None:
        """Until something may be there."""
        due = self._database.next_due()
        seconds = _IDLE if due is None else min(_IDLE, max(_LEAST_WAIT, due - time.time()))
        give_up = time.monotonic() + seconds
        while not self._stop.is_set():
            left = give_up - time.monotonic()
            if left <= 0 or self._database.wait(min(_STEP, left)):
                return

    def _pause(self, error: GreentaskError) -> None:
        self._troubles += 1
        if self._troubles == _TROUBLES:
            self._careful = self._batch
        seconds = _AWAY.delay(self._troubles)
        logger.warning("%s: %s; again in %.1f s", type(error).__name__, error, seconds)
        self._stop.wait(seconds)
