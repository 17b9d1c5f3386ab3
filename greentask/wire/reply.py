"""What a line to a client means: a ``Reply``, decoded, and put together.

Its lines are put together from members that are bytes already (``"result":…``), so that what a task process encoded is
never decoded and encoded again on its way out.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from ..errors import CallError, InvalidMessage, Unauthenticated, refusal
from .json import DEEPEST, dumps, loads
from .message import Id, kind_of
from .steps import loads_in_steps

__all__ = [
    "Reply",
    "decode_reply",
    "decode_reply_in_steps",
    "error_member",
    "item_line",
    "line",
    "line_around",
    "member",
]

_KINDS = ("result", "error", "progress", "item")


@dataclass(slots=True)  # not frozen, as a call isn't
class Reply:
    """One line about a call. ``kind`` is ``result``, ``error``, ``progress`` or ``item``."""

    id: Id | None
    kind: str
    value: Any
    index: int | None = None


def decode_reply(text: bytes) -> Reply:
    """What a server's line says. Raises ``InvalidMessage``, and ``Unauthenticated`` where it asks for a proof."""
    message = loads(text, DEEPEST + 1)  # a result may be that deep, and is one level down here
    if type(message) is dict and "result" in message and type(message.get("id")) is int:  # as most are
        if len(message) == 2:
            return Reply(message["id"], "result", message["result"])
        if len(message) == 3 and type(message.get("index")) is int:
            return Reply(message["id"], "result", message["result"], message["index"])
    return _decode(message)


def decode_reply_in_steps(text: bytes) -> Generator[None, None, Reply]:
    """The same of a large line, in steps between which others may run."""
    return _decode((yield from loads_in_steps(text, DEEPEST + 1)))


def _decode(message: Any) -> Reply:
    if not isinstance(message, dict):
        raise InvalidMessage(f"a reply is an object, not {kind_of(message)}")
    id, index = message.get("id"), message.get("index")
    if id is not None and (isinstance(id, bool) or not isinstance(id, (str, int))):
        raise InvalidMessage(f"id must be a string or an integer, not {kind_of(id)}")
    if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        raise InvalidMessage(f"index must be an integer, not {kind_of(index)}")
    kinds = [kind for kind in _KINDS if kind in message]
    if len(kinds) != 1:
        if "challenge" in message:
            raise Unauthenticated(
                "the server wants proof of a secret: pass secret_file= (--secret-file, or GREENTASK_SECRET_FILE)"
            )
        raise InvalidMessage(f"a reply has one of {', '.join(_KINDS)}, not {' and '.join(kinds) or 'none'}")
    value = message[kinds[0]]
    if kinds[0] == "error" and not isinstance(value, dict):
        raise InvalidMessage(f"error must be an object, not {kind_of(value)}")
    return Reply(id, kinds[0], value, index)


def member(kind: str, value: bytes) -> bytes:
    """One member of a reply, from its value's JSON."""
    return b'"%b":%b' % (kind.encode(), value)


def error_member(error: CallError) -> bytes:
    """The ``error`` member for one of the protocol's own errors."""
    return member("error", dumps(refusal(error)))


def line(id: Id | None, body: bytes) -> bytes:
    """A reply's line around a member."""
    if type(id) is int:
        return b'{"id":%d,%b}\n' % (id, body)
    return b"{%b}\n" % body if id is None else b'{"id":%b,%b}\n' % (dumps(id), body)


def line_around(id: Id | None) -> tuple[bytes, bytes]:
    """What is before and behind the member in its line, where the member is too large to be copied."""
    return (b"{" if id is None else b'{"id":%b,' % dumps(id)), b"}\n"


def item_line(id: Id | None, index: int, body: bytes) -> bytes:
    """The line of one item of a batch."""
    return line(id, b'"index":%d,%b' % (index, body))
