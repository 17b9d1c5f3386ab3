"""``manage.py greentask_outbox``: the relay of a Django project's outbox."""

from __future__ import annotations

import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections, router

from .....client import Client, default_client
from .....errors import GreentaskError
from ....outbox.relay import DEFAULT_BATCH, DEFAULT_KEEP, end_on_signals, relay
from ...models import OutboxRow

__all__ = ["Command"]

# Of Django's options for PostgreSQL, those that are not the connection's own.
_DJANGOS = {"assume_role", "isolation_level", "pool", "server_side_binding"}


class Command(BaseCommand):
    """Any number may run at once. Ctrl-C or SIGTERM: it ends when what is on its way has arrived."""

    help = "Hands the tasks that were enqueued in transactions to a server with a queue."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", help="The database's alias. Default: that of the router.")
        parser.add_argument("--server", help="The server's address. Default: the default client's, GREENTASK_URL.")
        parser.add_argument("--once", action="store_true", help="End when all that is there is sent.")
        parser.add_argument("--batch", type=int, default=DEFAULT_BATCH, help="Rows on their way at once.")
        parser.add_argument(
            "--keep",
            type=float,
            default=DEFAULT_KEEP,
            metavar="SECONDS",
            help="For how long a row that is refused is sent again, before it is forgotten. Default: 30 days.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        end_on_signals(stop)
        try:
            where = _where(options["database"] or router.db_for_write(OutboxRow))
            client = Client(options["server"]) if options["server"] else default_client()
            sent = relay(where, client, batch=options["batch"], keep=options["keep"], stop=stop, drain=options["once"])
        except GreentaskError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{sent} task{'s' * (sent != 1)} enqueued")


def _where(alias: str) -> str:
    """The database of that alias, for a connection of the relay's own."""
    if alias not in connections:
        raise CommandError(f"the settings have no database {alias!r}: DATABASES has {', '.join(connections)}")
    connection = connections[alias]
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        if ":memory:" in str(settings["NAME"]) or "mode=memory" in str(settings["NAME"]):
            raise CommandError(f"the database {alias!r} is in the memory of one program, where no relay can see it")
        return f"sqlite:///{settings['NAME']}"
    if connection.vendor != "postgresql":
        raise CommandError(f"an outbox is in SQLite or PostgreSQL, and {alias!r} is {connection.display_name}")
    from psycopg.conninfo import make_conninfo

    options = {name: value for name, value in settings.get("OPTIONS", {}).items() if name not in _DJANGOS}
    named = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    return make_conninfo(**{name: settings[key] for name, key in named.items() if settings.get(key)}, **options)
