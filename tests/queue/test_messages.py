"""What a call asks to be enqueued, made into messages in steps."""

from typing import Any

import pytest

from greentask import Tasks
from greentask.queue.messages import chain_of
from greentask.wire.chain import MOST_STEPS, check_chain


def one() -> dict[str, Any]:
    return {"function": "add", "args": [1]}


@pytest.mark.parametrize("shape", ["a chain", "a fan", "fans in a row"])
def test_however_long_a_chain_is_others_have_their_turn(shape: str) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    tasks = Tasks()
    tasks.add(add)
    if shape == "a chain":
        given: list[Any] = [one() for _ in range(MOST_STEPS)]
    elif shape == "a fan":
        given = [{"group": [one() for _ in range(MOST_STEPS - 1)]}]
    else:
        given = [{"group": [[one()]]} for _ in range(MOST_STEPS // 2)]
    chain = check_chain(given, "then", lambda options: None)
    assert sum(1 for _ in chain_of(tasks, chain)) >= 5000 // 64
