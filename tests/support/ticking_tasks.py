"""Tasks that run by themselves, and leave marks in the file that the environment names."""

import os
import time

from greentask import task
from support.durable_tasks import mark


@task(every=1, singleton=True)
def tick() -> None:
    mark(os.environ["TICKS"], round(time.time(), 2))


@task(every="*/2 * * * * *", timezone="Europe/Paris", process=True)
def tick_in_process() -> None:
    mark(f"{os.environ['TICKS']}-process", round(time.time(), 2))
