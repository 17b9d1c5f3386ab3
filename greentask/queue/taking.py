"""Which tasks wait for their turn, and the first of them: reading alone, for the store that hands them out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, repeat

from .attempts import lost_processes
from .bulk import SMALL
from .ids import id_text
from .interface import Delivery, Message, Want
from .sharing import Group

__all__ = ["deliveries_of", "find_first", "fit", "is_any_ready", "waiting_groups"]

_OPEN = 0  # as the store has it

_make: Callable[[tuple[object, ...]], Delivery] = partial(tuple.__new__, Delivery)  # of all its fields

_GROUPS = """
WITH RECURSIVE found (lane, rank) AS (
    SELECT * FROM (SELECT lane, rank FROM ready ORDER BY lane, rank LIMIT 1)
    UNION ALL
    SELECT CASE WHEN EXISTS (SELECT 1 FROM ready r WHERE r.lane = found.lane AND r.rank > found.rank)
                THEN found.lane ELSE (SELECT min(r.lane) FROM ready r WHERE r.lane > found.lane) END,
           coalesce((SELECT min(r.rank) FROM ready r WHERE r.lane = found.lane AND r.rank > found.rank),
                    (SELECT r.rank FROM ready r WHERE r.lane > found.lane ORDER BY r.lane, r.rank LIMIT 1))
    FROM found WHERE found.lane IS NOT NULL
)
SELECT lane, rank, (SELECT min(id) FROM ready r WHERE r.lane = found.lane AND r.rank = found.rank)
FROM found WHERE lane IS NOT NULL
"""

# As one row: each step of a statement costs more than the row (see ``bulk``).
_AS_ONE = f"""
SELECT count(*), max(id), total(is_plain), group_concat(id), group_concat(size), CAST(group_concat(body, '') AS BLOB)
FROM (
    SELECT r.id, length(t.body) AS size, CASE WHEN length(t.body) <= {SMALL} THEN t.body END AS body,
           t.state = {_OPEN} AND r.failures + r.losses = 0 AND t.retries IS NULL
           AND (t.expires IS NULL OR t.expires > ?) AND length(t.body) <= {SMALL} AS is_plain
    FROM ready r LEFT JOIN task t ON t.id = r.id WHERE r.lane = ? AND r.rank = ? ORDER BY r.id LIMIT ?
)
"""
_ONE_BY_ONE = """
SELECT r.id, r.failures, r.losses, t.state, t.expires, t.retries, t.body
FROM ready r LEFT JOIN task t ON t.id = r.id WHERE r.lane = ? AND r.rank = ? ORDER BY r.id LIMIT ?
"""


def waiting_groups(db: sqlite3.Connection) -> list[Group]:
    """Of which names and priorities tasks wait."""
    return [Group(*row) for row in db.execute(_GROUPS)]


def is_any_ready(db: sqlite3.Connection) -> bool:
    """Whether any task waits for its turn."""
    return db.execute("SELECT 1 FROM ready LIMIT 1").fetchone() is not None


def fit(tasks: Mapping[str, int], wants: Sequence[Want]) -> bool:
    """Whether there are slots for so many of these tasks."""
    left = {want.tasks: want.slots for want in wants}
    for task, count in tasks.items():
        names = next((names for names in left if task in names), None)
        if names is None or left[names] < count:
            return False
        left[names] -= count
    return True


def deliveries_of(ids: Sequence[int], messages: Sequence[Message], holder: int) -> list[Delivery]:
    """Of tasks that were enqueued just now, in their order."""
    if len({message.priority for message in messages}) > 1:
        pairs = sorted(zip(ids, messages), key=lambda pair: (-pair[1].priority, pair[0]))
        ids, messages = [id for id, _ in pairs], [message for _, message in pairs]
    names, payloads, retries = zip(*[(one.task, one.payload, one.retries) for one in messages])
    return _deliveries(ids, names, payloads, retries, holder)


def _deliveries(
    ids: Sequence[int], names: Iterable[str], payloads: Iterable[bytes], retries: Iterable[int | None], holder: int
) -> list[Delivery]:
    """First attempts. There are thousands a second, so it is left to C to make them."""
    handles, zeros = zip(ids, repeat(holder)), repeat(0)
    return list(map(_make, zip(map(id_text, ids), names, payloads, zeros, zeros, retries, handles, zeros)))


def find_first(
    db: sqlite3.Connection, name: str, where: tuple[int, int, int], now: float, room: int, holder: int
) -> tuple[int, int, list[Delivery], list[int]]:
    """The first of that name that wait, of a lane and a rank, up to a number of them.

    The last one's id, how many they are, those that are to be run (of payloads that are in all a little more than
    ``room``, at most), and those whose ttl is over.
    """
    count, last, plain, ids, sizes, bodies = db.execute(_AS_ONE, (now, *where)).fetchone()
    if not count:
        return 0, 0, [], []
    if plain != count or len(bodies) > room:
        return _find_one_by_one(db, name, where, now, room, holder)
    ends = list(accumulate(map(int, sizes.split(","))))
    payloads = [bodies[start:end] for start, end in zip([0, *ends], ends)]
    return last, count, _deliveries(list(map(int, ids.split(","))), repeat(name), payloads, repeat(None), holder), []


def _find_one_by_one(
    db: sqlite3.Connection, name: str, where: tuple[int, int, int], now: float, room: int, holder: int
) -> tuple[int, int, list[Delivery], list[int]]:
    """As above, where one of them is not as most are: small, never tried, to be tried as its task says, in time."""
    deliveries: list[Delivery] = []
    expired: list[int] = []
    last = found = 0
    cursor = db.execute(_ONE_BY_ONE, where)
    for id, failures, losses, state, expires, retries, body in cursor:
        last, found = id, found + 1
        if expires is not None and expires <= now and state == _OPEN and not failures + losses:
            expired.append(id)
        elif state == _OPEN:
            lost = lost_processes(db, id, failures, losses) if losses else 0
            deliveries.append(Delivery(id_text(id), name, body, failures, losses, retries, (id, holder), lost))
            room -= len(body)
            if room <= 0:
                break
    cursor.close()
    return last, found, deliveries, expired
