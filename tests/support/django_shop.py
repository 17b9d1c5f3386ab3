"""A Django project in one file. `python -m support.django_shop COMMAND …` is its manage.py.

The database is SQLite's in DJANGO_SQLITE, or PostgreSQL's of that name in the folder DJANGO_POSTGRES.
"""

import os
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import transaction

from support.durable_tasks import add, note

if "DJANGO_SQLITE" in os.environ:
    DATABASE = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_SQLITE"]}
else:
    DATABASE = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["DJANGO_DATABASE"],
        "USER": "tester",
        "HOST": os.environ["DJANGO_POSTGRES"],
        "OPTIONS": {"pool": False, "connect_timeout": 5},
    }


def set_up() -> None:
    settings.configure(
        INSTALLED_APPS=["greentask.contrib.django"],
        DATABASES={"default": DATABASE},
        USE_TZ=True,
        GREENTASK_OUTBOX=os.environ.get("GREENTASK_OUTBOX_OFF") is None,
    )
    django.setup()


def sell(path: str) -> None:
    """Orders, of which one fails."""
    with transaction.atomic():
        print(note.enqueue(path, "sold").id)
        note.using(priority=2).enqueue_many([[path, "many-1"], {"path": path, "what": "many-2"}])
        transaction.on_commit(lambda: note.enqueue(path, "on-commit"))
    try:
        with transaction.atomic():
            transaction.on_commit(lambda: note.enqueue(path, "on-rolled-back"))
            note.enqueue(path, "rolled-back")
            raise ValueError("no such article")
    except ValueError:
        pass
    with transaction.atomic():
        note.enqueue(path, "outer")
        try:
            with transaction.atomic():  # a savepoint
                note.enqueue(path, "inner")
                raise ValueError("not this one")
        except ValueError:
            pass
    note.enqueue(path, "without-transaction")
    print(add.call(1, 2))


if __name__ == "__main__":
    set_up()
    if sys.argv[1] == "sell":
        sell(sys.argv[2])
    else:
        execute_from_command_line(sys.argv)
