"""What a relay needs of a database that has an outbox."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigurationError, GreentaskError

__all__ = ["Database", "DatabaseLost", "Refused", "Row", "database_at"]

_POSTGRES = re.compile(r"postgres(ql)?://|\w+\s*=")
_OTHER = re.compile(r"(?!sqlite:)\w+(\+\w+)?://")


class DatabaseLost(GreentaskError, ConnectionError):
    """An outbox's database can't be reached, or is locked for long; worth another attempt."""


@dataclass(frozen=True, slots=True)
class Row:
    """A task that was enqueued in a transaction; as the table has it."""

    id: int
    key: str
    task: str
    args: str
    options: str
    created: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was not taken, and when it is sent again; never where ``due`` is None: then it is forgotten."""

    row: Row
    error: str
    due: float | None


class Database(ABC):
    """A connection of a relay's own. Of its methods, all but ``close`` raise ``DatabaseLost``.

    Between ``take`` and ``settle`` other relays don't get these rows.
    """

    @abstractmethod
    def create(self) -> None:
        """Make the table where there is none."""

    @abstractmethod
    def open(self) -> None:
        """Connect. Raises ``ConfigurationError`` where there is no such table."""

    @abstractmethod
    def take(self, most: int, most_bytes: int, now: float) -> list[Row]:
        """Committed rows that are due, in their order; as many as are that long, but at least one."""

    @abstractmethod
    def settle(self, done: list[Row], refused: list[Refused]) -> None:
        """Delete what was enqueued, and keep why others were not; what is in neither stays as it was."""

    @abstractmethod
    def next_due(self) -> float | None:
        """When the next row is due, of those that are there."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait until something was committed, or that long; whether something was."""

    @abstractmethod
    def close(self) -> None:
        """Leave it. What was taken is free for others."""


def database_at(where: str, table: str) -> Database:
    """The database of a DSN (``postgresql://…`` or ``host=… dbname=…``), or the SQLite file of that path.

    Raises ``ConfigurationError`` for another kind of database, and where psycopg isn't installed.
    """
    if _POSTGRES.match(where):
        from .postgres import PostgresDatabase

        return PostgresDatabase(where, table)
    if other := _OTHER.match(where):  # of what follows nothing is told: a password may be there
        raise ConfigurationError(
            f"an outbox is in PostgreSQL (postgresql://host/name) or SQLite (the path of a file), not {other[0]}…"
        )
    from .sqlite import SQLiteDatabase

    return SQLiteDatabase(Path(where.removeprefix("sqlite:///")), table)
