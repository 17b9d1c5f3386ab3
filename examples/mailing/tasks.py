"""What the task server runs: `greentask serve tasks`."""

import os
from collections.abc import Iterator
from email.mime.text import MIMEText
from typing import Any

from greentask import current, task
from greentask.contrib.mail import deliver

RELAY = os.environ.get("RELAY", "127.0.0.1:25")


@task
def send_mail(from_: str, to: str | list[str], contents: str) -> dict[str, Any]:
    """Send a mail to each address in `to`, and tell the caller how far it is."""
    addresses = [to] if isinstance(to, str) else to

    def mails() -> Iterator[MIMEText]:
        for address in addresses:
            mail = MIMEText(contents)
            mail["From"], mail["To"], mail["Subject"] = from_, address, "News from the shop"
            yield mail

    running = current()
    delivery = deliver(mails(), RELAY, connections=20, on_sent=lambda done: running.progress(done, len(addresses)))
    return {"sent": delivery.sent, "refused": delivery.refused}
