"""Who goes first."""

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
