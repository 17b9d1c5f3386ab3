"""The relay, in a thread beside what tests do to its database and its server."""

import json
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from greentask import Client, ConfigurationError, QueueError, Step
from greentask.contrib.outbox import Outbox, create_table, relay
from greentask.contrib.outbox.relay import Relay
from support.durable_tasks import add, marks, note
from support.peers import peer
from support.postgres import running_postgres
from support.programs import run_source
from support.servers import LineClient, RunningServer, free_port, serving, wait_until

from .conftest import APPS, Place, postgres_place, sqlite_place

pytestmark = pytest.mark.once

outbox = Outbox()
in_sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)  # the other one is no other case


@contextmanager
def relaying(
    place: Place, client: Client, sent: list[int] | None = None, **options: object
) -> Iterator[threading.Thread]:
    """A relay in a thread; it ends well. How many it has sent is added to `sent`."""
    stop, failed, count = threading.Event(), list[BaseException](), [] if sent is None else sent

    def run() -> None:
        try:
            count.append(relay(place.where, client, stop=stop, **options))  # type: ignore[arg-type]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert failed == []


def commit(place: Place, work: Callable[..., object]) -> None:
    with closing(place.connect()) as db:
        work(db)
        db.commit()


def test_it_wakes_at_a_commit(place: Place, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, idle, wait = tmp_path / "marks", threading.Event(), Relay._wait
    monkeypatch.setattr(Relay, "_wait", lambda self: (idle.set(), wait(self)))
    with relaying(place, client):
        for number in range(5):
            assert idle.wait(20)
            idle.clear()
            began = time.monotonic()
            commit(place, lambda db, number=number: outbox.enqueue(db, note, str(path), number))
            wait_until(lambda number=number: len(marks(path)) > number)  # type: ignore[misc]
            assert time.monotonic() - began < 4, "it looks by itself after five seconds only"
    assert place.rows() == []


def test_rows_are_sent_in_their_order_and_in_parts(place: Place, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    commit(place, lambda db: outbox.enqueue_many(db, note, [[str(path), number] for number in range(25)]))
    assert relay(place.where, client, batch=10, drain=True) == 25
    wait_until(lambda: len(marks(path)) == 25)
    assert sorted(map(int, marks(path))) == list(range(25))


def test_what_follows_is_sent_as_well(place: Place, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    follows = Step("note", str(path), "followed").using(takes=False)
    commit(place, lambda db: outbox.using(then=follows).enqueue(db, note, str(path), "first"))
    assert relay(place.where, client, drain=True) == 1
    wait_until(lambda: marks(path) == ["first", "followed"])


@pytest.mark.slow
def test_what_is_refused_is_set_aside_and_holds_nothing_up(place: Place, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "marks"

    def enqueue(db: object) -> None:
        outbox.enqueue(db, "not_there", 1)
        outbox.enqueue(db, "add", 1, 2, 3, 4)
        outbox.enqueue(db, note, str(path), "good")

    commit(place, enqueue)
    assert relay(place.where, client, drain=True) == 1
    wait_until(lambda: marks(path) == ["good"])
    unknown, unfit = place.rows()
    assert unknown[2].startswith("UnknownTask: ")
    assert unfit[2].startswith("InvalidArguments: add(a: int, b: int = 1)")
    assert [row[3] for row in (unknown, unfit)] == [1, 1]
    assert all(0 < row[4] - time.time() <= 1 for row in (unknown, unfit)), "again within a second, then later and later"

    commit(place, lambda db: db.cursor().execute("UPDATE greentask_outbox SET task = 'add', args = '[1]' WHERE id = 2"))
    with relaying(place, client):
        wait_until(lambda: len(place.rows()) == 1)  # the row that was mended is sent by itself
        wait_until(lambda: place.rows()[0][3] >= 3)


@pytest.mark.slow
def test_what_is_refused_for_too_long_is_forgotten(
    place: Place, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    commit(place, lambda db: outbox.enqueue(db, "not_there", "who is told"))
    time.sleep(0.02)  # longer than it is kept
    assert relay(place.where, client, keep=0.01, drain=True) == 0
    assert place.rows() == []
    assert "is forgotten" in caplog.text
    assert "who is told" in caplog.text


def test_a_row_that_breaks_the_connection_is_found(place: Place, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "marks"

    def enqueue(db: object) -> None:
        outbox.enqueue(db, note, str(path), "before")
        outbox.enqueue(db, note, str(path), "x" * 2_000_000)  # the server's --max-line is a million
        outbox.enqueue(db, note, str(path), "behind")

    commit(place, enqueue)
    with relaying(place, client):
        wait_until(lambda: sorted(marks(path)) == ["before", "behind"])
        wait_until(lambda: [row[2] is None for row in place.rows()] == [False])
    ((_, _, error, *_),) = place.rows()
    assert error.startswith("ConnectionLost: LineTooLong")


@in_sqlite
def test_a_row_is_not_blamed_for_a_server_that_was_lost_with_it(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is looked at once which row it is. (The module's name is that of the function, in its package.)
    monkeypatch.setattr(sys.modules[Relay.__module__], "_TROUBLES", 1)
    is_back = threading.Event()

    def lose_until_asked_how_it_is(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            if call["function"] == "greentask.ping":
                is_back.set()
            elif not is_back.is_set():
                return
            connection.send({"id": call["id"], "result": {"task": "1M89JMZ1P2QDY"}})

    commit(place, lambda db: outbox.enqueue(db, add, 1))
    with peer(lose_until_asked_how_it_is) as server, Client(server.address) as client, relaying(place, client):
        wait_until(lambda: place.rows() == [])
    assert is_back.is_set()
    assert "set aside" not in caplog.text


@pytest.mark.slow
@in_sqlite
def test_a_server_that_is_away_is_waited_for(place: Place, tmp_path: Path) -> None:
    path, port = tmp_path / "marks", free_port()
    commit(place, lambda db: outbox.enqueue(db, note, str(path), 1))
    with Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(ConnectionError):
            relay(place.where, client, drain=True)
        with relaying(place, client):
            with serving("--queue", str(tmp_path / "tasks.db"), apps=APPS, listen=[f"127.0.0.1:{port}"]):
                wait_until(lambda: marks(path) == ["1"])
            commit(place, lambda db: outbox.enqueue(db, note, str(path), 2))
            with serving("--queue", str(tmp_path / "tasks.db"), apps=APPS, listen=[f"127.0.0.1:{port}"]):
                wait_until(lambda: marks(path) == ["1", "2"])
    assert place.rows() == []


@in_sqlite
def test_a_server_without_a_queue_takes_nothing(place: Place) -> None:
    commit(place, lambda db: outbox.enqueue(db, add, 1))
    with (
        serving(apps=APPS) as server,
        Client(server.address) as client,
        pytest.raises(QueueError, match="start it with --queue FILE"),
    ):
        relay(place.where, client, drain=True)
    assert [row[2:4] for row in place.rows()] == [(None, 0)], "that is no fault of the row"


@pytest.mark.slow
def test_a_database_that_is_away_is_waited_for(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    with running_postgres() as postgres:
        place = postgres_place(postgres)
        commit(place, create_table)
        with relaying(place, client):
            commit(place, lambda db: outbox.enqueue(db, note, str(path), 1))
            wait_until(lambda: marks(path) == ["1"])
            postgres.stop()
            postgres.start()
            commit(place, lambda db: outbox.enqueue(db, note, str(path), 2))
            wait_until(lambda: marks(path) == ["1", "2"])


def test_a_file_that_was_replaced_is_noticed(client: Client, tmp_path: Path) -> None:
    path, place = tmp_path / "marks", sqlite_place(tmp_path / "shop.db", "DELETE")
    commit(place, create_table)
    with relaying(place, client):
        commit(place, lambda db: outbox.enqueue(db, note, str(path), 1))
        wait_until(lambda: marks(path) == ["1"])
        wait_until(lambda: place.rows() == [])
        other = sqlite_place(tmp_path / "other.db", "DELETE")
        commit(other, create_table)
        commit(other, lambda db: outbox.enqueue(db, note, str(path), 2))
        (tmp_path / "other.db").replace(tmp_path / "shop.db")
        wait_until(lambda: marks(path) == ["1", "2"])


def test_several_relays_send_each_row_once(place: Place, client: Client, tmp_path: Path) -> None:
    path, sent = tmp_path / "marks", list[int]()
    with relaying(place, client, sent, batch=5), relaying(place, client, sent, batch=7):
        for start in range(0, 300, 30):
            items = [[str(path), number] for number in range(start, start + 30)]
            commit(place, lambda db, items=items: outbox.enqueue_many(db, note, items))
        wait_until(lambda: place.rows() == [])
    wait_until(lambda: len(marks(path)) >= 300)
    assert sorted(map(int, marks(path))) == list(range(300))
    assert sum(sent) == 300, "and the queue had no second one to refuse"


def test_another_relay_takes_over(place: Place, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    with ExitStack() as first, relaying(place, client):
        first.enter_context(relaying(place, client))
        for number in (1, 2):
            commit(place, lambda db, number=number: outbox.enqueue(db, note, str(path), number))
            wait_until(lambda number=number: len(marks(path)) == number)  # type: ignore[misc]
            first.close()


@contextmanager
def deaf_server() -> Iterator[socket.socket]:
    """Takes connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(20)
        yield deaf


@pytest.mark.slow
@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_a_relay_that_hangs_loses_its_rows(
    place: Place, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has sent a row to a server that doesn't answer, which from outside looks the same."""
    path = tmp_path / "marks"
    commit(place, lambda db: outbox.enqueue(db, note, str(path), 1))
    monkeypatch.setattr("greentask.contrib.outbox.postgres._SILENCE", 1)
    with (
        deaf_server() as deaf,
        Client(f"127.0.0.1:{deaf.getsockname()[1]}", dead_after=2) as hung,
        relaying(place, hung),
    ):
        peer, _ = deaf.accept()
        with relaying(place, client):
            wait_until(lambda: marks(path) == ["1"])
            wait_until(lambda: place.rows() == [])
        peer.close()  # and it goes on, without rows
    assert marks(path) == ["1"]


def test_a_program_s_writers_never_wait_for_the_server(place: Place, tmp_path: Path) -> None:
    """The relay has sent a row to a server that doesn't answer: nobody's transaction is held up by that."""
    with deaf_server() as deaf:
        commit(place, lambda db: outbox.enqueue(db, add, 1))
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with Client(address, dead_after=60, gone_after=0.2) as client, relaying(place, client):
            peer, _ = deaf.accept()
            began = time.monotonic()
            commit(place, lambda db: outbox.enqueue(db, add, 2))
            assert time.monotonic() - began < 10
            deaf.close()  # so that nobody waits for it any more
            peer.close()
    assert len(place.rows()) == 2


def test_it_runs_in_a_greenlet_of_a_patched_program(place: Place, server: RunningServer, tmp_path: Path) -> None:
    source = """
        import os, sys, threading, time, gevent
        from greentask import Client
        from greentask.contrib.outbox import relay
        stop = threading.Event()
        turns = []
        def turn():
            while not stop.is_set():
                turns.append(1)
                gevent.sleep(0.01)
        with Client(sys.argv[2], timeout=20) as client:
            relays = gevent.spawn(relay, sys.argv[1], client, stop=stop)
            gevent.spawn(turn)
            while not os.path.exists(sys.argv[3]):
                gevent.sleep(0.02)
            before, began = len(turns), time.monotonic()
            while len(turns) < before + 10:
                gevent.sleep(0.01)
            took = time.monotonic() - began
            stop.set()
            print(relays.get(timeout=10), took < 4)
    """
    commit(place, lambda db: outbox.enqueue(db, note, str(tmp_path / "marks"), 1))
    words = run_source(textwrap.dedent(source), place.where, server.address, str(tmp_path / "marks"), patched=True)
    assert words == ["1", "True"], "and others have their turns while it waits: for five seconds"


def test_what_can_t_be_used_is_said(tmp_path: Path, client: Client) -> None:
    with pytest.raises(ConfigurationError, match="there is no SQLite file"):
        relay(str(tmp_path / "nothing.db"), client)
    (tmp_path / "odd.db").write_text("no database" * 1000)
    with pytest.raises(ConfigurationError, match=r"odd\.db can't be used \(.*\): name the SQLite file"):
        relay(str(tmp_path / "odd.db"), client)
    with pytest.raises(ConfigurationError, match="at least one row"):
        relay(str(tmp_path / "odd.db"), client, batch=0)
    with pytest.raises(ConfigurationError, match="no address of a PostgreSQL") as raised:
        relay("password=secret host='", client)
    assert "secret" not in str(raised.value)


def test_a_table_that_is_missing_is_said(place: Place, client: Client) -> None:
    with pytest.raises(ConfigurationError, match="has no table other: make it with create_table"):
        relay(place.where, client, table="other")
