"""What a program enqueues in its own transaction."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psycopg
import psycopg2
import pytest

from greentask import Client, ConfigurationError, InvalidArguments, LineTooLong, QueueError, Step
from greentask.contrib.outbox import Outbox, create_table, relay
from greentask.contrib.outbox.caller import Enqueuing
from support.durable_tasks import add, fail, marks, note
from support.postgres import Postgres

from .conftest import Place, postgres_place

pytestmark = pytest.mark.once

outbox = Outbox()


def test_what_is_committed_runs_and_what_is_rolled_back_does_not(place: Place, client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    with closing(place.connect()) as db:
        for number in range(6):
            cursor = db.cursor()
            cursor.execute(f"INSERT INTO orders VALUES ({number})")
            outbox.enqueue(cursor, note, path, number)
            db.commit() if number % 2 == 0 else db.rollback()
    assert relay(place.where, client, drain=True) == 3
    assert place.rows() == []
    assert client.enqueue(note, path, "last").result() == "last"
    assert sorted(marks(tmp_path / "marks")) == ["0", "2", "4", "last"]


def test_a_connection_does_as_well_as_a_cursor(place: Place) -> None:
    with closing(place.connect()) as db:
        key = outbox.enqueue(db, add, 1, b=2)
        keys = outbox.enqueue_many(db, "add", [[1], {"a": 2}, (3, 4)])
        db.commit()
    rows = place.rows()
    assert [json.loads(row[1]) for row in rows] == [{"a": 1, "b": 2}, [1], {"a": 2}, [3, 4]]
    assert [row[6] for row in rows] == [key, *keys]
    assert len({key, *keys}) == 4


def test_arguments_come_as_they_were_sent(place: Place, client: Client, tmp_path: Path) -> None:
    value = {"é": ["𝄞", "\x00", "%s ? {table}"], "large": 2**70, "float": 0.1, "null": None}
    with closing(place.connect()) as db:
        outbox.using(key="as sent").enqueue(db, note, str(tmp_path / "marks"), value)
        db.commit()
    relay(place.where, client, drain=True)
    again = client.using(key="as sent").enqueue(note, str(tmp_path / "other"), 0)
    assert again.result() == value
    client.call("greentask.queue", action="purge", task=again.id)


def test_options_are_kept_and_count_from_the_enqueueing(place: Place, client: Client) -> None:
    before = time.time()
    with closing(place.connect()) as db:
        outbox.using(delay=60, priority=3, retries=0, key="later").enqueue(db, fail)
        outbox.using(ttl=0.01, key="too late").enqueue(db, add, 1)
        db.commit()
    later, late = (json.loads(row[5]) for row in place.rows())
    assert before + 60 <= later.pop("at") <= time.time() + 60
    assert later == {"priority": 3, "retries": 0}
    assert late == {"ttl": 0.01}
    time.sleep(0.02)  # the ttl is what goes by
    relay(place.where, client, drain=True)
    receipts = [client.using(key=key).enqueue("add", 1) for key in ("later", "too late")]
    assert receipts[0].state == "scheduled"
    assert receipts[0].revoke()
    with pytest.raises(TimeoutError, match="ttl"):
        receipts[1].result()
    for receipt in receipts:
        client.call("greentask.queue", action="purge", task=receipt.id)


def test_psycopg2_is_spoken_to_as_well(postgres: Postgres, client: Client) -> None:
    place = postgres_place(postgres)
    with closing(psycopg2.connect(place.where)) as db:
        create_table(db)
        outbox.enqueue(db, add, 1, 2)
        with db.cursor() as cursor:
            outbox.enqueue_many(cursor, add, [[1], [2]])
        db.commit()
        outbox.enqueue(db, add, 3)
        db.rollback()
    assert relay(place.where, client, drain=True) == 3


def test_what_can_t_be_sent_is_refused_at_once() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        create_table(db)
        with pytest.raises(InvalidArguments, match="add"):
            outbox.enqueue(db, add, 1, 2, 3)
        with pytest.raises(TypeError, match="what is enqueued is a @task or the name of one, not <built-in"):
            outbox.enqueue(db, print)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="did you mean delay"):
            outbox.using(dely=5)  # type: ignore[call-arg]
        with pytest.raises(InvalidArguments, match="set"):
            outbox.enqueue(db, "anything", {1, 2})
        with pytest.raises(LineTooLong):
            outbox.enqueue(db, "anything", "x" * (17 << 20))
        with pytest.raises(TypeError, match="a key is one task's"):
            outbox.using(key="one").enqueue_many(db, add, [[1]])
        with pytest.raises(TypeError, match="is no group, so that nothing can follow"):
            outbox.using(then=Step(add)).enqueue_many(db, add, [[1]])
        with pytest.raises(TypeError, match="one call's arguments"):
            outbox.enqueue_many(db, add, [1])  # type: ignore[list-item]
        assert db.execute("SELECT count(*) FROM greentask_outbox").fetchone() == (0,)


def test_a_cursor_of_asyncio_which_nobody_would_await_is_refused(postgres: Postgres) -> None:
    async def enqueue() -> None:
        async with await psycopg.AsyncConnection.connect(postgres.dsn()) as db:
            for given in (db, db.cursor()):
                with pytest.raises(ConfigurationError, match=r"none of asyncio, as psycopg\..*AsyncCursor is"):
                    outbox.enqueue(given, add, 1)

    asyncio.run(enqueue())


def test_other_tables_and_other_databases() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        create_table(db, table="other")
        create_table(db, table="other")
        Outbox("other").enqueue(db, add, 1)
        assert db.execute("SELECT task FROM other").fetchall() == [("add",)]
    with pytest.raises(ConfigurationError, match="can't be an outbox's table"):
        Outbox("other; DROP TABLE orders")
    with pytest.raises(ConfigurationError, match=r"not a builtins\.object$"):
        outbox.enqueue(object(), add, 1)
    session = type("Session", (), {"__module__": "sqlalchemy.orm.session"})()
    with pytest.raises(ConfigurationError, match=r"Session; of a session it is session\.connection\(\)\.connection$"):
        outbox.enqueue(session, add, 1)


def test_a_task_s_own_enqueue_can_be_the_outbox_s(place: Place, client: Client) -> None:
    with closing(place.connect()) as db:
        enqueuing = Enqueuing(outbox, lambda: db, lambda: client)
        receipt = add.using(enqueuing, key="of its own").enqueue(1, b=2)
        assert len(add.using(enqueuing).enqueue_many([[1], [2]])) == 2
        # Nobody would hear of it where the server refused it.
        with pytest.raises(InvalidArguments, match="add"):
            add.using(enqueuing).enqueue(1, 2, 3)  # type: ignore[call-arg]
        with pytest.raises(InvalidArguments, match="add"):
            add.using(enqueuing).enqueue_many([[1], [1, 2, 3]])
        with pytest.raises(QueueError, match="enqueue one task instead"):
            add.using(enqueuing).enqueue_many([]).then(add)
        assert add.using(enqueuing).call(1, 2) == 3, "calls are the client's"
        assert list(add.using(enqueuing).map([1, 2])) == [2, 3]
        assert add.using(enqueuing, idempotent=True).submit(1).result() == 2
        with pytest.raises(TypeError, match="use enqueue"):
            add.using(enqueuing, delay=5).call(1)
        db.commit()
    assert receipt.id == "of its own"
    for ask in (receipt.result, receipt.revoke, lambda: receipt.state, lambda: receipt.progress):
        with pytest.raises(QueueError, match="a relay sends it"):
            ask()
    assert relay(place.where, client, drain=True) == 3
