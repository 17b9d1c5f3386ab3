"""Tasks that wait for others: steps of a chain, and groups, which end with the last of their members.

All that counts is done in the transaction that ends a task, so a step is enqueued exactly once, whatever dies. Who
waits for a task that failed fails with it; when a person has that task tried again, those wait again, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArguments, QueueError, refusal
from ..wire.chain import GROUP
from ..wire.json import dumps, loads
from .ids import id_text, parse_id
from .interface import Chain, Fan, Message, Placed, Step
from .outcomes import Outcomes, Unknown

if TYPE_CHECKING:
    from .store import Store

__all__ = ["COLUMNS", "Composer"]

#: Of the table ``blocked``, besides the id.
COLUMNS = 11

_OPEN, _DONE, _FAILED = 0, 1, 2  # as the store has them


class Composer:
    """What a store does with them, within its transactions.

    ``max_members``: of a group whose results are taken; ``max_taken``: bytes of results that one task takes.
    """

    def __init__(self, store: Store, max_members: int, max_taken: int) -> None:
        self._store = store
        self._max_members = max_members
        self._db = store.db
        self.max_taken = max_taken
        self._outcomes = Outcomes(store.db, max_taken)
        #: Of whom the counts have changed, or who has ended, in this transaction.
        self.changed: set[int] = set()

    # ---- Enqueueing

    def compose(self, chain: Chain, after: str | None = None) -> Placed:
        """Keep the steps of a chain; the ids, in its shape."""
        before: int | None = None
        if after is not None:
            before = parse_id(after)
            if before is None or self._state(before) is None:
                raise QueueError(f"the queue knows no task {after!r:.80}, or not any more")
        placed: Placed = []
        first, is_keyed = chain[0], False
        if isinstance(first, Step) and before is None and (first.message.key or first.message.singleton):
            is_keyed = True
            known = self._store.newest()
            (id,) = self._store.enqueue([first.message])
            if id <= known:  # it is there already, with what follows it, or its key outlasts it
                row = self._db.execute("SELECT placed FROM plan WHERE id = ?", (id,)).fetchone()
                return [id_text(id)] if row is None else list(loads(row[0]))
            before, placed, chain = id, [id_text(id)], chain[1:]
        placed += self._place(chain, before)[0]
        if is_keyed:
            self._db.execute("INSERT INTO plan VALUES (?, ?)", (parse_id(placed[0]), dumps(placed)))
        return placed

    def enqueue_group(
        self, messages: Sequence[Message], then: Chain, group: str | None, *, is_open: bool
    ) -> tuple[list[str], str, Placed]:
        """Keep messages as members of a group; their ids, its own, and those of what waits for it."""
        if group is None:
            id = self._make_group(is_open=True)
            placed = self._place(then, id)[0]
        else:
            known, placed = parse_id(group), []
            row = self._db.execute("SELECT 1 FROM blocked WHERE id = ? AND is_open = 1", (known,)).fetchone()
            if known is None or row is None or then:
                raise QueueError(f"{group!r:.80} is no group that is open, or more is to follow it than at its begin")
            id = known
        newest = self._store.newest()
        ids = self._store.enqueue(messages)
        # Once each: those of one key, or of one singleton, are the same task.
        self._join(id, list(dict.fromkeys(one for one in ids if one > newest)), fresh=True)
        if not is_open:
            self.close(id)
        return [id_text(one) for one in ids], id_text(id), placed

    def _place(self, chain: Chain, before: int | None) -> tuple[Placed, int | None]:
        """Keep steps behind that task or group: their ids, and the last one's."""
        placed: Placed = []
        for step in chain:
            if isinstance(step, Step):
                if before is None:  # a task that is there already may be another group's
                    (id,) = self._store.enqueue([step.message._replace(key=None, singleton=None)])
                else:
                    id = self._block(step, before)
                placed.append(id_text(id))
            else:
                id, chains = self._fan(step, before)
                placed.append({"group": id_text(id), "tasks": chains})
            before = id
        return placed, before

    def _fan(self, fan: Fan, before: int | None) -> tuple[int, list[Placed]]:
        group, chains, ends = self._make_group(is_open=True), [], []
        for chain in fan.chains:
            placed, end = self._place(chain, before)
            assert end is not None
            chains.append(placed)
            ends.append(end)
        self._join(group, ends, fresh=False)
        self.close(group)
        return group, chains

    def _block(self, step: Step, before: int) -> int:
        message = step.message
        waiting = message._replace(delay=0.0, at=None, ttl=None, key=None, singleton=None)
        (id,) = self._store.enqueue([waiting], blocked=True)
        self._db.execute(
            "INSERT INTO blocked VALUES (?, 0, 1, 1, 0, 0, 0, ?, ?, ?, ?, ?)",
            (id, step.errors, before, _hole(step), message.delay, message.ttl),
        )
        self._db.execute("INSERT INTO link VALUES (?, ?)", (before, id))
        if step.takes is not False:
            self._keep(before)
        state = self._state(before)
        if state != _OPEN:  # too late to be told
            self._go_on(self._count(id, 1, int(not self._is_well(before, state))))
        return id

    def _make_group(self, *, is_open: bool) -> int:
        (id,) = self._store.enqueue([Message(GROUP, b'{"args":null}')], blocked=True)
        self._db.execute(
            "INSERT INTO blocked VALUES (?, 1, 0, ?, 0, ?, 0, 0, NULL, NULL, 0, NULL)", (id, is_open, is_open)
        )
        return id

    def _join(self, group: int, ids: Sequence[int], *, fresh: bool) -> None:
        """Make tasks the group's; ``fresh``: none of them can have ended."""
        ranges: list[list[int]] = []
        for id in ids:
            if ranges and ranges[-1][1] == id - 1:
                ranges[-1][1] = id
            else:
                ranges.append([id, id])
        self._db.executemany("INSERT INTO member VALUES (?, ?, ?)", [(*both, group) for both in ranges])
        total, keeps = self._db.execute("SELECT total, keeps FROM blocked WHERE id = ?", (group,)).fetchone()
        self._check_size(total + len(ids), keeps)
        self._db.execute(
            "UPDATE blocked SET total = total + ?, missing = missing + ? WHERE id = ?", (len(ids), len(ids), group)
        )
        if not fresh:  # some may have ended: those behind a task that failed before they came
            ended = [id for id in ids if self._state(id) != _OPEN]
            if ended:
                failed = [id for id in ended if not self._is_well(id, self._state(id))]
                self._go_on(self._count(group, len(ended), len(failed), (failed or ended)[0]))

    def _keep(self, group: int) -> None:
        """Have what comes of its members kept until it ends."""
        row = self._db.execute(
            "SELECT total, missing, keeps FROM blocked WHERE id = ? AND is_group = 1", (group,)
        ).fetchone()
        if row is None:
            return
        total, missing, keeps = row
        self._check_size(total, True)
        self._db.execute("UPDATE blocked SET keeps = 1 WHERE id = ?", (group,))
        if missing and not keeps:
            self._pass_over_members(group)
        for (inner,) in self._db.execute(
            "SELECT b.id FROM member m JOIN blocked b ON b.id BETWEEN m.first AND m.last AND b.is_group = 1 "
            "WHERE m.waiter = ?",
            (group,),
        ).fetchall():
            self._keep(inner)

    def _pass_over_members(self, group: int) -> None:
        """Those that have ended are to be forgotten when their group has ended, and not when it was said before."""
        (ended,) = self._db.execute(
            "SELECT count(*) FROM member m JOIN task t ON t.id BETWEEN m.first AND m.last AND t.state IN (1, 3, 4) "
            "WHERE m.waiter = ?",
            (group,),
        ).fetchone()
        self._store.cleaner.pass_over(ended)

    def _check_size(self, total: int, keeps: object) -> None:
        if keeps and total > self._max_members:
            raise InvalidArguments(
                f"a group whose results are taken has at most {self._max_members:,} members (max_members), and this "
                f"one {total:,}: let what follows it take none"
            )

    # ---- When tasks end

    def is_empty(self) -> bool:
        """Whether nobody waits for any task, and there is no group."""
        return self._db.execute("SELECT 1 FROM blocked LIMIT 1").fetchone() is None

    def kept(self, ids: Sequence[int]) -> set[int]:
        """Those of these that have ended, and must be known until their group has."""
        if self._db.execute("SELECT 1 FROM blocked WHERE keeps = 1 LIMIT 1").fetchone() is None:
            return set()
        groups = self._groups(ids)
        keeping = {
            group
            for group in set(groups.values())
            if self._db.execute("SELECT 1 FROM blocked WHERE id = ? AND keeps = 1 AND missing > 0", (group,)).fetchone()
        }
        return {id for id, group in groups.items() if group in keeping}

    def needed(self, ids: Sequence[int], ttl: float) -> set[int]:
        """Those of these that are not to be forgotten, though their time is over: somebody waits to take what came of
        them, or has failed with them, and waits again when a dead letter is tried again; or it is a group that was open
        again since, and ended less than ``ttl`` ago.
        """
        if self.is_empty():
            return set()
        groups = self._groups(ids)
        keeping = {group for group in set(groups.values()) if self._keeps(group)}
        return {id for id in ids if groups.get(id) in keeping or self._is_needed_group(id, ttl)}

    def _is_needed_group(self, id: int, ttl: float) -> bool:
        row = self._db.execute(
            "SELECT t.state, t.ended FROM blocked b JOIN task t ON t.id = b.id WHERE b.id = ? AND b.is_group = 1", (id,)
        ).fetchone()
        if row is None:
            return False
        # Not to the second: these are two clocks.
        return row[0] == _OPEN or self._store.clock.wall() - row[1] < 0.9 * ttl or self._is_awaited(id)

    def _keeps(self, group: int) -> bool:
        row = self._db.execute("SELECT missing > 0 FROM blocked WHERE id = ? AND keeps = 1", (group,)).fetchone()
        return row is not None and (bool(row[0]) or self._is_awaited(group))

    def _is_awaited(self, group: int | None) -> bool:
        """Whether somebody waits for that group, or for one that it is in, or has failed with it."""
        waiting = "SELECT 1 FROM link l JOIN blocked b ON b.id = l.waiter WHERE l.id = ? LIMIT 1"
        while group is not None:
            if self._db.execute("SELECT is_group FROM blocked WHERE id = ?", (group,)).fetchone() != (1,):
                return False
            if self._db.execute(waiting, (group,)).fetchone() is not None:
                return True
            group = self._groups([group]).get(group)
        return False

    def ended(self, ids: Iterable[int], *, well: bool) -> None:
        """These tasks have ended: go on with who waits for them."""
        if not self.is_empty():
            self._go_on([(id, well) for id in ids])

    def _go_on(self, ended: Sequence[tuple[int, bool]]) -> None:
        while ended:  # not deeper and deeper: a chain may be long
            counts: dict[int, list[int]] = {}
            for id, well, waiter in self._waiters(ended):
                count = counts.setdefault(waiter, [0, 0, id])
                count[0] += 1
                if not well:
                    count[1] += 1
                    count[2] = id
            ended = [one for waiter, count in counts.items() for one in self._count(waiter, *count)]

    def _waiters(self, ended: Sequence[tuple[int, bool]]) -> list[tuple[int, bool, int]]:
        groups = self._groups([id for id, _ in ended])
        found = [(id, well, groups[id]) for id, well in ended if id in groups]
        if self._db.execute("SELECT 1 FROM link LIMIT 1").fetchone() is not None:
            for id, well in ended:
                links = self._db.execute("SELECT waiter FROM link WHERE id = ?", (id,)).fetchall()
                found += [(id, well, waiter) for (waiter,) in links]
        return found

    def _groups(self, ids: Sequence[int]) -> dict[int, int]:
        """Of each that is in a group, which one. Most are neighbours."""
        groups: dict[int, int] = {}
        first, last, waiter = 0, -1, 0
        for id in ids:
            if not first <= id <= last:
                row = self._db.execute(
                    "SELECT first, last, waiter FROM member WHERE first <= ? ORDER BY first DESC LIMIT 1", (id,)
                ).fetchone()
                first, last, waiter = row or (0, -1, 0)
            if first <= id <= last:
                groups[id] = waiter
        return groups

    def _count(self, waiter: int, ended: int, failed: int, source: int | None = None) -> list[tuple[int, bool]]:
        """So many that it waits for have ended: it, and whether well, if that is its own end, too."""
        row = self._db.execute(
            "SELECT is_group, total, missing - ?, failed + ?, errors, keeps FROM blocked WHERE id = ?",
            (ended, failed, waiter),
        ).fetchone()
        if row is None:  # it does not wait any more
            return []
        is_group, total, missing, all_failed, errors, keeps = row
        self._db.execute("UPDATE blocked SET missing = ?, failed = ? WHERE id = ?", (missing, all_failed, waiter))
        if is_group and failed and source is not None:
            self._db.execute("UPDATE blocked SET source = coalesce(source, ?) WHERE id = ?", (source, waiter))
        self.changed.add(waiter)
        if missing:
            return []
        if is_group:
            counts = {"total": total, "done": total - all_failed, "failed": all_failed}
            self._store.write_end(_DONE, [(waiter, 0, dumps(counts))])
            if keeps:
                self._store.forget_members(waiter)
            return [(waiter, not all_failed)]
        if all_failed and not errors:
            return self._fail(waiter, self._outcomes.error(self._source(waiter)))
        return self._release(waiter)

    def _release(self, id: int) -> list[tuple[int, bool]]:
        """Have it wait for its turn, with what it takes."""
        source, hole, errors, delay, ttl = self._db.execute(
            "SELECT source, hole, errors, delay, ttl FROM blocked WHERE id = ?", (id,)
        ).fetchone()
        if hole is not None:
            try:
                taken = self._outcomes.of(source, with_errors=bool(errors))
            except Unknown as error:
                return self._fail(id, dumps({"type": "QueueError", "message": str(error)}))
            (body,) = self._db.execute("SELECT body FROM task WHERE id = ?", (id,)).fetchone()
            self._db.execute("UPDATE task SET body = ? WHERE id = ?", (body[:hole] + taken + body[hole + 4 :], id))
        if ttl is not None:
            expires = self._store.time.now() + ttl
            self._db.execute("UPDATE task SET expires = ? WHERE id = ?", (expires, id))
            self._db.execute("INSERT INTO expiry VALUES (?, ?)", (expires, id))
        self._db.execute("DELETE FROM blocked WHERE id = ?", (id,))
        self._store.put_back(id, 0, 0, delay)
        return []

    def _fail(self, id: int, error: bytes) -> list[tuple[int, bool]]:
        self._store.attempts.note(id, 0, error)
        self._db.execute(
            "UPDATE task SET state = ?, ended = ?, attempts = 0 WHERE id = ?", (_FAILED, self._store.clock.wall(), id)
        )
        return [(id, False)]

    def _source(self, id: int) -> int:
        return int(self._db.execute("SELECT source FROM blocked WHERE id = ?", (id,)).fetchone()[0])

    # ---- What people do

    def progress(self, id: int) -> bytes | None:
        """How far a group is; None where it is none, or not known."""
        row = self._db.execute(
            "SELECT total, missing - is_open, failed FROM blocked WHERE id = ? AND is_group = 1", (id,)
        ).fetchone()
        if row is None:
            return None
        total, missing, failed = row
        return dumps({"total": total, "done": total - missing - failed, "failed": failed})

    def is_blocked(self, id: int) -> bool:
        """Whether it waits for a task, or has failed with it."""
        return self._db.execute("SELECT 1 FROM blocked WHERE id = ?", (id,)).fetchone() is not None

    def close(self, group: int) -> bool:
        """Add no more to a group; False where it was not open."""
        row = self._db.execute("SELECT is_open FROM blocked WHERE id = ?", (group,)).fetchone()
        if row is None or not row[0]:
            return False
        self._db.execute("UPDATE blocked SET is_open = 0 WHERE id = ?", (group,))
        self._go_on(self._count(group, 1, 0))
        return True

    def give_up(self, group: int) -> bool:
        """End a group that waits only for members that are not there, as an import may leave one; whether it was so."""
        row = self._db.execute("SELECT missing FROM blocked WHERE id = ? AND is_group = 1", (group,)).fetchone()
        if row is None or not row[0] or self.members(group):
            return False
        self._go_on(self._count(group, row[0], row[0]))
        return True

    def unblock(self, id: int) -> None:
        """It waits no more, for it was revoked."""
        self._db.execute("DELETE FROM blocked WHERE id = ? AND is_group = 0", (id,))
        self.changed.add(id)

    def members(self, group: int) -> list[int] | None:
        """Those of a group that have not ended; None where it is none."""
        if self.progress(group) is None:
            return None
        rows = self._db.execute(
            "SELECT t.id FROM member m JOIN task t ON t.id BETWEEN m.first AND m.last AND t.state = 0 "
            "WHERE m.waiter = ? ORDER BY t.id",
            (group,),
        )
        return [id for (id,) in rows]

    def before(self, id: int) -> int | None:
        """For whom it waits, if that has not ended."""
        row = self._db.execute("SELECT source FROM blocked WHERE id = ? AND is_group = 0", (id,)).fetchone()
        return None if row is None or self._state(row[0]) != _OPEN else int(row[0])

    def cause(self, id: int) -> int | None:
        """With which task it has failed without an attempt of its own; None where that is not known, or by itself."""
        cause = None
        while row := self._db.execute("SELECT source FROM blocked WHERE id = ?", (id,)).fetchone():
            if self.could_not_take(id):
                break
            if row[0] is None:
                return None
            id = cause = int(row[0])
        return cause

    def could_not_take(self, id: int) -> bool:
        """Whether what it waits for has ended as it was to, and it has failed with what came of that."""
        waited = "SELECT missing = 0 AND (failed = 0 OR errors = 1) FROM blocked WHERE id = ? AND is_group = 0"
        row = self._db.execute(waited, (id,)).fetchone()
        return row is not None and bool(row[0])

    def take_again(self, id: int) -> bool:
        """Have one that could not take what came of others try that once more; whether it waits for its turn now."""
        self._go_on(self._release(id))
        return self._state(id) == _OPEN

    def reopened(self, id: int) -> None:
        """A dead letter waits again: so do those who failed with it."""
        again = [(id, False)]
        while again:
            found, again = self._waiters(again), []
            for source, _, waiter in found:
                row = self._db.execute(
                    "SELECT missing, is_group, keeps FROM blocked WHERE id = ?", (waiter,)
                ).fetchone()
                if row is None:
                    continue
                missing, is_group, keeps = row
                self._db.execute(
                    "UPDATE blocked SET missing = missing + 1, failed = failed - 1, "
                    "source = CASE WHEN is_group = 1 AND source = ? THEN NULL ELSE source END WHERE id = ?",
                    (source, waiter),
                )
                self.changed.add(waiter)
                if missing == 0:  # it had ended
                    again.append((waiter, False))
                    if is_group and not self.kept([waiter]):
                        self._store.cleaner.pass_over(1)
                    self._db.execute("UPDATE task SET state = 0, ended = NULL, attempts = NULL WHERE id = ?", (waiter,))
                    self._db.execute("DELETE FROM failure WHERE id = ?", (waiter,))
                    if is_group and keeps:
                        self._pass_over_members(waiter)

    def export(self, id: int) -> dict[str, list[Any]]:
        """Who waits for it, and for what it waits, as JSON has it; for ``restore``."""
        blocked = self._db.execute("SELECT * FROM blocked WHERE id = ?", (id,)).fetchone()
        told = {
            "blocked": None if blocked is None else list(blocked[1:]),
            "waiters": [row[0] for row in self._db.execute("SELECT waiter FROM link WHERE id = ?", (id,))],
            "members": [
                list(row) for row in self._db.execute("SELECT first, last FROM member WHERE waiter = ?", (id,))
            ],
        }
        return {name: rows for name, rows in told.items() if rows}

    def restore(self, id: int, told: dict[str, Any]) -> None:
        """As it was exported."""
        if "blocked" in told:
            marks = ", ".join("?" * COLUMNS)
            self._db.execute(f"INSERT INTO blocked VALUES (?, {marks})", (id, *told["blocked"]))
        self._db.executemany("INSERT INTO link VALUES (?, ?)", [(id, waiter) for waiter in told.get("waiters", ())])
        self._db.executemany("INSERT INTO member VALUES (?, ?, ?)", [(*both, id) for both in told.get("members", ())])

    def catch_up(self, id: int) -> None:
        """Of a step that was restored: have it go on where what it waits for has ended meanwhile, or is not there."""
        row = self._db.execute("SELECT source FROM blocked WHERE id = ? AND is_group = 0", (id,)).fetchone()
        if row is None:
            return
        state = self._state(row[0])
        if state is None:
            self.unblock(id)
            self._go_on(self._fail(id, dumps(refusal(QueueError("what it waits for was not imported")))))
        elif state == _OPEN:  # which may have been here before anything followed it
            self._db.execute("INSERT OR IGNORE INTO link VALUES (?, ?)", (row[0], id))
        else:
            self._go_on(self._count(id, 1, int(not self._is_well(row[0], state))))

    # ---- What is known

    def _state(self, id: int) -> int | None:
        row = self._db.execute("SELECT state FROM task WHERE id = ?", (id,)).fetchone()
        return None if row is None else int(row[0])

    def _is_well(self, id: int, state: int | None) -> bool:
        """Whether one that has ended has ended well."""
        row: Any = self._db.execute("SELECT failed FROM blocked WHERE id = ? AND is_group = 1", (id,)).fetchone()
        return state == _DONE and (row is None or row[0] == 0)


def _hole(step: Step) -> int | None:
    """Where in its payload the ``null`` is."""
    if step.takes is False:
        return None
    head = b'{"args":[' if step.takes is True else b'{"args":{%b:' % dumps(step.takes)
    if not step.message.payload.startswith(head + b"null"):
        raise ValueError(f"the payload of a step begins with {head!r}null")
    return len(head)
