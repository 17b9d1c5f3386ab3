"""Enqueueing and asking for results, on the wire."""

from typing import Any

from support.servers import LineClient

__all__ = ["enqueue", "outcome"]


def enqueue(peer: LineClient, function: str, *args: object, **options: object) -> str:
    """Its id."""
    reply = peer.ask({"function": function, "args": args, "id": 1, "enqueue": options or True})
    assert set(reply) == {"id", "result"}, reply
    return str(reply["result"]["task"])


def outcome(peer: LineClient, task: str, wait: object = True) -> dict[str, Any]:
    """What `greentask.result` says."""
    found: dict[str, Any] = peer.call("greentask.result", task=task, wait=wait)
    return found
