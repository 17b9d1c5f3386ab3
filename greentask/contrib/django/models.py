"""The outbox's table, as Django makes it. Its columns are explained in ``greentask.contrib.outbox.table``."""

from __future__ import annotations

from django.db import models

from ..outbox.table import TABLE

__all__ = ["OutboxRow"]


class OutboxRow(models.Model):
    """A task that was enqueued, and that no server has yet; what was refused has an ``error``."""

    id = models.BigAutoField(primary_key=True)
    key = models.TextField()
    task = models.TextField()
    args = models.TextField()
    options = models.TextField()
    created = models.FloatField()
    due = models.FloatField()
    attempts = models.IntegerField()
    error = models.TextField(null=True)

    class Meta:
        db_table = TABLE
        indexes = [models.Index(fields=["due", "id"], name=f"{TABLE}_due")]  # noqa: RUF012
        verbose_name = "row of the outbox"
        verbose_name_plural = "outbox"

    def __str__(self) -> str:
        return f"{self.task} {self.key}"
