"""A Django project whose tasks are declared in Celery's way: set up before its tasks are imported.

Nothing of Django is imported until then. Whether there is a project, ``DJANGO_SETTINGS_MODULE`` says, as with Celery.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ...tasks.middleware import CallInfo, Middleware
from .exceptions import NotCarriedOver

__all__ = ["Connections", "installed_apps", "is_django", "on_commit"]


def is_django() -> bool:
    """Whether this is a program of a Django project."""
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


def on_commit(task: str, send: Callable[[], object]) -> None:
    """Have a task sent when the transaction is committed; where there is none, at once."""
    if not is_django():
        raise NotCarriedOver(
            f"delay_on_commit() of task {task!r} is for Django projects (DJANGO_SETTINGS_MODULE): use delay(), when "
            "the transaction is committed"
        )
    from django.db import transaction

    transaction.on_commit(send)


def installed_apps() -> list[str]:
    """The packages of the project's apps; it is set up first."""
    from django.apps import apps

    _set_up()
    return [config.name for config in apps.get_app_configs()]


def _set_up() -> None:
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()


class Connections(Middleware):
    """Closes database connections that are too old or broken, before and after each task, as Django does for requests.

    Where it is copied to, a task process, the project is set up.
    """

    def before_task(self, call: CallInfo) -> None:
        """Not what the task before it has left."""
        _close_old()

    def after_task(self, call: CallInfo) -> None:
        """Not for the one that follows."""
        _close_old()

    def __reduce__(self) -> tuple[Any, ...]:
        return _connections, ()


def _connections() -> Connections:
    _set_up()
    return Connections()


def _close_old() -> None:
    from django.db import close_old_connections

    close_old_connections()
