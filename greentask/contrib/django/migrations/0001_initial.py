"""The table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies: list[tuple[str, str]] = []  # noqa: RUF012
    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="OutboxRow",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("key", models.TextField()),
                ("task", models.TextField()),
                ("args", models.TextField()),
                ("options", models.TextField()),
                ("created", models.FloatField()),
                ("due", models.FloatField()),
                ("attempts", models.IntegerField()),
                ("error", models.TextField(null=True)),
            ],
            options={
                "verbose_name": "row of the outbox",
                "verbose_name_plural": "outbox",
                "db_table": "greentask_outbox",
                "indexes": [models.Index(fields=["due", "id"], name="greentask_outbox_due")],
            },
        ),
    ]
