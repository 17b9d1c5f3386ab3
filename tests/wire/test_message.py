"""Messages: what a line to a server means, every rule of a call, and that only the protocol's errors come of a line."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentask.errors import InvalidArguments, InvalidMessage, from_wire
from greentask.wire.json import MAX_DEPTH, dumps
from greentask.wire.message import (
    DEFAULT_STREAM_WINDOW,
    BadRequest,
    Call,
    JsonRpc,
    More,
    decode_request,
    decode_request_in_steps,
    encode_call,
    encode_more,
    encode_plain_call,
)
from greentask.wire.reply import Reply, decode_reply, error_member, line
from greentask.wire.text import LineSplitter
from support.values import alike, damaged, lines, nested, text, values

pytestmark = pytest.mark.once

MORE_EXAMPLES = settings(max_examples=5 * settings().max_examples)

# ---- Messages, for Hypothesis

ids = text | st.integers()
windows = st.integers(1, 1_000_000)
args = st.dictionaries(text, values, max_size=3) | st.lists(values, max_size=3)
some_args = st.none() | args
functions = text.filter(bool)
timeouts = st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False)

calls = st.one_of(
    st.builds(Call, functions, some_args, st.none() | ids, timeouts),
    st.builds(Call, functions, some_args, ids, timeouts, st.booleans(), st.none(), st.just(0) | windows),
    st.builds(Call, functions, st.none(), ids, timeouts, st.booleans(), st.lists(some_args, max_size=4)),
)
mores = st.builds(More, ids, windows)
requests_as_bytes = calls.map(encode_call) | mores.map(encode_more)

# ---- There and back


@given(calls)
def test_a_call_comes_back_as_it_was(call: Call) -> None:
    assert alike(decode_request(encode_call(call)), call)


@given(functions, args, st.integers(), timeouts)
def test_a_plain_call_is_written_as_any_other(
    function: str, args: dict[str, Any] | list[Any], id: int, timeout: float | None
) -> None:
    line = encode_plain_call(function, args, id, timeout)
    assert line == encode_call(Call(function, args, id, timeout))


@given(mores)
def test_a_grant_comes_back_as_it_was(more: More) -> None:
    assert alike(decode_request(encode_more(more)), more)


@given(st.lists(requests_as_bytes, max_size=5))
def test_a_message_is_one_line(messages: list[bytes]) -> None:
    assert LineSplitter().feed(b"".join(messages)) == [message.removesuffix(b"\n") for message in messages]


# ---- Whatever comes in


def check_request(request: Call | More | JsonRpc) -> None:
    """That it is what the types say, since the layers above rely on them."""
    if isinstance(request, JsonRpc):
        assert isinstance(request.message, list) or "jsonrpc" in request.message
        return
    assert request.id is None or type(request.id) in (str, int)
    if isinstance(request, More):
        assert request.id is not None
        assert 0 < request.items <= 1_000_000
        return
    assert isinstance(request.function, str)
    assert request.function
    assert request.args is None or type(request.args) in (dict, list)
    assert request.timeout is None or (type(request.timeout) is float and 0 < request.timeout < float("inf"))
    assert type(request.progress) is bool
    assert type(request.stream) is int
    assert 0 <= request.stream <= 1_000_000
    assert request.batch is None or (request.args is None and not request.stream)
    assert all(item is None or type(item) in (dict, list) for item in request.batch or ())
    if request.progress or request.stream or request.batch is not None:
        assert request.id is not None


@MORE_EXAMPLES
@given(lines | damaged(requests_as_bytes))
def test_a_line_is_a_request_or_an_invalid_message(data: bytes) -> None:
    try:
        request = decode_request(data)
    except InvalidMessage as error:
        check_error(error, answers_to=getattr(error, "id", None))
    else:
        check_request(request)


def check_error(error: InvalidMessage, answers_to: str | int | None) -> None:
    assert error.type == "InvalidMessage"
    assert error.started is False
    assert len(str(error)) < 400
    assert getattr(error, "id", None) == answers_to
    assert decode_reply(line(answers_to, error_member(error))).id == answers_to


def decode_slowly(data: bytes, max_depth: int = MAX_DEPTH) -> Call | More | JsonRpc:
    """As large lines are read, which never takes the short way of small ones."""
    steps = decode_request_in_steps(data, max_depth, lambda function: False)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            request: Call | More | JsonRpc = end.value
            return request


def told(decode: Callable[..., Call | More | JsonRpc], data: bytes, max_depth: int) -> Any:
    try:
        return decode(data, max_depth)
    except InvalidMessage as error:
        return "refused", getattr(error, "id", None)


plain_calls = st.fixed_dictionaries(
    {
        "function": st.sampled_from(["f", "", "a:b"]),
        "args": st.dictionaries(st.sampled_from(["a", "b:", "id", "\\"]), values, max_size=3)
        | st.lists(values, max_size=2)
        | st.none(),
    },
    optional={
        "id": ids | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
        "timeout": timeouts | st.integers(-1, 2),
    },
).map(dumps)


# A call as another program may write it: with blanks, names that are escaped, and some that are there twice.
written_names = st.sampled_from(
    ["function", "args", "id", "timeout", "batch", "jsonrpc", "a", "a:", "\\u0061", "f\\u0075nction", "\\u0069d"]
).map(lambda name: f'"{name}"')


def written_objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(written_names, st.sampled_from([":", " :", ": "]), inner).map("".join)
    return st.lists(pair, max_size=4).flatmap(st.permutations).map(lambda pairs: f"{{{','.join(pairs)}}}")


written_values = st.recursive(
    st.sampled_from(
        ['"f"', '""', '":"', '"\\ud800"', '"\\u003a"', "1", "-0", "1.5", "1e400", "18446744073709551616", "NaN", "null"]
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]") | written_objects(inner),
    max_leaves=6,
)
written_args = st.just('{"a":1}') | written_objects(written_values) | written_values


def write_call(args: str, more: list[str], end: str, order: Callable[[list[str]], list[str]]) -> bytes:
    members = order(['"function":"f"', f'"args":{args}', '"id":1', *more])
    return f"{{{','.join(members)}}}{end}".encode()


written_calls = st.builds(
    write_call,
    written_args,
    st.just([]) | st.lists(st.tuples(written_names, st.just(":"), written_values).map("".join), min_size=1, max_size=2),
    st.sampled_from(["", "", "", "", " ", "}", "\0"]),
    st.sampled_from([sorted, list, lambda members: members[::-1]]),
)


@MORE_EXAMPLES
@given(written_calls, st.sampled_from([2, 3, MAX_DEPTH, MAX_DEPTH]))
def test_a_call_that_others_have_written_is_read_as_any_other(data: bytes, max_depth: int) -> None:
    assert alike(told(decode_request, data, max_depth), told(decode_slowly, data, max_depth))


@MORE_EXAMPLES
@given(plain_calls | damaged(plain_calls), st.sampled_from([1, 2, 3, MAX_DEPTH]))
def test_a_plain_call_is_read_as_any_other(data: bytes, max_depth: int) -> None:
    assert alike(told(decode_request, data, max_depth), told(decode_slowly, data, max_depth))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"function":"f","args":{"a":1,"a":2},"id":1}', "the key 'a' twice"),
        (b'{"function":"f","args":{},"id":1,"id":1}', "the key 'id' twice"),
        (b'{"function":"f","args":{"a":"\\ud800"},"id":1}', "surrogate"),
        (b'{"function":"f","args":{"a":NaN},"id":1}', "NaN"),
        (b'{"function":"f","args":{"a":1e999},"id":1}', "beyond a float's range"),
        (b'{"function":"f","args":{},"id":1} x', "Extra data"),
        (b'{"function":"f","args":{},"id":1}\xff', "not UTF-8"),
        (b'{"function":"f","args":{"a":%b},"id":1}' % (b"[" * 300 + b"]" * 300), "nested deeper than 200"),
        (b'{"function":"f","args":{"a":[[]]},"id":1}', "nested deeper than 3"),
        (b'{"function":"f","args":{},"idd":1}', "unknown member"),
    ],
)
def test_what_only_looks_like_a_plain_call_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        decode_request(data, 3 if says.endswith("3") else MAX_DEPTH)


@MORE_EXAMPLES
@given(
    st.dictionaries(
        st.sampled_from(
            ["function", "args", "id", "timeout", "progress", "batch", "stream", "enqueue", "more", "items", "jsonrpc"]
        ),
        values | st.booleans() | st.integers(-1, 3) | st.just("f"),
    )
)
def test_members_of_any_type_make_a_request_or_an_invalid_message(message: dict[str, Any]) -> None:
    try:
        request = decode_request(dumps(message))
    except InvalidMessage as error:
        id = message.get("id")
        check_error(error, answers_to=id if type(id) in (str, int) else None)
    else:
        check_request(request)


# ---- A call, rule by rule


def decode(**members: Any) -> Call | More:
    return decode_request(json.dumps(members).encode())


def refusal_of(data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        decode_request(data)
    return caught.value


def test_the_least_that_is_a_call() -> None:
    assert decode(function="f") == Call("f", None, None, None, False, None, 0)


def test_all_that_may_be_in_a_call() -> None:
    assert decode(function="f", args={"a": 1}, id=7, timeout=2, progress=True, stream=5, enqueue=False) == Call(
        "f", {"a": 1}, 7, 2.0, True, None, 5
    )


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "function is missing"),
        ({"id": 1}, "function is missing"),
        ({"function": None}, "function must be a non-empty string"),
        ({"function": ""}, "function must be a non-empty string"),
        ({"function": 1}, "function must be a non-empty string"),
        ({"function": ["f"]}, "function must be a non-empty string"),
        ({"function": "f", "args": "x"}, "args must be an object (keyword arguments) or an array, not a string"),
        ({"function": "f", "args": 1}, "args must be an object (keyword arguments) or an array, not a number"),
        ({"function": "f", "args": 1.5}, "args must be an object (keyword arguments) or an array, not a number"),
        ({"function": "f", "args": True}, "args must be an object (keyword arguments) or an array, not true or false"),
        ({"function": "f", "id": 1.0}, "id must be a string or an integer, not a number"),
        ({"function": "f", "id": True}, "id must be a string or an integer, not true or false"),
        ({"function": "f", "id": []}, "id must be a string or an integer, not an array"),
        ({"function": "f", "id": {}}, "id must be a string or an integer, not an object"),
        ({"function": "f", "timeout": 0}, "timeout must be a number of seconds above 0, not 0"),
        ({"function": "f", "timeout": -1.5}, "timeout must be a number of seconds above 0, not -1.5"),
        ({"function": "f", "timeout": 1e-400}, "timeout must be a number of seconds above 0, not 0.0"),
        ({"function": "f", "timeout": "5"}, "timeout must be a number of seconds above 0, not a string"),
        ({"function": "f", "timeout": True}, "timeout must be a number of seconds above 0, not true or false"),
        ({"function": "f", "timeout": 10**400}, "timeout must be a number of seconds above 0, not 1000000000"),
        ({"function": "f", "id": 1, "progress": 1}, "progress must be true or false, not a number"),
        ({"function": "f", "id": 1, "progress": None}, "progress must be true or false, not null"),
        ({"function": "f", "id": 1, "progress": "yes"}, "progress must be true or false, not a string"),
        ({"function": "f", "progress": True}, "progress needs an id"),
        ({"function": "f", "id": None, "progress": True}, "progress needs an id"),
        ({"function": "f", "batch": []}, "batch needs an id"),
        ({"function": "f", "id": 1, "batch": {}}, "batch must be an array of args values, not an object"),
        ({"function": "f", "id": 1, "batch": True}, "batch must be an array of args values, not true or false"),
        ({"function": "f", "id": 1, "batch": None}, "batch must be an array of args values, not null"),
        ({"function": "f", "id": 1, "batch": [[], 1]}, "each item of batch must be an object"),
        ({"function": "f", "id": 1, "batch": [], "args": []}, "batch takes the place of args"),
        (
            {"function": "f", "id": 1, "batch": [], "stream": True},
            "batch takes the place of args, and does not go with",
        ),
        ({"function": "f", "stream": True}, "stream needs an id"),
        ({"function": "f", "stream": 3}, "stream needs an id"),
        ({"function": "f", "id": 1, "stream": 0}, "stream must be true or an integer from 1 to 1000000"),
        ({"function": "f", "id": 1, "stream": -1}, "stream must be true or an integer from 1 to 1000000"),
        ({"function": "f", "id": 1, "stream": 1_000_001}, "stream must be true or an integer from 1 to 1000000"),
        ({"function": "f", "id": 1, "stream": 2.0}, "stream must be true or an integer from 1 to 1000000"),
        ({"function": "f", "id": 1, "stream": "all"}, "stream must be true or an integer from 1 to 1000000"),
        ({"function": "f", "id": 1, "stream": None}, "stream must be true or an integer from 1 to 1000000"),
        ({"function": "f", "timout": 5}, 'unknown member "timout"'),
        ({"function": "f", "b": 1, "a": 1}, 'unknown member "a"'),
        ({"function": "f", "": 1}, 'unknown member ""'),
        ({"function": "f", 'a"\n\xe9': 1}, 'unknown member "a\\"\\n\xe9"'),
        ({"function": "f", "x" * 500: 1}, 'unknown member "xxxxxxx'),
        ({"function": "f", "items": 1}, 'unknown member "items"'),
        ({"result": 1, "id": 1}, 'unknown member "result"'),
        ({"function": "f", "enqueue": None}, "enqueue is true or an object"),
        ({"function": "f", "enqueue": 0}, "enqueue is true or an object"),
        ({"function": "f", "enqueue": {"when": 5}}, "enqueue has no 'when'; it has after, at, delay"),
        ({"function": "f", "enqueue": {"delay": "5"}}, "delay is seconds from 0 to a hundred years, not '5'"),
        ({"function": "f", "enqueue": {"ttl": 0}}, "ttl is seconds above 0, not 0"),
        ({"function": "f", "enqueue": {"priority": 1.5}}, "priority is a whole number from -10 to 10, not 1.5"),
        ({"function": "f", "enqueue": {"retries": -1}}, "retries is a whole number from 0 to 10000, not -1"),
        ({"function": "f", "enqueue": {"key": 5}}, "key is a string of 1 to 500 characters, not 5"),
        ({"function": "f", "enqueue": {"at": 1, "delay": 1}}, "delay and at don't go together"),
        ({"function": "f", "enqueue": True, "id": 1, "progress": True}, "a durable task has neither progress nor"),
        ({"auth": {"nonce": "00", "proof": "00"}}, "a proof belongs into the first line"),
    ],
    ids=lambda item: json.dumps(item)[:50] if isinstance(item, dict) else "",
)
def test_what_is_no_call_is_refused_with_its_reason(members: dict[str, Any], says: str) -> None:
    error = refusal_of(json.dumps(members).encode())
    assert str(error).startswith(says)
    assert len(str(error)) < 200
    id = members.get("id")
    assert error.id == (id if type(id) in (str, int) else None)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'"f"', "a string"),
        (b"1", "a number"),
        (b"-2.5", "a number"),
        (b"null", "null"),
        (b"true", "true or false"),
    ],
)
def test_a_message_is_an_object(data: bytes, kind: str) -> None:
    error = refusal_of(data)
    assert str(error) == f"a message is an object, not {kind}"
    assert error.id is None


def test_what_is_not_json_has_no_id_to_answer_to() -> None:
    with pytest.raises(InvalidMessage, match="not JSON") as caught:
        decode_request(b'{"id": 7, "function": f}')
    assert not isinstance(caught.value, BadRequest)


@pytest.mark.parametrize("id", ["", "7", "\xe9\U0001f600", 0, -1, 1 << 80])
def test_an_id_is_kept_exactly(id: str | int) -> None:
    request = decode(function="f", id=id)
    assert alike(request.id, id)
    assert refusal_of(json.dumps({"function": "f", "id": id, "timout": 1}).encode()).id == id


@pytest.mark.parametrize("given", [None, {}, [], {"from": 1}, [None], {"a": {"b": [1.5]}}])
def test_args_are_an_object_an_array_or_none(given: Any) -> None:
    request = decode(function="f", args=given)
    assert isinstance(request, Call)
    assert alike(request.args, given)


@pytest.mark.parametrize(("given", "seconds"), [(5, 5.0), (0.25, 0.25), (5e-324, 5e-324), (1e308, 1e308), (None, None)])
def test_a_timeout_is_in_seconds(given: Any, seconds: float | None) -> None:
    request = decode(function="f", timeout=given)
    assert isinstance(request, Call)
    assert alike(request.timeout, seconds)


@pytest.mark.parametrize(
    ("given", "window"), [(True, DEFAULT_STREAM_WINDOW), (False, 0), (1, 1), (64, 64), (1_000_000, 1_000_000)]
)
def test_a_stream_has_a_window(given: Any, window: int) -> None:
    request = decode(function="f", id=1, stream=given)
    assert isinstance(request, Call)
    assert alike(request.stream, window)


def test_what_is_not_wanted_needs_no_id() -> None:
    assert decode(function="f", progress=False, stream=False) == Call("f")


def test_the_items_of_a_large_batch_are_looked_at_in_steps() -> None:
    """There may be millions in a line, and everybody else waits for the end of a step."""

    def steps_of(name: str) -> int:
        text = b'{"id": 1, "function": "f", "%b": [%b]}' % (name.encode(), b",".join([b"[]"] * 100_000))
        return sum(1 for _ in decode_request_in_steps(text, 200, lambda _: False))

    assert steps_of("batch") >= steps_of("args") + 9


def test_what_is_wrong_with_an_item_far_behind_is_found() -> None:
    text = b'{"id": 1, "function": "f", "batch": [%b, 7]}' % b",".join([b"[]"] * 30_000)
    said = r"each item of batch must be an object \(keyword arguments\) or an array, not a number"
    with pytest.raises(InvalidMessage, match=said) as refused:
        list(decode_request_in_steps(text, 200, lambda _: False))
    assert getattr(refused.value, "id", None) == 1
    with pytest.raises(InvalidMessage, match=said):
        decode_request(text)


def test_a_batch_may_be_empty_and_its_items_anything_that_args_may_be() -> None:
    assert decode(function="f", id=1, batch=[]) == Call("f", id=1, batch=[])
    assert decode(function="f", id=1, batch=[None, {}, [1]]) == Call("f", id=1, batch=[None, {}, [1]])


@pytest.mark.parametrize(
    ("members", "more"),
    [
        ({"more": 7}, More(7, DEFAULT_STREAM_WINDOW)),
        ({"more": "a", "items": 1}, More("a", 1)),
        ({"more": 0, "items": 1_000_000}, More(0, 1_000_000)),
    ],
)
def test_a_grant_names_the_stream_and_how_many(members: dict[str, Any], more: More) -> None:
    assert decode(**members) == more


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"more": None}, "more must be a call's id, not null"),
        ({"more": True}, "more must be a call's id, not true or false"),
        ({"more": 1.5}, "more must be a call's id, not a number"),
        ({"more": [1]}, "more must be a call's id, not an array"),
        ({"more": 1, "items": 0}, "items must be an integer from 1 to 1000000"),
        ({"more": 1, "items": 1_000_001}, "items must be an integer from 1 to 1000000"),
        ({"more": 1, "items": True}, "items must be an integer from 1 to 1000000"),
        ({"more": 1, "items": "5"}, "items must be an integer from 1 to 1000000"),
        ({"more": 1, "items": None}, "items must be an integer from 1 to 1000000"),
        ({"more": 1, "id": 2}, 'unknown member "id"'),
        ({"more": 1, "function": "f"}, 'unknown member "function"'),
    ],
)
def test_what_is_no_grant_is_refused_with_its_reason(members: dict[str, Any], says: str) -> None:
    assert str(refusal_of(json.dumps(members).encode())) == says


def test_a_bad_request_is_an_invalid_message_on_the_wire() -> None:
    error = BadRequest("no", 7)
    reply = decode_reply(line(error.id, error_member(error)))
    assert reply == Reply(7, "error", {"type": "InvalidMessage", "message": "no"})
    back = from_wire(reply.value)
    assert type(back) is InvalidMessage


# ---- Sending


def test_only_what_is_said_goes_into_the_line() -> None:
    assert encode_more(More(7, 32)) == b'{"more":7,"items":32}\n'
    assert encode_call(Call("f")) == b'{"function":"f"}\n'
    assert encode_call(Call("f", [], 0)) == b'{"function":"f","args":[],"id":0}\n'


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (Call("f", {"a": [1, {2}]}), "f: args['a'][1] is a set, which JSON can't carry: {2}"),
        (Call("f", [b"x"]), "f: args[0] is a bytes, which JSON can't carry: b'x'"),
        (Call("f", {"a": float("nan")}), "f: args['a'] is nan, which JSON can't carry"),
        (Call("f", id=1, batch=[[1], {"a": "\ud800"}]), "f: args[1]['a'] is '\\ud800', which JSON can't carry"),
        (Call("f", timeout=float("inf")), "f: call['timeout'] is inf, which JSON can't carry"),
        (Call("f", id="\ud800"), "f: call['id'] is '\\ud800', which JSON can't carry"),
    ],
)
def test_arguments_that_json_cannot_carry_are_named(call: Call, says: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        encode_call(call)
    assert str(caught.value) == says
    if call.args is not None:
        with pytest.raises(InvalidArguments) as caught:
            encode_plain_call(call.function, call.args, 1)
        assert str(caught.value) == says


def test_arguments_that_would_make_the_line_too_deep_are_refused_here() -> None:
    assert decode_request(encode_call(Call("f", nested(499))), 500) == Call("f", nested(499))
    with pytest.raises(InvalidArguments, match=r"^f: call\['args'\]\[0\].* is nested deeper than 500$"):
        encode_call(Call("f", nested(500)))
    with pytest.raises(InvalidArguments, match=r"^f: args\[0\].* is nested deeper than 500$"):
        encode_call(Call("f", nested(501)))
    assert decode_request(encode_plain_call("f", nested(499), 1), 500) == Call("f", nested(499), 1)
    with pytest.raises(InvalidArguments, match=r"^f: call\['args'\]\[0\].* is nested deeper than 500$"):
        encode_plain_call("f", nested(500), 1)


@pytest.mark.parametrize("id", [7, "a", "x" * 1_000])
def test_a_line_that_is_too_deep_is_refused_with_its_id(id: Any) -> None:
    assert decode_request(encode_call(Call("f", nested(199), id))) == Call("f", nested(199), id)
    with pytest.raises(InvalidMessage, match=r"^nested deeper than 200$") as caught:
        decode_request(encode_call(Call("f", nested(200), id)))
    assert caught.value.id == id  # type: ignore[attr-defined]
    assert caught.value.type == "InvalidMessage"


@pytest.mark.parametrize("id", [b"true", b"[]", b"1.5", b'"\\ud800"', b'"' + b"x" * 1_001 + b'"', b"null"])
def test_what_can_be_no_id_is_not_repeated(id: bytes) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode_request(b'{"function":"f","id":%b,"args":["\\udfff"]}' % id)
    assert caught.value.id is None  # type: ignore[attr-defined]


def test_a_lone_surrogate_is_refused_with_the_lines_id() -> None:
    with pytest.raises(InvalidMessage, match="lone surrogate") as caught:
        decode_request(b'{"function":"f","id":7,"args":["\\udfff"]}')
    assert caught.value.id == 7  # type: ignore[attr-defined]
