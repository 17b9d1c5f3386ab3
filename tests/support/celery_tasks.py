"""Tasks of a Celery application on greentask, for the tests of what no program of Celery's shows."""

import os
import time
from pathlib import Path
from typing import Any

from greentask import Backoff, current
from greentask.contrib.celery_style import Celery, shared_task

app = Celery("support.celery_tasks")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(process=False)
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@app.task(process=False)
def fail(*args: Any) -> None:
    raise ValueError("no luck")


@app.task(bind=True, process=False)
def seen(self: Any, *args: Any) -> dict[str, Any]:
    """The request, as the task sees it."""
    request = self.request
    return {
        "id": request.id,
        "task": request.task,
        "args": list(request.args),
        "kwargs": request.kwargs,
        "retries": request.retries,
        "called_directly": request.called_directly,
        "add": add(1, 2),  # called directly, which leaves our own request alone
        "afterwards": self.request.id,
    }


@app.task(bind=True)
def advance(self: Any, file: str) -> str:
    """Say how far it is, and wait until the file is there."""
    self.update_state(state="HALFWAY", meta={"current": 1, "total": 2})
    wait_for(file)
    return "there"


@app.task(track_started=True)
def started(file: str) -> int:
    wait_for(file)
    return os.getpid()


@app.task(process=False)
def report_plainly(file: str) -> None:
    current().progress(3, 4)
    wait_for(file)


@shared_task(process=False)
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task(process=False, max_running=1)
def one_at_a_time(file: str) -> None:
    wait_for(file)


@app.task(time_limit=0.2)
def endless() -> None:
    time.sleep(60)


@app.task(bind=True, process=False)
def try_again(self: Any) -> None:
    try:
        raise ValueError("no luck")
    except ValueError as error:
        raise self.retry(exc=error, countdown=5) from error


@app.task(process=False, time_limit=30)
def start_another(url: str, seconds: float) -> float | None:
    """The time limit that a task has which this one starts."""
    from greentask import Client

    with Client(url) as client:
        other = Celery("other", client=client, set_as_current=False)
        left: float | None = other.send_task("support.celery_tasks.left").get(timeout=20)
    return left


@app.task(process=False)
def left() -> float | None:
    return current().remaining()


@app.task(process=False, retries=5, backoff=Backoff(base=0.01))
def at_last() -> int:
    """Fails twice."""
    attempt = current().attempt or 0
    if attempt < 3:
        raise ValueError("no luck")
    return attempt


@app.task(bind=True, max_retries=2, default_retry_delay=0.01)
def ask_again(self: Any, file: str, times: int) -> list[int]:
    """Fails so many times; writes down each attempt."""
    with Path(file).open("a") as lines:
        lines.write(f"{self.request.id} {self.request.retries}\n")
    if self.request.retries < times:
        try:
            raise ValueError("no luck")
        except ValueError as error:
            raise self.retry(exc=error) from error
    return [self.request.retries, self.max_retries]


@app.task(bind=True, max_retries=1)
def give_up(self: Any) -> None:
    self.retry(countdown=0)


@app.task(
    bind=True,
    process=False,
    autoretry_for=(OSError,),
    dont_autoretry_for=(PermissionError,),
    retry_kwargs={"max_retries": 2, "countdown": 0.01},
)
def by_itself(self: Any, kind: str, times: int) -> int:
    if self.request.retries < times:
        raise {"OSError": OSError, "PermissionError": PermissionError, "KeyError": KeyError}[kind]("no luck")
    return int(self.request.retries)


@app.task
def append(file: str, line: str) -> str:
    with Path(file).open("a") as lines:
        lines.write(f"{line}\n")
    return line


@app.task(bind=True)
def held(self: Any, value: Any, name: str, file: str, gate: str | None = None) -> Any:
    """Writes down who runs it, and waits until the gate is there."""
    append(file, f"{name} {self.request.retries} {os.getpid()}")
    if gate is not None:
        wait_for(gate)
    return value


def wait_for(file: str) -> None:
    while not Path(file).exists():
        time.sleep(0.01)
