"""JSON-RPC 2.0 (https://www.jsonrpc.org/specification): its requests as calls, and what answers them.

An error's ``data`` is the error object that greentask's own protocol has: ``type`` and ``message``, and ``started`` and
``traceback`` where these are known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import CallError, refusal
from .json import dumps, loads
from .message import MAX_ID, BadRequest, Call, find_id, kind_of, show

__all__ = [
    "PARSE_ERROR",
    "Request",
    "RpcId",
    "batch_response",
    "decode",
    "error_response",
    "refused",
    "result_response",
]

RpcId = str | int | float | None

PARSE_ERROR = -32700
#: An error that the task itself raised.
TASK_ERROR = -32000
_CODES = {
    "InvalidMessage": -32600,
    "UnknownTask": -32601,
    "InvalidArguments": -32602,
    "InvalidResult": -32603,
    "Overloaded": -32001,
    "Draining": -32002,
    "Unauthenticated": -32003,
    "DeadlineExceeded": -32004,
    "Cancelled": -32005,
    "WorkerLost": -32006,
    "LineTooLong": -32007,
    "QueueError": -32008,
    "QueueFull": -32009,
}
# The specification's own words for its own codes; what happened in particular is in the error's data.
_WORDS = {
    PARSE_ERROR: "Parse error",
    -32600: "Invalid Request",
    -32601: "Method not found",
    -32602: "Invalid params",
    -32603: "Internal error",
}
_MEMBERS = frozenset({"jsonrpc", "method", "params", "id"})


class Request(NamedTuple):
    """A call, and whether its caller wants no answer."""

    call: Call
    id: RpcId
    is_notification: bool


def decode(message: Any, unfit: str | None = None) -> Request:
    """What one request asks for; ``unfit`` says why it is refused all the same.

    Raises ``InvalidMessage``, with ``.id`` where one could be read.
    """
    if not isinstance(message, dict):
        raise BadRequest(f"a request is an object, not {kind_of(message)}")
    if unfit is not None:
        raise BadRequest(unfit, find_id(message))
    id = message.get("id")
    if isinstance(id, bool) or not isinstance(id, (str, int, float, type(None))):
        raise BadRequest(f"id must be a string, a number or null, not {kind_of(id)}")
    if isinstance(id, str) and len(id) > MAX_ID:
        raise BadRequest(f"id is longer than {MAX_ID} characters")
    method, params = message.get("method"), message.get("params")
    if message.get("jsonrpc") != "2.0":
        raise BadRequest('jsonrpc must be "2.0"', id)
    if not _MEMBERS.issuperset(message):
        raise BadRequest(f"unknown member {show(min(message.keys() - _MEMBERS))}", id)
    if not isinstance(method, str) or not method:
        raise BadRequest("method must be a non-empty string" if "method" in message else "method is missing", id)
    if params is not None and not isinstance(params, (dict, list)):
        raise BadRequest(f"params must be an object or an array, not {kind_of(params)}", id)
    return Request(Call(method, params, id), id, "id" not in message)  # type: ignore[arg-type]  # may be a float


def result_response(id: RpcId, result: bytes) -> bytes:
    """The response with a result, which is JSON already."""
    return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (result, dumps(id))


def error_response(id: RpcId, error: bytes, code: int | None = None) -> bytes:
    """The response with an error object of greentask's own protocol, in JSON; ``code`` unless its type has one."""
    described = loads(error)
    if code is None:
        code = _CODES.get(described["type"], TASK_ERROR)
    message = _WORDS.get(code) or described["message"] or described["type"]
    head = b'{"jsonrpc":"2.0","error":{"code":%d,"message":%b,"data":' % (code, dumps(message))
    return b'%b%b},"id":%b}' % (head, error, dumps(id))


def refused(id: RpcId, error: CallError, code: int | None = None) -> bytes:
    """The response with one of the protocol's own errors."""
    return error_response(id, dumps(refusal(error)), code)


def batch_response(responses: list[bytes]) -> bytes:
    """The responses of a batch, of which there is at least one."""
    return b"[%b]" % b",".join(responses)
