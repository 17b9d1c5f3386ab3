"""Tasks that run in two groups of task processes, and one that runs in none."""

import os
import sys

from greentask import task
from support import grouped_models


@task
def here() -> int:
    return os.getpid()


@task(process=True)
def report() -> int:
    return os.getpid()


predict = task(process="ml")(grouped_models.predict)
nap = task(process="ml", name="nap")(grouped_models.nap)


@task(process=True)
def modules() -> list[str]:
    """Which of our modules this process has."""
    return sorted(name for name in sys.modules if name.startswith("support."))
