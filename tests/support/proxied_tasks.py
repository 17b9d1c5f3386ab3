"""Tasks that give back what they got, in several ways."""

import time

from greentask import task


@task
def echo(value: str) -> str:
    return value


@task
def echo_later(value: str, seconds: float) -> str:
    time.sleep(seconds)
    return value


@task(process=True)
def echo_in_process(value: str) -> str:
    return value
