"""A Django project whose tasks are enqueued in its transactions."""

import sqlite3
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from support.durable_tasks import marks
from support.programs import environment
from support.servers import RunningServer, wait_until

Run = Callable[..., str]


@pytest.fixture(params=["sqlite", "postgres"])
def manage(request: pytest.FixtureRequest, tmp_path: Path, server: RunningServer) -> Run:
    """Runs `manage.py`; what it has printed."""
    variables = {"GREENTASK_URL": server.address, "DJANGO_SQLITE": str(tmp_path / "shop.db")}
    if request.param == "postgres":
        postgres = request.getfixturevalue("postgres")
        name = f"django_{uuid.uuid4().hex}"
        with psycopg.connect(postgres.dsn(), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")
        del variables["DJANGO_SQLITE"]
        variables |= {"DJANGO_POSTGRES": str(postgres.folder), "DJANGO_DATABASE": name}

    def run(*arguments: str, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "support.django_shop", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(**variables, **more),
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.mark.slow
def test_what_is_enqueued_is_part_of_the_transaction(manage: Run, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    assert "no changes" in manage("makemigrations", "--check", "--dry-run").lower()
    assert "has no table greentask_outbox" in manage("greentask_outbox", "--once", code=1)
    manage("migrate")
    receipt, total = manage("sell", str(path)).split()
    assert (len(receipt), total) == (32, "3"), "a row's key; and calls go to the server, as ever"
    assert marks(path) == []
    assert manage("greentask_outbox", "--once") == "6 tasks enqueued\n"
    wait_until(lambda: len(marks(path)) == 6)
    assert sorted(marks(path)) == ["many-1", "many-2", "on-commit", "outer", "sold", "without-transaction"]
    assert manage("greentask_outbox", "--once", "--batch", "3") == "0 tasks enqueued\n"


def test_what_the_command_can_t_use_is_said_in_one_line(tmp_path: Path) -> None:
    source = """
        from django.core.management import CommandError, call_command
        from django.db import connections
        from support.django_shop import set_up
        set_up()
        def tell(*arguments):
            try:
                call_command("greentask_outbox", "--once", *arguments)
            except CommandError as error:
                print(error)
        tell("--database", "other")
        tell("--server", "nonsense")
        tell("--keep", "0")
        connections["default"].settings_dict["NAME"] = ":memory:"
        tell()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        env=environment(GREENTASK_URL="127.0.0.1:1", DJANGO_SQLITE=str(tmp_path / "shop.db")),
    )
    assert done.returncode == 0, done.stderr
    other, server, keep, memory = done.stdout.splitlines()
    assert "no database 'other': DATABASES has default" in other
    assert "'nonsense' is not an address" in server
    assert "keep is in seconds above 0, not 0.0" in keep
    assert "in the memory of one program" in memory


def test_it_can_be_switched_off(server: RunningServer, tmp_path: Path) -> None:
    path, shop = tmp_path / "marks", tmp_path / "shop.db"
    subprocess.run(
        [sys.executable, "-m", "support.django_shop", "sell", str(path)],
        check=True,
        capture_output=True,
        env=environment(GREENTASK_URL=server.address, DJANGO_SQLITE=str(shop), GREENTASK_OUTBOX_OFF="1"),
    )
    wait_until(lambda: len(marks(path)) == 8)
    with closing(sqlite3.connect(shop)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
