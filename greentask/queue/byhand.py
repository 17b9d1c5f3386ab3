"""A queue's file in the hands of a person: opened beside the servers that have it, or where there is none.

Whoever changes something waits in line with the servers' writers, does it in one transaction, and knocks, so that they
see it at once. Nothing here takes tasks, and nothing blocks the servers for longer than such a transaction.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from ..errors import ConfigurationError, QueueError
from . import managing, pausing
from .beside import Beside
from .clock import Clock
from .holders import is_anybody_here
from .ids import id_text
from .interface import Message
from .limits import DEFAULT_KEY_TTL, DEFAULT_MAX_TAKEN, DEFAULT_RESULT_TTL
from .managing import Filter
from .schema import VERSION, open_file, upgrade, version
from .stalls import told_turn, who_holds
from .store import Store

__all__ = ["QueueFile"]

T = TypeVar("T")


class QueueFile:
    """The queue in the file at ``path``. Raises ``ConfigurationError`` where there is none, or it can't be used.

    ``make``: make it where there is none. ``to_read``: only to look; a file of an older version is refused then, and
    otherwise where a server has it, and brought to this version where none has.
    """

    def __init__(self, path: str | os.PathLike[str], *, make: bool = False, to_read: bool = False) -> None:
        self.path = os.path.abspath(os.fspath(path))
        if not make and not os.path.exists(self.path):
            raise ConfigurationError(f"there is no queue {self.path!r}: `greentask serve APP --queue FILE` makes one")
        self._db = open_file(self.path, as_it_is=True)
        try:
            self._beside = Beside(self.path)
        except BaseException:
            self._db.close()
            raise
        try:
            self._mind_version(to_read)
        except BaseException:
            self.close()
            raise
        kept = dict(self._db.execute("SELECT name, value FROM meta"))  # by the server that was started last
        result_ttl, key_ttl = kept.get("result_ttl", DEFAULT_RESULT_TTL), kept.get("key_ttl", DEFAULT_KEY_TTL)
        max_taken = kept.get("max_taken", DEFAULT_MAX_TAKEN)
        self.store = Store(self._db, Clock(), result_ttl, key_ttl, max_taken=max_taken)
        self.store.know_time()

    def _mind_version(self, to_read: bool) -> None:
        """See to it that the file is of this version. A server of an older one could not start with it any more."""
        found = version(self._db)
        if found == VERSION:
            return
        is_served = is_anybody_here(self._db, self._beside)
        if to_read or is_served:
            raise ConfigurationError(
                f"queue {self.path!r} is of an older greentask{', which serves it' if is_served else ''} (its version "
                f"is {found}, that of this one {VERSION}), and is left as it is: use that greentask's command, or have "
                f"this one serve the file (greentask serve APP --queue {shlex.quote(self.path)}), which brings it to "
                "this version for good"
            )
        upgrade(self._db)

    def __enter__(self) -> QueueFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._beside.close()

    def is_served(self) -> bool:
        """Whether a server has the file."""
        return is_anybody_here(self._db, self._beside)

    def transact(self, change: Callable[[Store], T]) -> T:
        """What a function comes to that is called within a transaction; it is on disk, and the servers know of it."""
        with told_turn(self._beside):
            try:
                self.store.begin()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                raise QueueError(f"queue {self.path!r} is locked {who_holds(self.path)}") from None
            try:
                value = change(self.store)
                self.store.commit()
            except BaseException:
                self.store.rollback()
                raise
        self._beside.knock()
        return value

    @contextmanager
    def moment(self) -> Iterator[Store]:
        """While inside, all is seen as of one moment; the servers go on."""
        self._db.execute("BEGIN")
        try:
            yield self.store
        finally:
            self._db.execute("ROLLBACK")

    # ---- What a server's greentask.queue does as well

    def look(self, what: str, **asked: Any) -> Any:
        """``stats``, ``list`` (a filter's members, ``after`` and ``limit``) or ``show`` (``task``)."""
        if what == "stats":
            return {**managing.stats(self.store, self._beside.is_held), "served": self.is_served()}
        if what == "show":
            return managing.show(self.store, asked["task"])
        after, limit = asked.pop("after", None), asked.pop("limit", 100)
        return managing.list_tasks(self.store, Filter.decode(asked), after, limit)

    def change(self, action: str, tasks: list[str]) -> list[str]:
        """Retry, purge or revoke these tasks; those of which that made sense."""
        return self.transact(lambda store: managing.change(store, action, tasks))

    def change_all(self, action: str, wanted: Filter) -> int:
        """Retry, purge or revoke all that fit, some at a time; how many they were."""
        changed = 0
        after: str | None = None
        while True:
            step, after = self.transact(lambda store: managing.change_some(store, action, wanted, after))  # noqa: B023
            changed += step
            if after is None:
                return changed

    def enqueue(self, message: Message) -> str:
        """Keep a task; its id."""
        (id,) = self.transact(lambda store: store.enqueue([message]))
        return id_text(id)

    def pause(self, task: str | None) -> bool:
        """Have that task wait, or all (None); False where it does already."""
        return self.transact(lambda store: pausing.pause(store.db, task))

    def resume(self, task: str | None) -> bool:
        """Go on with it; False where it was not paused."""
        return self.transact(lambda store: pausing.resume(store.db, task))
