"""`greentask outbox`, run as a script or a service manager would."""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from greentask.contrib.outbox import Outbox, create_table
from support.durable_tasks import marks, note
from support.programs import greentask, program
from support.servers import RunningServer, free_port, serving, wait_until

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("queue") / "tasks.db"
    with serving("--queue", str(path), apps=["support.durable_tasks"]) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A file without an outbox."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        db.execute("CREATE TABLE orders (number)")
    return tmp_path / "shop.db"


def put(shop: Path, *arguments: object) -> None:
    with closing(sqlite3.connect(shop)) as db:
        Outbox().enqueue(db, note, *arguments)
        db.commit()


def test_once_sends_what_is_there(server: RunningServer, shop: Path, tmp_path: Path) -> None:
    done = greentask("outbox", str(shop), "--once", "--create", "--server", server.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["0 tasks enqueued"]
    put(shop, str(tmp_path / "marks"), 1)
    done = greentask("outbox", "--once", GREENTASK_OUTBOX=f"sqlite:///{shop}", GREENTASK_URL=server.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["1 task enqueued"]
    wait_until(lambda: marks(tmp_path / "marks") == ["1"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(server: RunningServer, shop: Path, tmp_path: Path, number: int) -> None:
    arguments = ["-m", "greentask", "outbox", str(shop), "--create", "--server", server.address]
    with program(*arguments) as (line, relay):
        assert line == f"greentask outbox relays greentask_outbox of {shop} to {server.address}"
        put(shop, str(tmp_path / "marks"), 1)
        wait_until(lambda: marks(tmp_path / "marks") == ["1"])
        relay.send_signal(number)
        output, complaints = relay.communicate(timeout=10)
        assert (relay.returncode, output, complaints) == (0, "1 task enqueued\n", "")


@pytest.mark.slow
def test_exit_codes_say_what_is_missing(shop: Path, tmp_path: Path) -> None:
    def run(*arguments: str, **variables: str) -> tuple[int, str]:
        done = greentask("outbox", *arguments, "--once", **variables)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert run(str(shop)) == (
        7,
        f"greentask: {shop} has no table greentask_outbox: make it with create_table, or with --create\n",
    )
    assert run(str(tmp_path / "none.db"))[0] == 7
    code, told = run("mysql://user:secret@host/shop")
    assert (code, "PostgreSQL (postgresql://host/name) or SQLite (the path of a file), not mysql://" in told) == (
        7,
        True,
    )
    assert "secret" not in told
    assert run(str(shop), "--table", "a b")[0] == 2
    assert run(str(shop), "--keep", "0")[0] == 2
    code, told = run("postgresql://127.0.0.1:1/none?password=secret")
    assert code == 3
    assert "secret" not in told
    with closing(sqlite3.connect(shop)) as db:
        create_table(db)
    put(shop, "nowhere", 1)
    assert run(str(shop), "--server", f"127.0.0.1:{free_port()}")[0] == 3
