"""The thread that has a queue's file: everything that arrives while one commit is on its way shares the next one.

The hub posts operations, and is told what became of them; it never waits for the disk. The thread takes what has
arrived, does all of it in one transaction, and then tells the hub, at once, of everything that is on disk now. Where
nothing arrives it sleeps, until a task's moment has come, another server knocks, or it is time to look at the others.

One transaction is: a sign of life; what has ended, what is to be changed, what is enqueued, also by itself; those whose
time is over, and those whose moment has come; and then tasks for the free slots. So a task that comes while a slot is
free costs no second commit.

Where the file can't be written (its disk is full, say), what is to be enqueued is refused. What has ended stays here
until it can be written, and its slots are not filled meanwhile, so there is no end to it.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

from gevent import monkey

from ..errors import InvalidResult, QueueError, refusal
from ..hub.future import HomeFuture
from ..hub.home import Home, allocate_lock
from ..wire.json import dumps
from .batches import Batch, Listener, refuse, tell
from .beside import Beside
from .cleaning import FEW, STEP
from .expiring import expire, has_expired
from .holders import TICK, Holders
from .ids import id_text
from .interface import Delivery, Ending, Kept, Limit, Message, Repeat, Want
from .limits import DEFAULT_MEMORY
from .logroom import LogRoom
from .longlog import LongLog
from .offers import Unoffered
from .slots import Slots, size_of
from .store import Store
from .trouble import explained, is_the_files

__all__ = ["Writer"]

logger = logging.getLogger(__name__)

_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
_poll: Callable[[], Any] = monkey.get_original("select", "poll")
_POLLIN = 1

_MOST = 2000  # operations in one transaction
_MOST_BYTES = 32 * 1024 * 1024  # of what is enqueued in one transaction
_PAUSE_TO_FORGET = 0.01  # seconds between two transactions in which tasks are forgotten, and nothing else is to do
_SLICE = 0.002  # seconds for which the hub is told things in one go
_PAUSE = 0.25  # seconds between attempts at writing to a file that could not be written


class Writer:
    """That thread. Its public methods are for the hub of ``home``.

    ``memory``: bytes of what is handed out and has not ended; it may be more if it is one task.
    """

    def __init__(
        self,
        home: Home,
        store: Store,
        beside: Beside,
        holders: Holders,
        listener: Listener,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        self._home = home
        self._store = store
        self._beside = beside
        self._holders = holders
        self._listener = listener
        self._arrived: deque[tuple[str, Any, Any]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_asleep = False
        self._is_closing = False
        self._ended = allocate_lock()
        self._ended.acquire()
        # The thread's own:
        self._slots = Slots(memory)
        self._kept = Batch()  # what could not be written yet
        self._may_be_knocked = True
        self._is_stuck = False
        self._why_stuck: Exception = QueueError("the queue's file can't be written")
        self._ticked_at = 0.0
        self._has_company = False
        self._forgets = False  # there may be more to forget
        self._expires = False  # there are tasks whose ttl is over
        self._unoffered = Unoffered(store.db)
        self._log = LongLog(store.db, beside.queue)
        self._log_room = LogRoom(beside.queue)
        self._missing: str | None = None  # a file of SQLite's own
        #: Since when it has waited for its turn to write.
        self.waits_since: float | None = None
        #: Transactions so far.
        self.commits = 0

    # ---- In the hub

    def start(self) -> None:
        """Start the thread."""
        _start_thread(self._run, ())

    def enqueue(self, messages: Sequence[Message]) -> Future[list[str]]:
        """Keep messages, all or none; their ids."""
        return self._ask("enqueue", messages)

    def keep(self, messages: Sequence[Message], then: Kept) -> None:
        """As ``enqueue``, with a callback."""
        self._post("enqueue", messages, then)

    def change(self, change: Callable[[Store], Any]) -> Future[Any]:
        """What a function comes to that is called within a transaction."""
        return self._ask("change", change)

    def look(self, look: Callable[[Store], Any]) -> Future[Any]:
        """What a function comes to that is quick, and only looks."""
        return self._ask("look", look)

    def settle(self, delivery: Delivery, ending: Ending) -> None:
        """An attempt has ended."""
        self._post("settle", delivery, ending)

    def want(self, wants: Iterable[Want]) -> None:
        """There are so many free slots more."""
        self._post("want", tuple(wants), None)

    def want_none(self) -> None:
        """There is no free slot any more."""
        self._post("want", None, None)

    def set_limits(self, limits: Mapping[str, Limit]) -> None:
        """What holds for the tasks that are handed out from now on."""
        self._post("limits", limits, None)

    def offer(self, tasks: frozenset[str]) -> None:
        """What is run here from now on."""
        self._post("offer", tasks, None)

    def repeat(self, repeats: Sequence[Repeat]) -> None:
        """What is enqueued by itself from now on."""
        self._post("repeat", repeats, None)

    def close(self, within: float) -> bool:
        """Write down what has ended, leave the rest to others, and end; False where that takes longer. Blocks."""
        self._is_closing = True
        os.eventfd_write(self._wake, 1)
        return bool(self._ended.acquire(True, within))

    def _ask(self, kind: str, what: Any) -> Future[Any]:
        future = HomeFuture(self._home)
        self._post(kind, what, future)
        return future

    def _post(self, kind: str, what: Any, more: Any) -> None:
        self._arrived.append((kind, what, more))
        if self._is_asleep:
            self._is_asleep = False
            os.eventfd_write(self._wake, 1)

    # ---- The thread

    def _run(self) -> None:
        poll = _poll()
        poll.register(self._wake, _POLLIN)
        poll.register(self._beside.knocks, _POLLIN)
        try:
            is_over = False
            while not is_over:
                try:
                    self._sleep(poll)
                    is_over = self._is_closing and len(self._arrived) <= _MOST
                    self._turn()
                except Exception as error:
                    logger.exception("the queue's thread goes on after an error of its own")
                    self._is_stuck = True  # so that it doesn't spin
                    self._why_stuck = explained(error, self._beside.queue)
            self._leave()
        finally:
            self._ended.release()

    def _sleep(self, poll: Any) -> None:
        is_woken = self._may_be_knocked = True
        if self._is_stuck:
            poll.unregister(self._beside.knocks)
            poll.poll(0 if self._is_closing else _PAUSE * 1000)
            poll.register(self._beside.knocks, _POLLIN)
        else:
            self._is_asleep = True
            moment = min(TICK, self._next_moment())
            if not (self._arrived or self._is_closing):  # else it came before we were known to be asleep
                ready = [fd for fd, _ in poll.poll(1000 * moment + 0.5)]
                is_woken, self._may_be_knocked = self._wake in ready, self._beside.knocks in ready
            self._is_asleep = False
        if is_woken:
            try:
                os.eventfd_read(self._wake)
            except BlockingIOError:
                pass

    def _next_moment(self) -> float:
        """Seconds until there may be something to do."""
        moments = [
            _PAUSE_TO_FORGET if self._forgets or self._expires else None,
            self._store.ticks.moment(),
            self._store.next_moment() if self._slots.may_take else None,
        ]
        return min((moment for moment in moments if moment is not None), default=TICK)

    def _turn(self) -> None:
        batch, looks = self._collect()
        may_be_revoked = knocked = self._may_be_knocked and self._beside.hear_knocks()
        may_be_revoked |= bool(batch.changes)
        is_tick = time.monotonic() - self._ticked_at >= TICK
        try:
            overdue = self._look_around(is_tick=is_tick, knocked=knocked)
            self._store.be_alone(not (is_tick or knocked or self._has_company))
            has_work = self._is_stuck or len(batch) or overdue or self._has_own_work()
        except Exception as error:  # it can't even be read
            self._stuck(batch, error)
        else:
            if self._is_stuck:
                self._try_again(batch, overdue)
            elif has_work:
                self._write(batch, overdue)
        for look, future in looks:
            self._answer_look(look, future)
        if is_tick and not self._is_stuck:
            self._tidy_up()
        if knocked:
            self._home.post(self._listener.knocked)
        if (
            self._slots.held
            and not self._is_stuck
            and (may_be_revoked or is_tick)
            and (revoked := self._holders.to_revoke())
        ):
            self._home.post(self._listener.revoked, revoked)

    def _look_around(self, *, is_tick: bool, knocked: bool) -> list[tuple[int, int]]:
        """See what others have written, and who of them is gone."""
        overdue: list[tuple[int, int]] = []
        if is_tick or (knocked and not self._has_company):
            self._ticked_at = time.monotonic()
            overdue = self._holders.overdue(is_stuck=self._is_stuck)
            self._has_company = self._holders.has_company
        if is_tick:
            self._missing = self._beside.missing_log()
            if not self._beside.is_there():
                self._holders.renew()
                told = "%r was removed, by which servers know of each other: it is made anew"
                logger.warning(told, self._beside.path)
            self._store.ticks.look()
            self._store.cleaner.look()
            self._forgets = self._store.cleaner.has_work()
            self._expires = has_expired(self._store)
            if self._holders.mine is not None:
                self._unoffered.look(self._ticked_at, self._holders.mine)
        return overdue

    def _tidy_up(self) -> None:
        """Have the files be no larger than they need to be."""
        if self._store.cleaner.can_shrink():
            with self._beside.turn():
                self._store.cleaner.shrink()
            self._log.is_wanted = not self._store.cleaner.can_shrink()
        if self._log.is_due(self._ticked_at):
            with self._beside.turn():
                self._log.begin_anew(self._ticked_at)

    def _collect(self) -> tuple[Batch, list[tuple[Callable[[Store], Any], Future[Any]]]]:
        batch, looks, room = self._kept, [], _MOST_BYTES
        self._kept = Batch()
        take, settled, enqueued = self._arrived.popleft, batch.settled, batch.enqueued
        for _ in range(min(len(self._arrived), _MOST)):
            kind, what, more = take()
            if kind == "settle":
                settled.append((what, more))
            elif kind == "enqueue":
                enqueued.append((what, more))
                for message in what:
                    room -= len(message.payload)
                if room <= 0:
                    break
            elif kind == "want":
                self._slots.hear(what)
            elif kind == "limits":
                self._store.allowances.limits = what
            elif kind == "repeat":
                self._store.ticks.set(what)
            elif kind == "offer":
                self._holders.offer(what)
            elif kind == "change":
                batch.changes.append((what, more))
            else:
                looks.append((what, more))
        return batch, looks

    def _has_own_work(self) -> bool:
        """Whether there is something to write that nobody asks for."""
        if self._slots.held and self._holders.is_due():
            return True
        if self._forgets:
            self._forgets = self._store.cleaner.has_work()
            if self._forgets:
                return True
        if self._expires or self._holders.has_news or self._store.ticks.is_due():
            return True
        if not self._slots.may_take:
            return False
        moment = self._store.next_moment()
        return (moment is not None and moment <= 0) or self._store.has_ready(self._slots.wants())

    def _answer_look(self, look: Callable[[Store], Any], future: Future[Any]) -> None:
        try:
            found = look(self._store)
        except Exception as error:
            self._home.post(future.set_exception, explained(error, self._beside.queue))
        else:
            self._home.post(future.set_result, found)

    # ---- Writing

    def _write(self, batch: Batch, overdue: Sequence[tuple[int, int]], *, takes: bool = True) -> bool:
        """One transaction; whether it is on disk. Where it isn't, everybody who is concerned knows."""
        try:
            self._transact(batch, overdue, takes=takes)
        except Exception as error:
            self.waits_since = None
            self._holders.rolled_back()
            self._store.rollback()
            if batch.is_lost:  # it is so, whatever was written
                self._home.post(self._listener.lost)
            batch.counted, batch.outcomes, batch.failed, batch.deliveries = [], [], [], []
            if is_the_files(error):
                self._stuck(batch, error)
            elif len(batch) > 1:
                self._write_apart(batch)
            else:
                self._fail(batch, error)
            return False
        self._holders.committed()
        self.commits += 1
        self._slots.change(batch.deliveries, len(batch.settled), batch.freed)
        self._home.post(self._finish, tell(self._listener, batch))
        if self._has_company and (len(batch) or overdue or batch.has_ended_some):
            self._beside.knock()
        return True

    def _transact(self, batch: Batch, overdue: Sequence[tuple[int, int]], *, takes: bool) -> None:
        store, holders = self._store, self._holders
        if not self._beside.is_queue_there():  # nobody would ever find again what is written
            raise OSError("the file was removed, or another one is in its place: put it back, or start the server anew")
        if self._missing is not None:  # what is written there now, only those read who have it open
            raise OSError(
                f"{self._missing!r} was removed, or another one is in its place: put it back, or stop all servers of "
                "the queue, which writes to the file what that had, and start them anew"
            )
        self.waits_since = time.monotonic()
        with self._beside.turn():
            store.begin()
            self.waits_since = None
            if not takes:
                store.note_time()  # what writes nothing succeeds on a full disk, too
            if self._slots.held and holders.is_due():
                batch.is_lost = not holders.beat()
            if batch.settled:
                batch.counted = store.settle(batch.settled)
            for change, future in batch.changes:
                try:
                    batch.outcomes.append((future, store.attempt(change)))
                except Exception as error:
                    if is_the_files(error):
                        raise
                    batch.failed.append((future, error))  # it costs the others nothing
            if batch.enqueued:
                arrived = [message for messages, _ in batch.enqueued for message in messages]
                ids = map(id_text, store.enqueue(arrived, before_take=True))
                for messages, told in batch.enqueued:
                    mine = [next(ids)] if len(messages) == 1 else list(islice(ids, len(messages)))
                    batch.outcomes.append((told, mine))
            if holders.has_news:
                holders.tell()
            if store.ticks.is_due():
                store.ticks.turn()
            for holder, beat in overdue:
                holders.take_back(holder, beat)
            if self._expires:
                self._expires = expire(store)
            store.ripen()
            if self._forgets or batch.settled or not len(batch):  # else a tick finds what there is to forget
                store.cleaner.step(FEW + 2 * len(batch.settled) if len(batch) else STEP)
            batch.freed = size_of([delivery for delivery, _ in batch.settled])
            room = self._slots.room(batch.freed)
            if takes and not batch.is_lost and room > 0 and (wants := self._slots.wants()):
                batch.deliveries = store.take(wants, holders.me(), room)
            self._log_room.make()
            store.commit()
            batch.has_ended_some = store.has_ended_some
            batch.revoked = set(store.revoked)
            batch.changed = list(store.composer.changed)

    # ---- In the hub again

    def _finish(self, steps: Iterator[None]) -> None:
        """Tell everybody, for a moment; the rest when others have had their turn."""
        until = time.monotonic() + _SLICE
        for _ in steps:
            if time.monotonic() > until:
                self._home.post(self._finish, steps)
                return

    # ---- Where that fails

    def _write_apart(self, batch: Batch) -> None:
        """One of them can't be done: each for itself."""
        for settled in batch.settled:
            self._write(Batch(settled=[settled]), ())
        for change in batch.changes:
            self._write(Batch(changes=[change]), ())
        for enqueued in batch.enqueued:
            self._write(Batch(enqueued=[enqueued]), ())

    def _fail(self, batch: Batch, error: Exception) -> None:
        for _, future in (*batch.changes, *batch.enqueued):
            self._home.post(refuse, future, error)
        if batch.settled or not (len(batch) or self._is_stuck):
            logger.error("the queue could not write down what happened", exc_info=error)
        if not len(batch):  # what nobody has asked for, and would be tried again at once
            self._is_stuck = True
            self._why_stuck = explained(error, self._beside.queue)
        for delivery, ending in batch.settled:
            if ending.how != "failed":  # or it would stay ours for ever
                told = refusal(InvalidResult(f"what came of it can't be kept: {error}"))
                self._write(Batch(settled=[(delivery, Ending("failed", dumps(told)))]), ())

    def _stuck(self, batch: Batch, error: Exception) -> None:
        """The file can't be written: refuse what can be refused, and keep the rest."""
        self._why_stuck = explained(error, self._beside.queue)
        if not self._is_stuck:
            why = self._why_stuck if "locked" in str(error) else error
            logger.error("the queue's file can't be written, and is tried again: %s", why)
        self._is_stuck = True
        self._kept.settled += batch.settled
        self._refuse(batch)

    def _refuse(self, batch: Batch) -> None:
        """What is to be changed and enqueued is not."""
        for _, future in (*batch.changes, *batch.enqueued):
            self._home.post(refuse, future, self._why_stuck)

    def _try_again(self, batch: Batch, overdue: Sequence[tuple[int, int]]) -> None:
        """What has ended first: it may just fit."""
        rest = Batch(changes=batch.changes, enqueued=batch.enqueued)
        if not self._write(Batch(settled=batch.settled), overdue, takes=False):
            self._refuse(rest)
        elif self._write(rest, ()):
            self._is_stuck = False
            logger.warning("the queue's file can be written again")

    def _leave(self) -> None:
        """At the end: others may have at once what was not run here."""
        while self._arrived:
            kind, what, more = self._arrived.popleft()
            if kind == "settle":  # or it would run once more
                self._kept.settled.append((what, more))
            elif kind in ("enqueue", "change", "look"):
                self._home.post(refuse, more, QueueError("the queue was closed"))
        try:
            with self._beside.turn():
                self._store.begin()
                if self._kept.settled:
                    self._store.settle(self._kept.settled)
                self._holders.leave()
                self._store.keep_time()
                self._store.commit()
            if self._has_company:
                self._beside.knock()
        except Exception as error:  # whatever it is, the file is closed
            logger.error("the queue could not be left in good order, and what it had runs once more: %s", error)
            self._store.rollback()
        self._store.db.close()
        self._log_room.close()
        self._beside.close()
        os.close(self._wake)
