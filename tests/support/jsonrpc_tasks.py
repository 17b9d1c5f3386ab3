"""The methods that the examples of the JSON-RPC specification call; `foobar` and `foo.get` are not there."""

from greentask import task


@task
def subtract(minuend: int, subtrahend: int) -> int:
    return minuend - subtrahend


@task
def update(*values: int) -> None:
    """Nobody hears of it."""


@task(name="sum", process=True)
def total(*numbers: int) -> int:
    return sum(numbers)


@task
def notify_hello(number: int) -> int:
    return number


@task(process=True)
def notify_sum(*numbers: int) -> int:
    return sum(numbers)


@task
def get_data() -> list[object]:
    return ["hello", 5]
