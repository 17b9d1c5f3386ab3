"""How long calls took, in buckets."""

from hypothesis import given
from hypothesis import strategies as st

from greentask.runner.statistics import BOUNDS, percentile, shortened


def test_the_bounds_go_from_microseconds_to_minutes() -> None:
    assert BOUNDS[0] < 20e-6
    assert BOUNDS[-1] > 600
    assert list(BOUNDS) == sorted(BOUNDS)


def test_a_percentile_is_a_bucket_s_upper_bound() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    assert percentile(counts, 0.5) is None
    counts[3], counts[10] = 99, 1
    assert percentile(counts, 0.5) == BOUNDS[3]
    assert percentile(counts, 0.99) == BOUNDS[3]
    assert percentile(counts, 1.0) == BOUNDS[10]


@given(st.lists(st.integers(0, 50), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1))
def test_percentiles_do_not_fall(counts: list[int]) -> None:
    found = [percentile(counts, part) for part in (0.1, 0.5, 0.9, 0.99, 1.0)]
    if any(counts):
        assert found == sorted(found)  # type: ignore[type-var]
    else:
        assert found == [None] * 5


def test_arguments_are_cut_short_without_a_look_at_all_of_them() -> None:
    many = {f"k{number:02}": number for number in reversed(range(100))}
    assert shortened(many).startswith("{'k93': 93, "), "the first ones, and not the smallest ones of all"
    assert shortened(many).endswith(", ...}")
    assert len(shortened(many)) < 100
