"""A Django project that is written as Celery's guide for Django says runs with its imports changed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from support.celery_programs import change_imports
from support.parts import require
from support.programs import environment
from support.servers import serving

FILES = {
    "proj/__init__.py": """
from .celery import app as celery_app

__all__ = ("celery_app",)
""",
    "proj/celery.py": """
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.task(bind=True, ignore_result=True)
def debug_task(self):
    print(f"Request: {self.request!r}")
""",
    "proj/settings.py": """
SECRET_KEY = "none"
INSTALLED_APPS = ["widgets"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CELERY_BROKER_URL = "amqp://guest:guest@localhost"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_RESULT_BACKEND = "db+sqlite:///results.sqlite"
CELERY_TASK_SERIALIZER = "json"
""",
    "widgets/__init__.py": "",
    "widgets/models.py": """
from django.db import models


class Widget(models.Model):
    name = models.CharField(max_length=140)
""",
    "widgets/tasks.py": """
from celery import shared_task
from django.db import connection

from widgets.models import Widget


@shared_task
def count_widgets():
    return Widget.objects.count()


@shared_task(process=False)
def rename_widget(widget_id, name):
    w = Widget.objects.get(id=widget_id)
    w.name = name
    w.save()


@shared_task
def break_connection():
    connection.ensure_connection()
    connection.errors_occurred = True
    connection.connection.close()
""",
    "manage.py": """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
execute_from_command_line(sys.argv)
""",
}

PROGRAM = """
import time

from django.db import transaction
from proj.celery import debug_task
from widgets.models import Widget
from widgets.tasks import break_connection, count_widgets, rename_widget

widget = Widget.objects.create(name="one")
print(rename_widget.delay(widget.id, "two").get(timeout=20), Widget.objects.get().name)
print(count_widgets.delay().get(timeout=20), break_connection.delay().get(timeout=20))
print(count_widgets.delay().get(timeout=20), debug_task.delay().get(timeout=20))

try:
    with transaction.atomic():
        rename_widget.delay_on_commit(widget.id, "rolled back")
        raise LookupError
except LookupError:
    pass
with transaction.atomic():
    print(rename_widget.delay_on_commit(widget.id, "three"))
    # It isn't sent yet: in the one process, whatever was sent before this would have run before it.
    print(count_widgets.delay().get(timeout=20), Widget.objects.get().name)
while Widget.objects.get().name == "two":
    time.sleep(0.02)
print(Widget.objects.get().name, rename_widget.apply_async_on_commit((widget.id, "four"), countdown=0.1))
while Widget.objects.get().name == "three":
    time.sleep(0.02)
print(Widget.objects.get().name)
"""


@pytest.mark.slow
def test_a_project_s_tasks_are_found_and_served(tmp_path: Path) -> None:
    require(importlib.util.find_spec("django"), "no Django here: pip install django")
    for name, source in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(change_imports(source))
    address = f"unix://{tmp_path}/socket"

    def manage(*arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(GREENTASK_URL=address, DJANGO_SETTINGS_MODULE="proj.settings"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    manage("migrate", "--run-syncdb")
    with serving("--queue", "tasks.db", apps=["proj"], listen=[address], processes=1, cwd=tmp_path) as server:
        assert manage("shell", "-v", "0", "-c", PROGRAM).splitlines() == [
            *("None two", "1 None", "1 None"),
            *("None", "1 two", "three None", "four"),
        ]
        assert "Request: Request(" in server.output()
