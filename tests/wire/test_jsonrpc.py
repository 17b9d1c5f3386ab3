"""JSON-RPC's requests and responses, without a connection."""

import json
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.errors import PROTOCOL_TYPES, CallError, InvalidMessage, Overloaded, TaskError, describe, refusal
from greentask.wire.json import DEEPEST, dumps
from greentask.wire.jsonrpc import (
    PARSE_ERROR,
    Request,
    batch_response,
    decode,
    error_response,
    refused,
    result_response,
)
from greentask.wire.message import Call, JsonRpc, decode_request, decode_request_in_steps
from support.values import alike, values


def request(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "f", **members}


def at_once(steps: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# ---- Which lines are JSON-RPC


@pytest.mark.parametrize(
    ("text", "is_certain"),
    [
        (b'{"jsonrpc":"2.0","method":"f"}', True),
        (b'{"jsonrpc":null,"function":"f","id":[],"more":1}', True),
        (b'[{"jsonrpc":"2.0"}]', True),
        (b"[]", False),
        (b"[1]", False),
        (b'[{"function":"f"},{"jsonrpc":"2.0"}]', False),
    ],
)
def test_an_array_and_what_has_the_member_jsonrpc_is(text: bytes, is_certain: bool) -> None:
    line = decode_request(text)
    assert line == JsonRpc(json.loads(text))
    assert line.is_certain is is_certain
    assert at_once(decode_request_in_steps(text, 200, lambda function: True)) == line


@pytest.mark.parametrize("text", [b'{"jsonrpc":"2.0","params":[[]]}', b"[[[]]]", b'["\\ud800"]'])
def test_what_is_unfit_is_as_well_and_says_why(text: bytes) -> None:
    line = decode_request(text, 2)
    assert isinstance(line, JsonRpc)
    assert line.unfit is not None
    assert "nested deeper than 2" in line.unfit or "lone surrogate" in line.unfit


def test_what_has_the_word_elsewhere_is_not() -> None:
    assert decode_request(b'{"function":"jsonrpc","args":{"jsonrpc":"2.0"}}') == Call("jsonrpc", {"jsonrpc": "2.0"})
    with pytest.raises(InvalidMessage, match="an object, not a string"):
        decode_request(b'"jsonrpc"')


# ---- Requests


@pytest.mark.parametrize("id", [1, -1, 0, 10**30, "1", "", "x" * 1_000, 1.5, -0.0, None])
@pytest.mark.parametrize("params", [[], {}, [1, {"a": 2}], {"from": "me"}])
def test_a_request_is_a_call(id: Any, params: Any) -> None:
    assert decode(request(params=params, id=id)) == Request(Call("f", params, id), id, False)


@pytest.mark.parametrize("members", [{}, {"params": None}])
def test_one_without_an_id_is_a_notification(members: dict[str, Any]) -> None:
    assert decode(request(**members)) == Request(Call("f", None, None), None, True)


@pytest.mark.parametrize(
    ("message", "says", "id"),
    [
        (1, "a request is an object, not a number", None),
        ([], "a request is an object, not an array", None),
        (None, "a request is an object, not null", None),
        ({"foo": "boo"}, 'jsonrpc must be "2.0"', None),
        ({"jsonrpc": "1.0", "method": "f", "id": 7}, 'jsonrpc must be "2.0"', 7),
        ({"jsonrpc": 2.0, "method": "f", "id": 7}, 'jsonrpc must be "2.0"', 7),
        ({"jsonrpc": "2.0", "id": 7.5}, "method is missing", 7.5),
        (request(method=1, params="bar"), "method must be a non-empty string", None),
        (request(method="", id="a"), "method must be a non-empty string", "a"),
        (request(params="bar", id=7), "params must be an object or an array, not a string", 7),
        (request(params=False, id=7), "params must be an object or an array, not true or false", 7),
        (request(id=True), "id must be a string, a number or null, not true or false", None),
        (request(id=[1]), "id must be a string, a number or null, not an array", None),
        (request(id={}), "id must be a string, a number or null, not an object", None),
        (request(id="x" * 1_001), "id is longer than 1000 characters", None),
        (request(id=7, timeout=5), 'unknown member "timeout"', 7),
        (request(id=7, args=[1]), 'unknown member "args"', 7),
    ],
)
def test_what_is_no_request_is_refused_with_its_reason(message: Any, says: str, id: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode(message)
    assert str(caught.value) == says
    assert caught.value.id == id  # type: ignore[attr-defined]


def test_what_is_unfit_is_refused_by_its_id() -> None:
    with pytest.raises(InvalidMessage, match=r"^nested too deeply$") as caught:
        decode(request(id=7), "nested too deeply")
    assert caught.value.id == 7  # type: ignore[attr-defined]


@given(values | st.dictionaries(st.sampled_from(["jsonrpc", "method", "params", "id", "x"]), values | st.just("2.0")))
def test_anything_is_a_request_or_refused(message: Any) -> None:
    try:
        found = decode(message)
    except InvalidMessage as error:
        told = json.loads(refused(error.id, error))  # type: ignore[attr-defined]
        assert told["error"]["code"] == -32600
        return
    assert message["jsonrpc"] == "2.0"
    assert message["method"] == found.call.function
    assert found.is_notification is ("id" not in message)


# ---- Responses


@given(st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])) | st.floats(-1e9, 1e9), values)
def test_a_result_goes_into_its_response(id: Any, value: Any) -> None:
    response = json.loads(result_response(id, dumps(value)))
    assert alike(response, {"jsonrpc": "2.0", "result": value, "id": id})


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("InvalidMessage", -32600, "Invalid Request"),
        ("UnknownTask", -32601, "Method not found"),
        ("InvalidArguments", -32602, "Invalid params"),
        ("InvalidResult", -32603, "Internal error"),
        ("Overloaded", -32001, "why"),
        ("Draining", -32002, "why"),
        ("Unauthenticated", -32003, "why"),
        ("DeadlineExceeded", -32004, "why"),
        ("Cancelled", -32005, "why"),
        ("WorkerLost", -32006, "why"),
        ("LineTooLong", -32007, "why"),
    ],
)
def test_each_of_the_protocols_errors_has_its_code(error: str, code: int, message: str) -> None:
    refusing = PROTOCOL_TYPES[error]("why")
    told = json.loads(refused("a", refusing))
    described = {"code": code, "message": message, "data": refusal(refusing)}
    assert told == {"jsonrpc": "2.0", "error": described, "id": "a"}


def test_no_error_of_the_protocol_is_without_a_code() -> None:
    codes = [json.loads(refused(1, cls("x")))["error"]["code"] for cls in PROTOCOL_TYPES.values()]
    assert len(set(codes)) == len(codes)
    assert -32000 not in codes


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no stock"), "no stock"),
        (ValueError(), "ValueError"),
        (TaskError("far away", type="Odd"), "far away"),
        (Overloaded("of another server"), "of another server"),
    ],
)
def test_what_a_task_raised_has_one_code_and_is_told_in_the_data(error: Exception, message: str) -> None:
    described = describe(error)
    told = json.loads(error_response(None, dumps(described)))
    assert told == {"jsonrpc": "2.0", "error": {"code": -32000, "message": message, "data": described}, "id": None}


def test_a_text_that_is_none_has_its_own_code() -> None:
    told = json.loads(refused(None, InvalidMessage("not JSON"), PARSE_ERROR))
    assert (told["error"]["code"], told["error"]["message"], told["id"]) == (-32700, "Parse error", None)


def test_a_batch_is_one_array() -> None:
    assert batch_response([b"1"]) == b"[1]"
    assert json.loads(batch_response([result_response(1, b"2"), refused(None, CallError("x"))]))[0]["id"] == 1


def test_a_result_as_deep_as_may_be_returned_goes_into_a_response() -> None:
    deep = b"[" * DEEPEST + b"]" * DEEPEST
    assert result_response(1, deep) == b'{"jsonrpc":"2.0","result":' + deep + b',"id":1}'
