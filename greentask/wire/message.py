"""What a line to a server means: a ``Call``, a ``More`` or JSON-RPC, decoded into small classes and encoded back.

What servers answer: ``reply``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from ..errors import InvalidArguments, InvalidMessage, InvalidResult
from .chain import MOST_STEPS
from .enqueue import Enqueue, decode_enqueue
from .json import DEEPEST, MAX_DEPTH, MAX_DIGITS, Unfit, dumps, find_fault, finish_loading, loads, scan
from .steps import LARGE, loads_in_steps
from .writing import dumps_in_steps, is_large

__all__ = [
    "DEFAULT_STREAM_WINDOW",
    "Args",
    "Call",
    "Id",
    "JsonRpc",
    "More",
    "decode_enqueueing",
    "decode_request",
    "decode_request_in_steps",
    "encode_call",
    "encode_call_in_steps",
    "encode_more",
    "encode_plain_call",
    "find_id",
    "has_large",
    "kind_of",
    "show",
]

Id = str | int
Args = dict[str, Any] | list[Any]

#: How many items of a stream may be ahead of its reader, unless the call says otherwise.
DEFAULT_STREAM_WINDOW = 64
_MAX_STREAM_WINDOW = 1_000_000

#: Characters of an id, which every line about its call repeats.
MAX_ID = 1000

# Items of a batch that are looked at in one step.
_FEW = 10_000
_MANY = 16  # arguments of a call, which may be large together
_ARGS_TYPES = frozenset({dict, list, type(None)})
_are_args = _ARGS_TYPES.issuperset  # of types

_LEAST_MEMBERS = frozenset({"function", "args", "id"})
_PLAIN_MEMBERS = _LEAST_MEMBERS | {"timeout"}
_CALL_MEMBERS = _PLAIN_MEMBERS | {"progress", "batch", "stream", "enqueue"}
_ENQUEUED = frozenset({"function", "args", "batch"})  # of what greentask.enqueue takes; the others say how
_encode_name = lru_cache(1000)(dumps)
_NOT_YET = {
    "auth": "a proof belongs into the first line, and only where the server's first line asks for it",
}


@dataclass(slots=True)  # not frozen: it would take three times as long to make, and there is one for each line
class Call:
    """A request to run a task. ``timeout`` is in seconds; ``stream`` the window in items, 0 for no stream; ``enqueue``
    says how a durable one is to run.

    ``attempt`` is of no line: it says which attempt at a durable task this call is.
    """

    function: str
    args: Args | None = None
    id: Id | None = None
    timeout: float | None = None
    progress: bool = False
    batch: list[Args | None] | None = None
    stream: int = 0
    enqueue: Enqueue | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class More:
    """A reader's grant of ``items`` more items of the stream ``id``."""

    id: Id
    items: int


@dataclass(frozen=True, slots=True)
class JsonRpc:
    """A line of JSON-RPC, a request or an array of them; ``unfit`` says why it is refused all the same."""

    message: dict[str, Any] | list[Any]
    unfit: str | None = None

    @property
    def is_certain(self) -> bool:
        """Whether its sender means JSON-RPC; an array may be anything."""
        first = self.message[0] if isinstance(self.message, list) and self.message else self.message
        return isinstance(first, dict) and "jsonrpc" in first


class BadRequest(InvalidMessage):
    """``InvalidMessage`` for a line whose ``id`` could be read all the same (in JSON-RPC, it may be a fraction)."""

    def __init__(self, message: str, id: Id | float | None = None) -> None:
        super().__init__(message)
        self.id = id

    @property
    def type(self) -> str:
        return "InvalidMessage"


def decode_request(text: bytes, max_depth: int = MAX_DEPTH, max_steps: int = MOST_STEPS) -> Call | More | JsonRpc:
    """What a client's line asks for. Raises ``InvalidMessage`` (with ``.id`` where one could be read)."""
    decoded, message, end, is_checked = "", None, 0, False
    if len(text) <= MAX_DIGITS:
        try:
            decoded = text.decode()
            message, end = scan(decoded, 0)
        except (StopIteration, ValueError, RecursionError):
            decoded = ""  # loads says what is wrong with it
    if type(message) is dict:
        function, args, id = message.get("function"), message.get("args"), message.get("id")
        if (
            # One for each pair: no key is there twice, and there are none further inside.
            decoded.count(":") == (len(message) + len(args) if type(args) is dict else len(message))
            and "\\" not in decoded  # nor a surrogate
            and end == len(decoded)
            and (len(text) <= max_depth or decoded.count("[") + decoded.count("{") <= max_depth)
        ):
            if type(id) is int and type(args) is dict and len(message) == 3 and type(function) is str and function:
                return Call(function, args, id)  # as most are
            is_checked = True
    if not is_checked:
        try:
            message = finish_loading(text, decoded, message, end, max_depth) if decoded else loads(text, max_depth)
        except Unfit as error:
            return _refuse(error)
    request = _decode(message, max_steps)
    if type(request) is Call and request.batch is not None:
        for _ in _check_items(request):
            pass
    return request


def decode_request_in_steps(
    text: bytes, max_depth: int, is_carried: Callable[[str], bool], max_steps: int = MOST_STEPS
) -> Generator[None, None, Call | More | JsonRpc]:
    """The same for a large line, in steps between which others may run.

    Where ``is_carried`` says so of its function, the call's arguments are checked, and may be left out of it.
    """
    try:
        message = yield from loads_in_steps(text, max_depth, is_carried)
    except Unfit as error:
        return _refuse(error)
    request = _decode(message, max_steps)
    yield from _check_items(request)
    return request


def _refuse(error: Unfit) -> JsonRpc:
    if isinstance(error.value, list) or (isinstance(error.value, dict) and "jsonrpc" in error.value):
        return JsonRpc(error.value, str(error))
    raise BadRequest(str(error), find_id(error.value)) from None


def _decode(message: Any, max_steps: int) -> Call | More | JsonRpc:
    if type(message) is dict and _LEAST_MEMBERS.issuperset(message):
        function, args, id = message.get("function"), message.get("args"), message.get("id")
        if type(function) is str and function and type(id) is int and type(args) in _ARGS_TYPES:
            return Call(function, args, id)  # as most are
    if not isinstance(message, dict):
        if isinstance(message, list):
            return JsonRpc(message)
        raise BadRequest(f"a message is an object, not {kind_of(message)}")
    if "jsonrpc" in message:
        return JsonRpc(message)
    id = message.get("id")
    if type(id) is not int and id is not None:
        if not isinstance(id, str):
            raise BadRequest(f"id must be a string or an integer, not {kind_of(id)}")
        if len(id) > MAX_ID:
            raise BadRequest(f"id is longer than {MAX_ID} characters: it would be on every line about the call")
    try:
        if "more" in message:
            return _decode_more(message)
        return _decode_call(message, id, max_steps)
    except BadRequest as error:
        error.id = id
        raise


def find_id(message: Any) -> Id | None:
    """The id of what is no message all the same, for its sender, who waits for an answer to it."""
    id = message.get("id") if isinstance(message, dict) else None
    if isinstance(id, bool) or not isinstance(id, (str, int)) or find_fault(id, "id") is not None:
        return None
    return None if isinstance(id, str) and len(id) > MAX_ID else id


def _decode_call(message: dict[str, Any], id: Id | None, max_steps: int) -> Call:
    is_plain = _PLAIN_MEMBERS.issuperset(message)
    if not (is_plain or _CALL_MEMBERS.issuperset(message)):
        _refuse_members(message)
    function = message.get("function")
    if not isinstance(function, str) or not function:
        raise BadRequest("function must be a non-empty string" if "function" in message else "function is missing")
    args, timeout = message.get("args"), message.get("timeout")
    if is_plain:
        if args is not None:
            _check_args(args, "args")
        return Call(function, args, id, timeout if timeout is None else _decode_timeout(timeout))
    batch = None
    if "batch" in message:
        if "args" in message or "stream" in message:
            raise BadRequest("batch takes the place of args, and does not go with stream")
        items = message["batch"]
        if not isinstance(items, list):
            raise BadRequest(f"batch must be an array of args values, not {kind_of(items)}")
        batch = items
    stream = _decode_stream(message.get("stream", False))
    progress = message.get("progress", False)
    if not isinstance(progress, bool):
        raise BadRequest(f"progress must be true or false, not {kind_of(progress)}")
    if id is None:
        for name, wanted in (("progress", progress), ("batch", batch is not None), ("stream", bool(stream))):
            if wanted:
                raise BadRequest(f"{name} needs an id")
    enqueue = None
    if "enqueue" in message:
        enqueue = _decode_enqueue(message["enqueue"], max_steps)
        if enqueue is not None and (progress or stream):
            raise BadRequest("a durable task has neither progress nor a stream here: greentask.result tells of it")
    return Call(function, _check_args(args, "args"), id, _decode_timeout(timeout), progress, batch, stream, enqueue)


def decode_enqueueing(args: Args | None, id: Id | None, max_steps: int = MOST_STEPS) -> Generator[None, None, Call]:
    """What ``greentask.enqueue`` asks for, in steps: a call as if it had come with a member ``enqueue``.

    Raises ``InvalidMessage``.
    """
    if not isinstance(args, dict):
        raise BadRequest("its arguments have names: function, args or batch, and what enqueue has")
    message = {name: value for name, value in args.items() if name in _ENQUEUED}
    message["enqueue"] = {name: value for name, value in args.items() if name not in _ENQUEUED}
    call = _decode_call(message, 0 if id is None else id, max_steps)  # a notification may have a batch here
    yield from _check_items(call)
    return call


def _check_items(request: Call | More | JsonRpc) -> Generator[None, None, None]:
    """Check what is in a batch, in steps: there may be millions."""
    if not isinstance(request, Call) or request.batch is None:
        return
    for start in range(0, len(request.batch), _FEW):
        if start:
            yield
        some = request.batch[start : start + _FEW]
        if not _are_args(map(type, some)):
            wrong = next(item for item in some if not _are_args([type(item)]))
            raise BadRequest(f"each item of batch {_must_be_args(wrong)}", request.id)


def _refuse_members(message: dict[str, Any]) -> NoReturn:
    name = min(message.keys() - _CALL_MEMBERS)
    raise BadRequest(_NOT_YET.get(name, f"unknown member {show(name)}"))


def _decode_enqueue(value: Any, max_steps: int) -> Enqueue | None:
    try:
        return decode_enqueue(value, max_steps)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _decode_more(message: dict[str, Any]) -> More:
    id, items = message["more"], message.get("items", DEFAULT_STREAM_WINDOW)
    unknown = message.keys() - {"more", "items"}
    if unknown:
        raise BadRequest(f"unknown member {show(min(unknown))}")
    if isinstance(id, bool) or not isinstance(id, (str, int)):
        raise BadRequest(f"more must be a call's id, not {kind_of(id)}")
    if isinstance(items, bool) or not isinstance(items, int) or not 0 < items <= _MAX_STREAM_WINDOW:
        raise BadRequest(f"items must be an integer from 1 to {_MAX_STREAM_WINDOW}")
    return More(id, items)


def _check_args(args: Any, what: str) -> Args | None:
    if args is not None and not isinstance(args, (dict, list)):
        raise BadRequest(f"{what} {_must_be_args(args)}")
    return args


def _must_be_args(value: Any) -> str:
    return f"must be an object (keyword arguments) or an array, not {kind_of(value)}"


def _decode_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise BadRequest(f"timeout must be a number of seconds above 0, not {kind_of(timeout)}")
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = math.inf
    if not 0 < seconds < math.inf:
        raise BadRequest(f"timeout must be a number of seconds above 0, not {show(timeout)}")
    return seconds


def _decode_stream(stream: Any) -> int:
    if stream is True:
        return DEFAULT_STREAM_WINDOW
    if stream is False:
        return 0
    if not isinstance(stream, int) or not 0 < stream <= _MAX_STREAM_WINDOW:
        raise BadRequest(f"stream must be true or an integer from 1 to {_MAX_STREAM_WINDOW}")
    return stream


def encode_call(call: Call) -> bytes:
    """The line of a call. Raises ``InvalidArguments`` where JSON can't carry an argument."""
    message = _message_of(call)
    try:
        return dumps(message) + b"\n"
    except InvalidResult as error:
        raise _cannot_carry(call, message, error) from None


def encode_call_in_steps(call: Call) -> Generator[None, None, bytes]:
    """The same of a large one, in steps between which others may run."""
    message = _message_of(call)
    try:
        pieces = yield from dumps_in_steps(message)
    except InvalidResult as error:
        raise _cannot_carry(call, message, error) from None
    return b"".join([*pieces, b"\n"])


def has_large(args: Args) -> bool:
    """Whether something in a call's arguments is large: quicker than ``is_large`` where nothing is, as mostly."""
    for value in args.values() if type(args) is dict else args:
        kind = type(value)
        if kind is str:
            if len(value) > LARGE:
                return True
        elif (kind is dict or kind is list or kind is tuple) and value and is_large(value):
            return True
    return len(args) > _MANY and is_large(args)


def _message_of(call: Call) -> dict[str, Any]:
    message: dict[str, Any] = {"function": call.function}
    if call.batch is not None:
        message["batch"] = call.batch
    elif call.args is not None:
        message["args"] = call.args
    if call.id is not None:
        message["id"] = call.id
    if call.timeout is not None:
        message["timeout"] = call.timeout
    if call.progress:
        message["progress"] = True
    if call.stream:
        message["stream"] = call.stream
    if call.enqueue is not None:
        message["enqueue"] = call.enqueue.to_json()
    return message


def _cannot_carry(call: Call, message: dict[str, Any], error: InvalidResult) -> InvalidArguments:
    args = call.args if call.batch is None else call.batch
    found = find_fault(args, "args") or find_fault(message, "call")
    return InvalidArguments(f"{call.function}: {found or error}")


def encode_plain_call(function: str, args: Args, id: int, timeout: float | None = None) -> bytes:
    """``encode_call`` for one that has no more than this, as most: in half the time."""
    try:
        line = b'{"function":%b,"args":%b,"id":%d' % (_encode_name(function), dumps(args, DEEPEST - 1), id)
        return line + (b"}\n" if timeout is None else b',"timeout":%b}\n' % dumps(timeout))
    except InvalidResult:
        return encode_call(Call(function, args, id, timeout))  # it says what JSON can't carry


def encode_more(more: More) -> bytes:
    """The line that grants more items of a stream."""
    return dumps({"more": more.id, "items": more.items}) + b"\n"


def kind_of(value: Any) -> str:
    """What JSON calls it, with its article."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")


def show(value: Any) -> str:
    """Its JSON, cut short."""
    text = dumps(value).decode()
    return text if len(text) <= 80 else text[:80] + "…"
