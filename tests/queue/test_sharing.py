"""Who goes first."""

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from greentask.queue.sharing import FAIR, Group, Sharing

groups = st.lists(
    st.builds(Group, st.integers(1, 5), st.integers(-10, 10), st.integers(0, 1000)),
    min_size=1,
    unique_by=lambda group: (group.lane, group.rank),
)


@given(groups, st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_all_slots_are_given(groups: list[Group], asked: list[int]) -> None:
    sharing = Sharing()
    for slots in asked:
        shares = sharing.divide(groups, slots)
        assert sum(count for _, count in shares) == slots
        assert all(count > 0 for _, count in shares)


def test_the_highest_priority_goes_first() -> None:
    urgent, normal = Group(1, -5, 10), Group(1, 0, 20)
    assert Sharing().divide([normal, urgent], 7) == [(urgent, 7)]


def test_names_of_one_priority_take_turns() -> None:
    newsletter, report = Group(1, 0, 10), Group(2, 0, 20)
    assert Sharing().divide([report, newsletter], 7) == [(newsletter, 4), (report, 3)]


def test_who_has_waited_longest_is_not_forgotten() -> None:
    sharing, old, urgent = Sharing(), Group(1, 0, 1), Group(1, -5, 10)
    given = [sharing.divide([old, urgent], 1)[0][0] for _ in range(FAIR * 10)]
    assert given.count(old) == 10
    assert sharing.divide([old, urgent], FAIR * 10) == [(old, 10), (urgent, (FAIR - 1) * 10)]


places = st.tuples(st.integers(1, 4), st.integers(-10, 10))


@given(st.lists(places, min_size=1, max_size=12), st.data())
def test_nobody_waits_for_ever_whatever_comes_meanwhile(waiting: list[tuple[int, int]], data: st.DataObject) -> None:
    sharing, ids = Sharing(), iter(range(10_000))
    queues: dict[tuple[int, int], deque[int]] = defaultdict(deque)
    for place in waiting:
        queues[place].append(next(ids))
    last = len(waiting) - 1
    newcomers = data.draw(st.lists(places, min_size=1, max_size=5))
    for _ in range(FAIR * len(waiting)):
        for place in newcomers:
            queues[place].append(next(ids))
        groups = [Group(lane, rank, queue[0]) for (lane, rank), queue in queues.items() if queue]
        ((group, _),) = sharing.divide(groups, 1)
        if queues[group.lane, group.rank].popleft() == last:
            return
    raise AssertionError("it was not taken in time")
