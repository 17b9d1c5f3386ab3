"""Tasks that need things, which write down when they are loaded and torn down."""

import os
from collections.abc import Iterator

from greentask import resource, task

LOG = "GREENTASK_TEST_RESOURCES"


def note(what: str) -> None:
    path = os.environ.get(LOG)
    if path:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, f"{what} {os.getpid()}\n".encode())
        os.close(fd)


@resource(preload=True)
def table() -> bytes:
    note("table loaded")
    return os.urandom(int(os.environ.get("GREENTASK_TEST_TABLE", "1000")))


@resource
def connection() -> Iterator[str]:
    note("connection loaded")
    yield f"connection with {len(table())} bytes"
    note("connection closed")


@resource
def cache() -> Iterator[dict[str, str]]:
    note("cache loaded")
    yield {"connection": connection()}
    note("cache closed")


@resource
def unused() -> None:
    note("unused loaded")


@resource
def broken() -> None:
    if os.path.exists(os.environ.get("GREENTASK_TEST_BROKEN", "")):
        raise OSError("the disk is not there")


@task(process=True, needs=[table, cache])
def ask(key: str) -> tuple[str, int]:
    return cache()[key], os.getpid()


@task(needs=[connection])
def ask_here() -> str:
    return connection()


@task(process="shaky", needs=[broken])
def shaky() -> str:
    return "well"


def what_is_loaded() -> list[bool]:
    """No task: it is made one elsewhere."""
    return [table.is_loaded, connection.is_loaded]
