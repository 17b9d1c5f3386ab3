"""Durable tasks that are enqueued in a transaction of one's own database, SQLite or PostgreSQL.

What is enqueued is a row; a relay hands committed rows to a server with a queue. One that was rolled back never was.

>>> outbox = Outbox()
>>> with connection:                                          # doctest: +SKIP
...     connection.execute("INSERT INTO orders VALUES (5)")
...     outbox.enqueue(connection, send_mail, to="b@example.org")
"""

from __future__ import annotations

from .database import DatabaseLost
from .outbox import Outbox
from .relay import relay
from .table import TABLE, create_table

__all__ = ["TABLE", "DatabaseLost", "Outbox", "create_table", "relay"]
