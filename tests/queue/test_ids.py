"""The ids of durable tasks."""

from hypothesis import given
from hypothesis import strategies as st

from greentask.queue.ids import id_text, next_id, parse_id

ids = st.integers(0, 2**63 - 1)


@given(ids)
def test_an_id_can_be_read_again(id: int) -> None:
    assert parse_id(id_text(id)) == id


@given(ids, ids)
def test_texts_sort_as_the_ids_do(one: int, other: int) -> None:
    assert (id_text(one) < id_text(other)) == (one < other)


@given(st.text(max_size=20))
def test_what_is_no_id_is_none(text: str) -> None:
    id = parse_id(text)
    assert id is None or id_text(id) == text


@given(st.integers(0, 2**62), st.floats(0, 1e10))
def test_ids_go_up_whatever_the_clock_says(last: int, now: float) -> None:
    assert last < next_id(last, now) < 2**63
    assert next_id(0, now) <= next_id(0, now + 1)
