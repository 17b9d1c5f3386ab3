"""What follows a durable task, on the wire."""

from typing import Any

import pytest

from greentask.wire.enqueue import Enqueue, decode_enqueue

STEP = {"function": "add"}


def test_one_step_is_a_chain() -> None:
    decoded = decode_enqueue({"then": {"function": "add", "args": [1], "takes": False, "enqueue": {"delay": 2}}})
    assert decoded is not None
    assert decoded.then == [{"function": "add", "args": [1], "takes": False, "enqueue": {"delay": 2}}]
    assert decode_enqueue(decoded.to_json()) == decoded


def test_what_is_not_said_is_not_written() -> None:
    assert Enqueue().to_json() is True
    assert Enqueue(after="x", takes=False, retries=0).to_json() == {"after": "x", "takes": False, "retries": 0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"then": []}, "a step, or an array of at least one"),
        ({"then": "add"}, "a step, or an array"),
        ({"then": ["add"]}, "objects, and not 'add'"),
        ({"then": {"args": []}}, "a function, a string"),
        ({"then": {**STEP, "args": 5}}, "an array or an object"),
        ({"then": {**STEP, "errors": 1}}, "errors of a step in then is true or false"),
        ({"then": {**STEP, "frob": 1}}, "has no 'frob'"),
        ({"then": {**STEP, "enqueue": {"key": "k"}}}, "delay, priority, retries, ttl"),
        ({"then": {**STEP, "enqueue": {"priority": 11}}}, "priority is a whole number"),
        ({"then": {"group": []}}, "at least one chain"),
        ({"then": {"group": [[STEP]], "args": []}}, "and nothing else"),
        ({"then": {"group": [[STEP, {"group": [5]}]]}}, "a step, or an array"),
        ({"then": [STEP] * 10_001}, "more than 10,000 steps"),
        ({"then": {"group": [[STEP] * 6000, [STEP] * 6000]}}, "more than 10,000 steps"),
        ({"after": "x", "key": "k"}, "don't go together with after"),
        ({"after": 5}, "after the id"),
        ({"group": 5}, "group is true or the id"),
        ({"group": "x", "then": STEP}, "is said where it begins"),
        ({"open": True}, "open goes with group"),
        ({"takes": False}, "takes and errors are for"),
        ({"errors": True}, "takes and errors are for"),
        ({"open": "yes"}, "open is true or false"),
    ],
)
def test_what_is_no_chain_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode_enqueue(given)


def test_how_many_steps_there_may_be_is_the_servers_to_say() -> None:
    three = {"then": [STEP, {"group": [[STEP]]}]}
    assert decode_enqueue(three, 3) is not None
    with pytest.raises(ValueError, match=r"more than 2 steps \(max_steps\)"):
        decode_enqueue(three, 2)
    assert decode_enqueue({"then": STEP}, 1) is not None
    many = {"then": [STEP] * 10_001}
    assert decode_enqueue(many, 20_000) is not None
