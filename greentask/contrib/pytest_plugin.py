"""Fixtures for tests of programs that call tasks; pytest finds them by itself where greentask is installed.

greentask_eager
    Calls run in place: ``greentask.testing.eager``.
greentask_server
    Calls run on a real server: ``greentask.testing.serving``. One that serves the same is kept for the next tests.
greentask_calls
    Calls go where they go, and are looked at: ``greentask.testing.watching``.

Which tasks there are, the first of these says: ``@pytest.mark.greentask("shop.tasks", processes=2)`` at a test, its
class or module; the fixture ``greentask_apps``, where a conftest.py has one; ``greentask_apps`` in pytest's ini file.
A pytest that uses nothing of it imports nothing but ``greentask`` itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ..tasks.options import refuse_unknown

if TYPE_CHECKING:
    from ..testing import Calls, LocalServer, ServerCalls

__all__ = ["greentask_apps", "greentask_calls", "greentask_eager", "greentask_server"]

_OPTIONS = ("processes", "options", "fresh")
_REMEDY = (
    "which tasks? Say @pytest.mark.greentask('shop.tasks'), or greentask_apps = shop.tasks in pytest's ini file, "
    "or have a fixture greentask_apps that returns ['shop.tasks']"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What may stand in the ini file."""
    parser.addini("greentask_apps", "what greentask_eager and greentask_server serve: modules with tasks", type="args")
    parser.addini("greentask_options", "further arguments of greentask serve, for greentask_server", type="args")


def pytest_configure(config: pytest.Config) -> None:
    """The mark."""
    config.addinivalue_line(
        "markers",
        "greentask(*apps, processes=1, options=(), fresh=False): "
        "the tasks of greentask_eager and greentask_server; with fresh, the server is of that test only",
    )


@pytest.fixture
def greentask_apps(pytestconfig: pytest.Config) -> list[Any]:
    """The modules with tasks, as the ini file names them. To be overridden."""
    return list(pytestconfig.getini("greentask_apps"))


@pytest.fixture
def greentask_eager(request: pytest.FixtureRequest, greentask_apps: list[Any]) -> Iterator[Calls]:
    """Calls run in place, those of the tasks that are named or else of all that are imported. Gives the calls."""
    from ..testing import eager

    with eager(*(_marked(request)[0] or greentask_apps)) as calls:
        yield calls


@pytest.fixture
def greentask_calls() -> Iterator[Calls]:
    """Gives the calls of the program, which go where they go."""
    from ..testing import watching

    with watching() as calls:
        yield calls


@pytest.fixture
def greentask_server(
    request: pytest.FixtureRequest, greentask_apps: list[Any], _greentask_servers: _Servers
) -> Iterator[ServerCalls]:
    """A server is the default client's. Gives the calls, whose ``server`` that is."""
    named, options = _marked(request)
    apps = tuple(named or greentask_apps)
    if not apps:
        raise pytest.UsageError(f"{request.node.nodeid} uses greentask_server: {_REMEDY}")
    options.setdefault("options", request.config.getini("greentask_options"))
    with _greentask_servers.get(apps, **options) as server, server.used() as calls:
        yield calls


@pytest.fixture(scope="session")
def _greentask_servers() -> Iterator[_Servers]:
    servers = _Servers()
    yield servers
    servers.stop()


class _Servers:
    """The servers of this session, each for all tests that want one like it."""

    def __init__(self) -> None:
        self._kept: dict[object, LocalServer] = {}

    @contextmanager
    def get(
        self, apps: tuple[str, ...], *, processes: int = 1, options: Any = (), fresh: bool = False
    ) -> Iterator[LocalServer]:
        from ..testing import LocalServer

        key = (apps, processes, tuple(options))
        server = None if fresh else self._kept.get(key)
        if server is not None and not server.is_running:  # a test's doing
            server.stop()
            server = None
        if server is None:
            server = LocalServer(*apps, processes=processes, options=options)
            if not fresh:
                self._kept[key] = server
        try:
            yield server
        finally:
            if fresh:
                server.stop()

    def stop(self) -> None:
        for server in self._kept.values():
            server.stop()


def _marked(request: pytest.FixtureRequest) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mark = request.node.get_closest_marker("greentask")
    if mark is None:
        return (), {}
    try:
        refuse_unknown("@pytest.mark.greentask", mark.kwargs, _OPTIONS)
    except TypeError as error:
        raise pytest.UsageError(f"{request.node.nodeid}: {error}") from None
    return mark.args, dict(mark.kwargs)
