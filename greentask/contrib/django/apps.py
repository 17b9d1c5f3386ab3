"""What happens when Django has read its settings."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings

from ...client.default import default_client
from ...tasks.remote import provide_default_caller
from ..outbox.caller import Enqueuing
from ..outbox.outbox import Outbox

__all__ = ["GreentaskConfig"]


class GreentaskConfig(AppConfig):
    """The app of the outbox."""

    name = "greentask.contrib.django"
    label = "greentask"
    verbose_name = "greentask"

    def ready(self) -> None:
        if getattr(settings, "GREENTASK_OUTBOX", True):
            caller = Enqueuing(Outbox(), _connection, default_client)
            provide_default_caller(lambda: caller)


def _connection() -> Any:
    """The connection of this thread, to the database in which the outbox is."""
    from django.db import connections, router

    from .models import OutboxRow

    return connections[router.db_for_write(OutboxRow)]
