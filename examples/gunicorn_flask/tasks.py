"""What the shop does outside of its web workers."""

import time

import gevent

from greentask import task


@task(process=True)
def report(seconds: float) -> int:
    """Compute for so long; how many rounds that were."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rounds += 1
    return rounds


@task
def send_mail(to: str) -> str:
    """Wait as a mail server lets one wait."""
    gevent.sleep(0.05)
    return f"sent to {to}"
