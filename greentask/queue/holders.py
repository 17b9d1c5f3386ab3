"""Who has deliveries, and whether he is alive: how tasks come back from a server that died, or is silent.

A *holder* is one server while it has one queue open. It is dead when its lock is gone, which the kernel sees to. It is
silent when its beat has not changed for the length of a lease: then it is stopped, or hangs. Whoever sees that counts
only time that it has seen pass itself, in steps: no two clocks are compared, and where the whole machine was asleep,
nobody was silent. What a holder had is taken back in one transaction, with its row; when it wakes, nothing that it
wants to settle is its own any more.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
from collections.abc import Callable

from ..errors import WorkerLost, refusal
from ..wire.json import dumps
from .attempts import lost_processes
from .beside import SETTLING, Beside
from .ids import id_text
from .limits import DEFAULT_MAX_LOST_FRONTS
from .offers import write_offers
from .store import REVOKED, Store

__all__ = ["Holders", "is_anybody_here", "pause_after_loss"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at the others, and between two beats.
TICK = 1.0
_SETTLED_AFTER = 3 * TICK  # seconds in which all see that the file with their locks was removed, and hold them anew


class Holders:
    """This server among those that share a file. ``now`` is a clock that doesn't jump.

    ``max_lost_fronts``: so many servers may die, or be silent, while a task is theirs. It may be the cause, or just
    have been there.
    """

    def __init__(
        self,
        store: Store,
        beside: Beside,
        lease: float,
        now: Callable[[], float],
        max_lost_fronts: int = DEFAULT_MAX_LOST_FRONTS,
    ) -> None:
        self._store = store
        self._beside = beside
        self._lease = lease
        self._max_lost = max_lost_fronts
        self._now = now
        #: This server as a holder; None: it is none at the moment.
        self.mine: int | None = None
        self._is_fresh = False  # its row is not on disk yet
        self._beat = 0
        self._beaten_at = 0.0
        self._looked_at: float | None = None
        self._silence: dict[int, tuple[int, float]] = {}  # of each other holder: its beat, and for how long it is that
        self._settles_until = 0.0
        self._offers: frozenset[str] = frozenset()
        #: Whether it is not on disk yet which tasks this server offers.
        self.has_news = False
        self._has_told = False  # in this transaction
        #: Deliveries that were taken back from others.
        self.taken_back = 0
        #: Whether there are others.
        self.has_company = False

    # ---- This one

    def open(self) -> None:
        """Begin; within a transaction."""
        if self._beside.is_new and self._store.db.execute("SELECT 1 FROM holder").fetchone() is not None:
            self._settle()  # the file with their locks was removed
        self.me()

    def renew(self) -> None:
        """Go on where the file with the locks was removed, as the others do in this moment."""
        if self._beside.renew():
            self._settle()
        if self.mine is not None:
            self._beside.hold(self.mine)

    def _settle(self) -> None:
        self._beside.settle()
        self._settles_until = self._now() + _SETTLED_AFTER

    def me(self) -> int:
        """This server as a holder; within a transaction."""
        if self.mine is None:
            self.mine, self._is_fresh = random.getrandbits(61) + 1, True
            self._beside.hold(self.mine)
            self._store.db.execute("INSERT INTO holder VALUES (?, 0, ?)", (self.mine, f"pid {os.getpid()}"))
            self.has_news = bool(self._offers)
        return self.mine

    def offer(self, tasks: frozenset[str]) -> None:
        """Offer these from now on."""
        self._offers, self.has_news = tasks, True

    def tell(self) -> None:
        """Write down what is offered here, within a transaction."""
        write_offers(self._store.db, self.me(), self._offers)
        self.has_news = False
        self._has_told = True

    def is_due(self) -> bool:
        """Whether it is time for another beat."""
        return self.mine is not None and self._now() - self._beaten_at >= TICK

    def beat(self) -> bool:
        """Give a sign of life, within a transaction; False where it is too late, and nothing is ours any more."""
        if self.mine is None:
            return True
        self._beat += 1
        self._beaten_at = self._now()
        found = self._store.db.execute("UPDATE holder SET beat = ? WHERE id = ?", (self._beat, self.mine)).rowcount
        if not found:
            self._let_go()
        self._store.note_time()
        return bool(found)

    def committed(self) -> None:
        """The transaction is on disk."""
        self._is_fresh = self._has_told = False

    def rolled_back(self) -> None:
        """The transaction has not been, nor a beat in it."""
        self._beaten_at = -TICK
        self.has_news |= self._has_told
        self._has_told = False
        if self.mine is not None and self._is_fresh:
            self._let_go()

    def _let_go(self) -> None:
        if self.mine is not None:
            self._beside.let_go(self.mine)
            self.mine = None

    def leave(self) -> None:
        """At the end, within a transaction: what is ours is for others at once."""
        if self.mine is not None:
            self.take_back(self.mine, None, count=False)

    def to_revoke(self) -> list[int]:
        """Those of ours that somebody has revoked, and that run all the same."""
        return [] if self.mine is None else self._store.revoking.of(self.mine)

    # ---- The others

    def is_anybody_here(self) -> bool:
        """Whether another server has the file."""
        return is_anybody_here(self._store.db, self._beside)

    def overdue(self, *, is_stuck: bool = False) -> list[tuple[int, int]]:
        """Those that are dead or silent, with the beat that was seen last. To be asked about once a tick.

        ``is_stuck``: the file can't be written at the moment, so that nobody can be heard.
        """
        now = self._now()
        if self._settles_until and now >= self._settles_until:
            self._beside.let_go(SETTLING)
            self._settles_until = 0.0
        tells = not self._settles_until and not self._beside.is_held(SETTLING)  # that somebody is dead
        passed = 0.0 if self._looked_at is None else now - self._looked_at
        # If we were stopped, or waited for one who was while it wrote, so may they have been: they begin anew.
        counts = passed <= 2 * TICK and not is_stuck
        self._looked_at = now
        over: list[tuple[int, int]] = []
        seen: dict[int, tuple[int, float]] = {}
        for id, beat, has_tasks in self._store.db.execute(
            "SELECT id, beat, EXISTS (SELECT 1 FROM running WHERE holder = holder.id) FROM holder"
        ).fetchall():
            if id == self.mine:
                continue
            known, silence = self._silence.get(id, (None, 0.0))
            seen[id] = beat, silence + passed if known == beat and has_tasks and counts else 0.0
            if seen[id][1] >= self._lease or (tells and not self._beside.is_held(id)):
                over.append((id, beat))
        self._silence = seen
        self.has_company = len(seen) > len(over)
        return over

    def take_back(self, holder: int, beat: int | None, *, count: bool = True) -> int:
        """Have what that holder had wait again, within a transaction; how many they were. Nothing if its beat differs
        from that one, where there is one.

        With ``count`` each has lost a server, and after too many of them becomes a dead letter.
        """
        store = self._store
        row = store.db.execute("SELECT beat, name FROM holder WHERE id = ?", (holder,)).fetchone()
        if row is None or beat not in (None, row[0]):
            return 0
        store.db.execute("DELETE FROM holder WHERE id = ?", (holder,))
        rows = store.db.execute("SELECT id, failures, losses FROM running WHERE holder = ?", (holder,)).fetchall()
        store.db.execute("DELETE FROM running WHERE holder = ?", (holder,))
        marked = store.revoking.take(id for id, *_ in rows)
        how = "was silent for too long" if self._beside.is_held(holder) else "died"
        for id, failures, losses in rows:
            if id in marked:
                store.end_without(REVOKED, id, failures + losses + 1)
            elif not count:
                store.put_back(id, failures, losses, 0.0)
            else:
                self._lose(id, failures, losses, f"its server ({row[1]}) {how} while it ran it, or had it")
        self.taken_back += len(rows) * count
        return len(rows)

    def _lose(self, id: int, failures: int, losses: int, how: str) -> None:
        """Have one that has lost its server wait again, or be a dead letter where it has lost too many."""
        store, attempt = self._store, failures + losses + 1
        lost = losses + 1 - lost_processes(store.db, id, failures, losses)
        is_too_many = lost >= self._max_lost
        if is_too_many:
            how += f", and it was the last of {lost} (max_lost_fronts)"
        store.attempts.note(id, attempt, dumps(refusal(WorkerLost(how))), server=True)
        if not is_too_many:
            store.put_back(id, failures, losses + 1, pause_after_loss(lost))
            return
        (lane,) = store.db.execute("SELECT lane FROM task WHERE id = ?", (id,)).fetchone()
        logger.warning("task %s %s has lost %d servers: a dead letter", store.name(lane), id_text(id), lost)
        store.bury(id, attempt)
        store.has_ended_some = True


def is_anybody_here(db: sqlite3.Connection, beside: Beside) -> bool:
    """Whether another process than this one, a server, has the file, which may be of any version."""
    return any(beside.is_held(id) for (id,) in db.execute("SELECT id FROM holder"))


def pause_after_loss(losses: int) -> float:
    """Seconds to wait after so many processes or servers were lost. At first none: it was hardly the task's doing.

    Then more and more, and never the same: if it is the cause, those that were there with it meet it no more.
    """
    if losses < 3:
        return 0.0
    return float(min(30.0, 0.25 * 2 ** (losses - 3)) * (0.5 + random.random()))
