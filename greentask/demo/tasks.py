"""What the demo's task server offers."""

from __future__ import annotations

import os
import time
from email.mime.text import MIMEText
from typing import Any

from .. import current, task
from ..contrib.mail import deliver

#: The environment's name for the SMTP server's address.
RELAY = "GREENTASK_DEMO_RELAY"


@task
def send_mail(from_: str, to: str | list[str], contents: str) -> dict[str, Any]:
    """Send a mail to each address in `to`, over fifty connections to the relay."""
    addresses = [to] if isinstance(to, str) else to

    def mails() -> Any:
        for address in addresses:
            mail = MIMEText(contents)
            mail["From"], mail["To"], mail["Subject"] = from_, address, "News from the shop"
            yield mail

    running = current()
    delivery = deliver(
        mails(), os.environ[RELAY], connections=50, on_sent=lambda done: running.progress(done, len(addresses), "mails")
    )
    return {"sent": delivery.sent, "refused": delivery.refused}


@task(process=True)
def report(name: str, seconds: float = 1.0) -> dict[str, Any]:
    """Count primes for so many seconds of a processor's time: as good as any report."""
    began, number, primes = time.process_time(), 1, 0
    while time.process_time() - began < seconds:
        number += 1
        primes += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    return {"report": name, "primes": primes, "up_to": number, "seconds": round(time.process_time() - began, 2)}
