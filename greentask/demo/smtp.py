"""The demo's SMTP server: it takes 50 ms a mail, as a slow relay does, and counts what it accepted.

``python -m greentask.demo.smtp HOST PORT`` prints a line with its address when it listens. For every line on its
standard input it prints, as JSON, how many mails it accepted and how many recipients got more than one; at the
input's end it stops.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from aiosmtpd.smtp import SMTP

__all__ = ["SECONDS_PER_MAIL", "main"]

SECONDS_PER_MAIL = 0.05


class _Counting:
    def __init__(self) -> None:
        self.mails = 0
        self.recipients: Counter[str] = Counter()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        await asyncio.sleep(SECONDS_PER_MAIL)
        self.mails += 1
        self.recipients.update(envelope.rcpt_tos)
        return "250 OK"

    def tell(self) -> str:
        twice = sum(count > 1 for count in self.recipients.values())
        return json.dumps({"mails": self.mails, "recipients": len(self.recipients), "twice": twice})


async def _serve(host: str, port: int) -> None:
    counting = _Counting()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(counting, hostname="localhost", loop=loop), host, port, backlog=1024)
    address = server.sockets[0].getsockname()
    print(f"{address[0]}:{address[1]}", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(counting.tell(), flush=True)
    server.close()


def main() -> None:
    """Serve until standard input ends."""
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: python -m greentask.demo.smtp HOST PORT")
    try:
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
    except OSError as error:
        sys.exit(f"can't listen on {sys.argv[1]}:{sys.argv[2]}: {error.strerror or error}")


if __name__ == "__main__":
    main()
