"""JSON-RPC 2.0: what a request means, and what is answered. https://www.jsonrpc.org/specification"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import CallError, InvalidMessage
from .json import dumps
from .message import Args

__all__ = ["CODES", "TASK_FAILED", "NoRequest", "Request", "decode", "error", "looks_like", "parse_error", "result"]

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602

#: The codes of our own errors, by type. What a task itself raises has ``TASK_FAILED``.
CODES = {
    "InvalidMessage": INVALID_REQUEST,
    "LineTooLong": INVALID_REQUEST,
    "UnknownTask": METHOD_NOT_FOUND,
    "InvalidArguments": INVALID_PARAMS,
    "Overloaded": -32000,
    "Draining": -32001,
    "DeadlineExceeded": -32003,
    "Cancelled": -32004,
    "WorkerLost": -32005,
    "InvalidResult": -32006,
}
TASK_FAILED = -32099

_MESSAGES = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
}

_MAX_ID = 1000  # characters, as of our own


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``id`` is its JSON; None where it is a notification, which is not answered."""

    method: str
    params: Args | None
    id: bytes | None


class NoRequest(InvalidMessage):
    """What should be a request is none; ``id`` is the JSON of what is answered to."""

    def __init__(self, message: str, id: bytes = b"null") -> None:
        super().__init__(message)
        self.id = id

    @property
    def type(self) -> str:
        return "InvalidMessage"


def looks_like(text: bytes) -> bool:
    """Whether a line that can't be read was meant as JSON-RPC."""
    return b'"jsonrpc"' in text


def decode(value: Any) -> Request:
    """A request from its JSON value. Raises ``NoRequest``."""
    if not isinstance(value, dict):
        raise NoRequest("a request is an object")
    id = value.get("id")
    if isinstance(id, bool) or not isinstance(id, (str, int, float, type(None))):
        raise NoRequest("id must be a string, a number or null")
    told = dumps(id)
    if len(told) > _MAX_ID:
        raise NoRequest(f"id is longer than {_MAX_ID} characters")
    if value.get("jsonrpc") != "2.0":
        raise NoRequest('jsonrpc must be "2.0"', told)
    method, params = value.get("method"), value.get("params")
    if not isinstance(method, str):
        raise NoRequest("method must be a string", told)
    if "params" in value and not isinstance(params, (dict, list)):
        raise NoRequest("params must be an array or an object", told)
    return Request(method, params, told if "id" in value else None)


def result(id: bytes, body: bytes) -> bytes:
    """A response, from its result's JSON."""
    return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (body, id)


def error(id: bytes, described: dict[str, Any]) -> bytes:
    """A response for one of our error objects, ``{"type": …, "message": …}``, which it has as ``data``."""
    code = CODES.get(described["type"], TASK_FAILED)
    message = _MESSAGES.get(code, described["message"])
    return b'{"jsonrpc":"2.0","error":%b,"id":%b}' % (dumps({"code": code, "message": message, "data": described}), id)


def parse_error(why: CallError) -> bytes:
    """A response to a line that can't be read."""
    told = {"code": PARSE_ERROR, "message": "Parse error", "data": {"type": why.type, "message": str(why)}}
    return b'{"jsonrpc":"2.0","error":%b,"id":null}' % dumps(told)
