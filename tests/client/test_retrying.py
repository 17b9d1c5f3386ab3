"""``Retrying``: whether a call is sent again, and which servers it avoids then; without a server."""

import time
from typing import Any

import pytest

from greentask import ConnectionLost, Draining, Overloaded, Unauthenticated, UnknownTask, WorkerLost
from greentask.client.balance import Balance, RetryBudget, Target
from greentask.client.retrying import Retrying
from greentask.client.sent import NOT_HERE, Sent
from greentask.wire.address import parse_addresses

GONE_AFTER = 5.0


class _With:
    """A link as far as it is asked here: that with a server."""

    def __init__(self, target: Target) -> None:
        self.target = target


def retrying_of(count: int) -> tuple[Retrying, list[Target]]:
    balance = Balance(parse_addresses([f"127.0.0.1:{4000 + number}" for number in range(count)]))
    return Retrying(balance, GONE_AFTER), balance.targets


def sent_to(target: Target, *, idempotent: bool = False, size: int = 1) -> Sent:
    receiver: Any = None
    link: Any = _With(target)
    sent = Sent(b'{"function":"f","id":1}\n', receiver, size, idempotent)
    sent.link, sent.was_sent = link, True
    return sent


@pytest.mark.parametrize("kind", NOT_HERE)
def test_a_refusal_sends_it_to_the_other_server_and_the_last_one_counts(kind: type[Exception]) -> None:
    retrying, (one, other) = retrying_of(2)
    sent, error = sent_to(one), kind("no")
    assert retrying.after_refusal(sent, one, error) == 0
    assert one in sent.avoid
    assert other not in sent.avoid
    sent.link = sent_to(other).link
    last = kind("no again")
    assert retrying.after_refusal(sent, other, last) is last


@pytest.mark.parametrize("error", [Overloaded("full"), Draining("leaves"), WorkerLost("died")], ids=repr)
def test_what_has_begun_begins_nowhere_again(error: Exception) -> None:
    retrying, (one, _) = retrying_of(2)
    sent = sent_to(one, idempotent=True)
    sent.has_begun = True
    assert retrying.after_refusal(sent, one, error) is error


def test_a_server_that_goes_away_is_asked_at_once_and_then_after_longer_and_longer_pauses() -> None:
    retrying, (one,) = retrying_of(1)
    sent, refusal = sent_to(one), Draining("leaves")
    pauses = []
    while not isinstance(verdict := retrying.after_refusal(sent, one, refusal), Exception):
        pauses.append(verdict)
    assert verdict is refusal
    assert pauses[0] == 0
    assert all(0.5 <= pause / about <= 1.5 for pause, about in zip(pauses[1:], (0.05, 0.1, 0.2, 0.4, 0.8)))
    assert len(pauses) == 6


def test_a_loss_is_an_error_unless_it_does_no_harm_to_run_it_twice() -> None:
    retrying, (one,) = retrying_of(1)
    lost = retrying.after_loss(sent_to(one), "it is gone", True)
    assert isinstance(lost, ConnectionLost)
    assert lost.sent
    harmless = sent_to(one, idempotent=True)
    assert [retrying.after_loss(harmless, "it is gone", True) for _ in range(3)] == [0, 0, 0]
    assert isinstance(retrying.after_loss(harmless, "it is gone", True), ConnectionLost)


def test_a_batch_is_sent_again_once_where_that_does_no_harm() -> None:
    retrying, (one,) = retrying_of(1)
    batch = sent_to(one, idempotent=True, size=4)
    assert retrying.after_loss(batch, "it is gone", True) == 0
    assert isinstance(retrying.after_loss(batch, "it is gone", True), ConnectionLost)


def test_what_could_not_be_sent_or_proven_goes_to_the_other_server() -> None:
    retrying, (one, _) = retrying_of(2)
    for why, was_opened in (("can't connect", False), (Unauthenticated("no proof"), True)):
        sent = sent_to(one)
        assert retrying.after_loss(sent, why, was_opened) == 0
        assert sent.avoid == {one}
        assert type(sent.refusal) is (Unauthenticated if was_opened else ConnectionLost)


def test_the_budget_ends_what_is_sent_again() -> None:
    retrying, (one, _) = retrying_of(2)
    tried = 0
    while retrying.after_refusal(sent_to(one), one, Overloaded("full")) == 0:
        tried += 1
    assert tried == RetryBudget.RESERVE
    retrying.budget.made += 10
    assert retrying.after_refusal(sent_to(one), one, Overloaded("full")) == 0


def test_where_all_were_tried_they_are_tried_once_more_if_one_was_there_a_moment_ago() -> None:
    retrying, (one, _) = retrying_of(2)
    sent = sent_to(one)
    sent.avoid, sent.refusal = frozenset({one}), ConnectionLost("lost", sent=False)
    assert retrying.after_all(sent) is sent.refusal
    one.is_known = True
    retrying._balance.failed(one, time.monotonic())
    assert retrying.after_all(sent) == 0
    assert not sent.avoid
    sent.refusal = Overloaded("full")  # by one that is there
    assert retrying.after_all(sent) is sent.refusal


def test_servers_without_the_task_are_avoided_while_another_is_well() -> None:
    retrying, (one, other) = retrying_of(2)
    assert retrying.after_refusal(sent_to(one), one, UnknownTask("f")) == 0
    later = sent_to(other)
    retrying.avoid_missing(later)
    assert later.avoid == {one}
    other.failures = 1
    later = sent_to(other)
    retrying.avoid_missing(later)
    assert not later.avoid


def test_the_word_of_one_that_may_have_the_task_counts_more() -> None:
    retrying, (one, other) = retrying_of(2)
    sent, full = sent_to(one), Overloaded("full")
    assert retrying.after_refusal(sent, one, full) == 0
    sent.link = sent_to(other).link
    assert retrying.after_refusal(sent, other, UnknownTask("f")) is full
