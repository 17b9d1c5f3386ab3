"""How much more a server may be handed."""

from greentask.queue.interface import Delivery, Want
from greentask.queue.slots import Slots

TINY, LARGE = frozenset({"add", "mul"}), frozenset({"render"})


def delivery(task: str, size: int = 10) -> Delivery:
    return Delivery("1", task, b"x" * size, 0, 0, None, None)


def test_tasks_that_share_slots_fill_each_others() -> None:
    slots = Slots(1000)
    assert not slots.may_take
    slots.hear([Want(TINY, 3), Want(LARGE, 1)])
    slots.change([delivery("add"), delivery("mul"), delivery("render")], 0, 0)
    assert slots.wants() == [Want(TINY, 1)]
    slots.hear([Want(TINY, 2), Want(LARGE, -1)])
    assert slots.wants() == [Want(TINY, 3)]
    slots.hear([Want(LARGE, 2)])
    assert slots.wants() == [Want(TINY, 3), Want(LARGE, 1)]
    slots.hear(None)
    assert not slots.may_take


def test_what_is_here_has_so_many_bytes_or_is_one_task() -> None:
    slots = Slots(100)
    slots.hear([Want(TINY, 10)])
    slots.change([delivery("add", 60)], 0, 0)
    assert (slots.may_take, slots.room(0), slots.room(60)) == (True, 40, 100)
    slots.change([delivery("mul", 500)], 0, 0)
    assert (slots.may_take, slots.held) == (False, 2)
    assert slots.room(500) == 40
    slots.change([], 2, 560)
    assert (slots.may_take, slots.room(0), slots.held) == (True, 100, 0)
