"""An outbox in PostgreSQL.

Rows that a relay sends are locked meanwhile, and other relays skip them. A relay that dies, or is silent for a minute,
gives them free by that. Programs' own transactions only add rows, and wait for none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import ConfigurationError
from .database import Database, DatabaseLost, Refused, Row
from .table import create_table

try:
    import psycopg
except ImportError as error:  # no such package, or it finds no libpq
    raise ConfigurationError(
        f"an outbox in PostgreSQL needs psycopg: pip install 'greentask[postgres]' ({error})"
    ) from None

__all__ = ["PostgresDatabase"]

_SILENCE = 60  # seconds after which the server takes the rows of a relay that hangs
_COLUMNS = "id, key, task, args, options, created, attempts"


class PostgresDatabase(Database):
    """The database of a DSN, with two connections: what came while the first one was at work waits in the second."""

    def __init__(self, dsn: str, table: str) -> None:
        self._dsn = dsn
        self._table = table
        self._db: psycopg.Connection[Any] | None = None
        self._bell: psycopg.Connection[Any] | None = None

    def __str__(self) -> str:
        try:
            told = psycopg.conninfo.conninfo_to_dict(self._dsn)
        except psycopg.ProgrammingError:
            return "PostgreSQL"
        return f"PostgreSQL's {told.get('dbname', 'database')} on {told.get('host', 'this machine')}"  # no password

    def create(self) -> None:
        with _told(), self._connect() as db:
            create_table(db, table=self._table)

    def open(self) -> None:
        with _told():
            self._db, self._bell = self._connect(), self._connect()
            found = self._db.execute("SELECT to_regclass(%s)", (self._table,)).fetchone()
            if found == (None,):
                raise ConfigurationError(
                    f"{self} has no table {self._table}: make it with create_table, or with --create"
                )
            self._db.execute(f"SET idle_in_transaction_session_timeout = '{_SILENCE}s'")
            self._bell.execute(f"LISTEN {self._table}")

    def take(self, most: int, most_bytes: int, now: float) -> list[Row]:
        db, taken, size = self._opened(), list[int](), 0
        with _told():
            db.execute("BEGIN")
            found = db.execute(
                f"SELECT id, octet_length(args) FROM {self._table} WHERE due <= %s ORDER BY due, id LIMIT %s "
                "FOR UPDATE SKIP LOCKED",
                (now, most),
            )
            for id, length in found:
                size += length
                if taken and size > most_bytes:
                    break
                taken.append(id)
            if not taken:
                db.execute("COMMIT")
                return []
            found = db.execute(f"SELECT {_COLUMNS} FROM {self._table} WHERE id = ANY(%s) ORDER BY due, id", (taken,))
            return [Row(*row) for row in found]

    def settle(self, done: list[Row], refused: list[Refused]) -> None:
        db, table = self._opened(), self._table
        gone = [row.id for row in done] + [one.row.id for one in refused if one.due is None]
        with _told():
            if gone:
                db.execute(f"DELETE FROM {table} WHERE id = ANY(%s)", (gone,))
            for one in refused:
                if one.due is not None:
                    db.execute(
                        f"UPDATE {table} SET error = %s, due = %s, attempts = attempts + 1 WHERE id = %s",
                        (one.error, one.due, one.row.id),
                    )
            db.execute("COMMIT")

    def next_due(self) -> float | None:
        with _told():
            found = self._opened().execute(f"SELECT min(due) FROM {self._table} WHERE due > 0").fetchone()
        due: float | None = found[0] if found else None
        return due

    def wait(self, seconds: float) -> bool:
        assert self._bell is not None
        with _told():
            return bool(list(self._bell.notifies(timeout=seconds, stop_after=1)))

    def close(self) -> None:
        for connection in (self._db, self._bell):
            if connection is not None:
                connection.close()
        self._db = self._bell = None

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            psycopg.conninfo.conninfo_to_dict(self._dsn)
        except psycopg.ProgrammingError:  # whose message may show a password
            raise ConfigurationError("this is no address of a PostgreSQL database: postgresql://host/name") from None
        return psycopg.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=10,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
            prepare_threshold=None,  # a pooler between may not know what was prepared
            fallback_application_name="greentask outbox",
        )

    def _opened(self) -> psycopg.Connection[Any]:
        assert self._db is not None
        return self._db


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
        raise DatabaseLost(f"PostgreSQL: {str(error).strip()}") from error
    except psycopg.Error as error:  # no right to it, say
        raise ConfigurationError(f"PostgreSQL: {str(error).strip()}") from error
