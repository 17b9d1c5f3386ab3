"""``SQLiteQueue``: a durable queue in one file, which several servers of one machine may share."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, QueueError
from ..hub.home import Home, find_home
from ..tasks.checks import check_count, check_seconds
from . import looking, managing
from .batches import Listener
from .beside import Beside
from .clock import Clock
from .holders import Holders
from .ids import id_text, parse_id
from .interface import FINAL, Chain, Delivery, Ending, Found, Kept, Limit, Message, Placed, Repeat, Want
from .limits import (
    DEFAULT_DEAD_LIMIT,
    DEFAULT_KEEP_ATTEMPTS,
    DEFAULT_KEY_TTL,
    DEFAULT_LEASE,
    DEFAULT_MAX_LOST_FRONTS,
    DEFAULT_MAX_MEMBERS,
    DEFAULT_MAX_TAKEN,
    DEFAULT_MEMORY,
    DEFAULT_RESULT_TTL,
    LEAST_LEASE,
    MOST_TAKEN,
)
from .reader import Reader
from .schema import check_file, explain, open_file
from .stalls import told_turn, who_holds
from .store import Store
from .writer import Writer

__all__ = ["SQLiteQueue"]

logger = logging.getLogger(__name__)

_CLOSED_WITHIN = 5.0  # seconds


class SQLiteQueue:
    """A queue in the file at ``path``. Nothing happens before ``open``.

    lease
        Seconds of silence after which another server's deliveries are taken back. One that has ended is noticed within
        a second.
    result_ttl
        Seconds for which a task that has ended is known, with its result. Dead letters stay.
    key_ttl
        Seconds for which a key holds when its task is no longer known.
    dead_limit
        Dead letters that are kept; of more, the oldest are forgotten.
    max_lost_fronts
        Servers that may die, or be silent, while they have one task; then it is a dead letter.
    memory
        Bytes of arguments of what is handed out and has not ended, if it is more than one task.
    keep_attempts
        Attempts of a task, the newest ones, of which all of the error is kept.
    max_members, max_taken
        Members of a group whose results are taken, and bytes of results that one task takes.
    clock
        For tests.

    Raises ``ConfigurationError`` for what one of these can't be.

    It is a ``Queue``, a ``Source`` and a ``Timetable``, for the hub that opens it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease: float = DEFAULT_LEASE,
        result_ttl: float = DEFAULT_RESULT_TTL,
        key_ttl: float = DEFAULT_KEY_TTL,
        dead_limit: int = DEFAULT_DEAD_LIMIT,
        max_lost_fronts: int = DEFAULT_MAX_LOST_FRONTS,
        max_members: int = DEFAULT_MAX_MEMBERS,
        max_taken: int = DEFAULT_MAX_TAKEN,
        memory: int = DEFAULT_MEMORY,
        keep_attempts: int = DEFAULT_KEEP_ATTEMPTS,
        clock: Clock | None = None,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        try:
            check_seconds("lease of a queue", lease)
            check_seconds("result_ttl of a queue", result_ttl)
            check_seconds("key_ttl of a queue", key_ttl, zero=True)
            check_count("dead_limit of a queue", dead_limit, 0)
            check_count("max_lost_fronts of a queue", max_lost_fronts)
            check_count("max_members of a queue", max_members)
            check_count("max_taken of a queue", max_taken)
            check_count("memory of a queue", memory)
            check_count("keep_attempts of a queue", keep_attempts)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from None
        if lease < LEAST_LEASE:
            raise ConfigurationError(f"the lease of a queue is in seconds, {LEAST_LEASE:g} or more, not {lease!r}")
        if max_taken > MOST_TAKEN:
            raise ConfigurationError(f"max_taken of a queue is in bytes, from 1 to {MOST_TAKEN:,}, not {max_taken!r}")
        self._lease, self._max_lost_fronts, self._memory = lease, max_lost_fronts, memory
        self._kept = result_ttl, key_ttl, dead_limit, max_members, max_taken, keep_attempts
        self._clock = clock or Clock()
        self._open: tuple[Writer, Holders, Reader] | None = None
        self._counters: dict[str, int] = {}
        self._deliver: Callable[[list[Delivery]], object] = lambda _: None
        self._lost: Callable[[], object] = lambda: None
        self._revoked: Callable[[list[str]], object] = lambda _: None
        self._followers: dict[int, dict[_Follower, None]] = {}  # by the tasks, as the file has them
        self._is_looking = self._look_again = False
        #: Attempts whose end did not count, for they had been taken back.
        self.refused = 0

    def open(self, home: Home | None = None) -> None:
        """Open the file, or make it, and begin to write; for the hub of ``home``, or that of clients and pools.

        Raises ``ConfigurationError``, which says what to do, where it can't be used.
        """
        db = open_file(self.path)
        try:
            beside = Beside(self.path)
            try:
                store = Store(db, self._clock, *self._kept)
                holders = Holders(store, beside, self._lease, time.monotonic, self._max_lost_fronts)
                if not holders.is_anybody_here():
                    check_file(db, self.path)
                with told_turn(beside):
                    store.begin()
                    store.keep_time()
                    store.keep_settings()
                    holders.open()
                    store.commit()
                holders.committed()
                beside.know_logs()
                beside.knock()
            except BaseException:
                beside.close()
                raise
        except sqlite3.DatabaseError as error:
            db.close()
            if "locked" in str(error):
                raise ConfigurationError(f"queue {self.path!r} is locked {who_holds(self.path)}") from None
            raise ConfigurationError(explain(self.path, str(error))) from None
        except BaseException:
            db.close()
            raise
        listener = Listener(
            self._hear_deliveries,
            self._hear_settled,
            self._hear_lost,
            self._hear_revoked,
            self._hear_knock,
            self._hear_changed,
        )
        home = home or find_home()
        writer = Writer(home, store, beside, holders, listener, self._memory)
        self._open = writer, holders, Reader(home, self.path, self._clock)
        writer.start()

    def close(self) -> None:
        """Write down what has ended, leave the rest to other servers, and close the file. Blocks for a moment."""
        if self._open is not None:
            self._counters = self.counters()
            (writer, _, reader), self._open = self._open, None
            if not writer.close(_CLOSED_WITHIN):
                told = "queue %r could not be closed within %g s: what it had, and was not written, may run once more"
                logger.warning(told, self.path, _CLOSED_WITHIN)
            reader.close()

    @property
    def _writer(self) -> Writer:
        if self._open is None:
            raise QueueError("the queue is closed")
        return self._open[0]

    def counters(self) -> dict[str, int]:
        """What has happened since it was opened."""
        if self._open is None:
            return self._counters
        writer, holders, _ = self._open
        return {"commits": writer.commits, "taken_back": holders.taken_back, "refused": self.refused}

    @property
    def lease(self) -> float:
        """Seconds of silence, as it was said."""
        return self._lease

    def waited(self) -> float:
        """For how many seconds what is to be written has waited for others to let us write."""
        since = None if self._open is None else self._open[0].waits_since
        return 0.0 if since is None else time.monotonic() - since

    # ---- As a Queue

    def enqueue(self, messages: Sequence[Message]) -> Future[list[str]]:
        return self._writer.enqueue(messages)

    def keep(self, messages: Sequence[Message], then: Kept) -> None:
        self._writer.keep(messages, then)

    def compose(self, chain: Chain, after: str | None = None) -> Future[Placed]:
        return self._writer.change(lambda store: store.composer.compose(chain, after))

    def enqueue_group(
        self, messages: Sequence[Message], then: Chain, group: str | None = None, *, is_open: bool = False
    ) -> Future[tuple[list[str], str, Placed]]:
        return self._writer.change(lambda store: store.composer.enqueue_group(messages, then, group, is_open=is_open))

    def find(self, id: str) -> Future[Found | None]:
        return self._writer.look(lambda store: looking.find(store, id))

    def find_by_key(self, key: str) -> Future[Found | None]:
        return self._writer.look(lambda store: looking.find_by_key(store, key))

    def revoke(self, id: str, *, running: bool = False) -> Future[bool]:
        return self._writer.change(lambda store: looking.revoke(store, id, running=running))

    def follow(
        self, id: str, hear: Callable[[Found], None], progress: Callable[[bytes], None] = lambda _: None
    ) -> Callable[[], None]:
        number, follower = parse_id(id) or 0, _Follower(hear, progress)
        followers = self._followers.setdefault(number, {})
        followers[follower] = None

        def forget() -> None:
            followers.pop(follower, None)
            if not followers and self._followers.get(number) is followers:
                del self._followers[number]

        def look(future: Future[Found | None]) -> None:
            if future.exception() is None and (found := future.result()) is not None and found.state in FINAL:
                self._tell(found)

        self.find(id).add_done_callback(look)  # it may have ended before
        return forget

    # ---- As a Source

    def consume(
        self,
        deliver: Callable[[list[Delivery]], None],
        lost: Callable[[], None],
        limits: Mapping[str, Limit],
        revoked: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        self._deliver, self._lost, self._revoked = deliver, lost, revoked
        if limits:
            self._writer.set_limits(limits)

    def offer(self, tasks: frozenset[str]) -> None:
        self._writer.offer(tasks)

    def want(self, wants: Iterable[Want]) -> None:
        self._writer.want(wants)

    def want_none(self) -> None:
        self._writer.want_none()

    def settle(self, delivery: Delivery, ending: Ending) -> None:
        if self._open is not None:  # else it has been left to others
            self._writer.settle(delivery, ending)

    # ---- As a Timetable

    def repeat(self, repeats: Sequence[Repeat]) -> None:
        self._writer.repeat(repeats)

    # ---- For people

    def retry(self, id: str) -> Future[bool]:
        """Have a dead letter wait for its turn again; False where there is no such dead letter."""
        return self._writer.change(lambda store: looking.retry(store, id))

    def purge(self, id: str) -> Future[bool]:
        """Forget a task that has ended; False where there is none."""
        return self._writer.change(lambda store: looking.purge(store, id))

    def count(self) -> Future[dict[str, Any]]:
        """How many tasks wait, run and have failed."""
        return self.look_aside(managing.stats)

    def look_aside(self, look: Callable[[Store], Any]) -> Future[Any]:
        """What a function comes to that looks at much, beside the writer and on a connection of its own."""
        if self._open is None:
            raise QueueError("the queue is closed")
        return self._open[2].look(look)

    # ---- What the writer says

    def _hear_deliveries(self, deliveries: list[Delivery]) -> None:
        self._deliver(deliveries)

    def _hear_settled(self, settled: Sequence[tuple[Delivery, Ending]], counted: Sequence[bool]) -> None:
        self.refused += counted.count(False)
        if not self._followers:
            return
        for (delivery, ending), counts in zip(settled, counted):
            if counts and delivery.handle[0] in self._followers:
                if ending.how == "done":
                    attempt = delivery.attempt
                    self._tell(Found(delivery.id, delivery.task, "done", attempts=attempt, result=ending.body))
                elif ending.how == "failed":
                    attempt = delivery.attempt
                    self._tell(Found(delivery.id, delivery.task, "failed", attempts=attempt, error=ending.body))

    def _hear_lost(self) -> None:
        self._lost()

    def _hear_revoked(self, ids: list[int]) -> None:
        self._revoked([id_text(id) for id in ids])

    def _hear_knock(self) -> None:
        """Tasks may have ended that nobody tells us of."""
        if not self._followers or self._open is None:
            return
        if self._is_looking:
            self._look_again = True
            return
        self._is_looking = True
        ids = list(self._followers)
        self._writer.look(lambda store: looking.find_ended(store, ids)).add_done_callback(self._looked)

    def _hear_changed(self, changed: list[int]) -> None:
        """The counts of these have changed, or they have ended."""
        if not self._followers or self._open is None:
            return
        ids = [id for id in changed if id in self._followers]
        if ids:
            self._writer.look(lambda store: looking.find_ended(store, ids)).add_done_callback(self._looked_at_changed)

    def _looked(self, future: Future[list[Found]]) -> None:
        self._is_looking = False
        self._looked_at_changed(future)
        if self._look_again:
            self._look_again = False
            self._hear_knock()

    def _looked_at_changed(self, future: Future[list[Found]]) -> None:
        for found in () if future.exception() else future.result():
            if found.state in FINAL:
                self._tell(found)
            elif found.progress is not None:
                for follower in list(self._followers.get(parse_id(found.id) or 0, ())):
                    follower.progress(found.progress)

    def _tell(self, found: Found) -> None:
        for follower in list(self._followers.pop(parse_id(found.id) or 0, ())):
            follower.hear(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Follower:
    hear: Callable[[Found], None]
    progress: Callable[[bytes], None]
