"""Outboxes in both databases, and a server with a queue."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from greentask import Client
from greentask.contrib.outbox import create_table
from support.postgres import Postgres, running_postgres
from support.servers import RunningServer, serving

APPS = ("support.durable_tasks",)


@dataclass
class Place:
    """A database that has an outbox, and a table of orders."""

    where: str
    connect: Callable[[], Any]

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(self.connect()) as db:
            cursor = db.cursor()
            cursor.execute("SELECT task, args, error, attempts, due, options, key FROM greentask_outbox ORDER BY id")
            return [tuple(row) for row in cursor.fetchall()]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


def sqlite_place(path: Path, journal: str = "WAL") -> Place:
    place = Place(str(path), lambda: sqlite3.connect(path, timeout=30))
    with closing(place.connect()) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
    return place


def postgres_place(postgres: Postgres) -> Place:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return Place(postgres.dsn(name), lambda: psycopg.connect(postgres.dsn(name)))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        place = sqlite_place(tmp_path / "shop.db")
    else:
        place = postgres_place(request.getfixturevalue("postgres"))
    with closing(place.connect()) as db:
        create_table(db)
        db.cursor().execute("CREATE TABLE orders (number INTEGER)")
        db.commit()
    return place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("queue") / "tasks.db"
    with serving("--queue", str(path), "--max-line", "1000000", apps=APPS) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address, timeout=20) as client:
        yield client
