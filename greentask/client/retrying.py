"""Whether a call that was refused, or lost, is sent again, and which servers it avoids then. Nothing is sent here.

A call that certainly did not run goes to another server, within its deadline: one that could not be sent, or was
refused because the server is going away (``Draining``), has too much to do (``Overloaded``), or other code than its
caller (``UnknownTask``, ``InvalidArguments``, ``InvalidMessage``). One that may have run is given to another server
only where its caller says that it is idempotent.
"""

from __future__ import annotations

import random
import time

from ..errors import (
    ConnectionLost,
    Draining,
    InvalidArguments,
    InvalidMessage,
    Overloaded,
    Unauthenticated,
    UnknownTask,
    WorkerLost,
)
from .balance import Balance, Missing, RetryBudget, Target
from .sent import NOT_HERE, Sent, could_not_be_sent

__all__ = ["Retrying", "Verdict"]

#: Seconds until a call is sent again, 0 for at once; or the error with which it ends.
Verdict = float | Exception

_AT_ONCE = 0.0
#: Seconds before each further try of a call that a server refused because it is going away, about.
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_chance = random.SystemRandom()  # the program's own generator may have been seeded, and is its own


class Retrying:
    """A part of its router, which asks while the call is still with its link. What a further try needs to know is noted
    with the call: it is carried out by giving the call to whichever server it does not avoid.
    """

    def __init__(self, balance: Balance, gone_after: float) -> None:
        self.budget = RetryBudget()
        self.missing = Missing()
        self._balance = balance
        self._gone_after = gone_after

    # ---- What has happened to a call

    def after_refusal(self, sent: Sent, target: Target, error: Exception) -> Verdict:
        """The server has answered with this error."""
        if sent.has_begun:
            return error
        if isinstance(error, Draining):
            return self.after_draining(sent, error)
        if isinstance(error, NOT_HERE) and self._may_do_elsewhere(sent, target, error):
            return self._elsewhere(sent, error)
        if isinstance(error, WorkerLost) and sent.may_repeat(self.budget):
            return self._once_more(sent, error)
        if isinstance(error, UnknownTask) and isinstance(sent.refusal, Overloaded):
            return sent.refusal  # by one that may have the task
        return error

    def after_draining(self, sent: Sent, refusal: Draining) -> Verdict:
        """Its server goes away, and has not run it: another one may, or that server's next front."""
        if sent.tries == len(_PAUSES):
            return refusal
        sent.refusal = refusal
        pause = _PAUSES[sent.tries]
        sent.tries += 1
        return pause * _chance.uniform(0.5, 1.5)

    def after_loss(self, sent: Sent, why: str | Unauthenticated, was_opened: bool) -> Verdict:
        """The connection that it was given to has ended, or could not be opened."""
        if not was_opened:
            return self._elsewhere(sent, could_not_be_sent(sent.refusal, why, sent.repeats > 0))
        if isinstance(why, Unauthenticated) and not sent.has_begun:  # it runs nothing for us
            return self._elsewhere(sent, Unauthenticated(str(why)))
        if sent.may_repeat(self.budget):
            return self._once_more(sent, ConnectionLost(str(why), sent=True))
        return ConnectionLost(str(why), sent=sent.was_sent)

    def after_all(self, sent: Sent) -> Verdict:
        """No server is left to it. All are tried once more where one is about to start again perhaps."""
        error = sent.refusal or ConnectionLost("there is no server to be tried", sent=False)
        may_wait = isinstance(error, (ConnectionLost, Draining))
        if may_wait and self._balance.may_come_back(time.monotonic(), self._gone_after):
            sent.avoid = frozenset()
            return _AT_ONCE
        return error

    def may_go_alone(self, item: Sent, batch: Sent, error: BaseException) -> bool:
        """Whether an item of a batch, of which it has got that error, may be sent as a call of its own.

        It goes on from where the batch was, as to servers that were tried, and how often.
        """
        if isinstance(error, (Overloaded, InvalidArguments)):
            item.avoid = batch.avoid
            if batch.link is not None:
                item.avoid |= {batch.link.target}
            item.refusal = error
            return self._has_another(item) and self.budget.spend()
        if isinstance(error, WorkerLost) or (isinstance(error, ConnectionLost) and error.sent):
            item.repeats = batch.repeats
            may_go = item.may_repeat(self.budget)
            item.repeats += 1
            return may_go
        return isinstance(error, (Draining, InvalidMessage))

    # ---- Which servers it avoids

    def avoid_missing(self, sent: Sent) -> None:
        """Ask no server that has no such task, if there is another that is well."""
        without = sent.avoid | self.missing.of(sent.task, time.monotonic())
        if any(not target.failures and target not in without for target in self._balance.targets):
            sent.avoid = without

    def _elsewhere(self, sent: Sent, error: Exception) -> Verdict:
        """The server that it was given to can't have run it, or that does no harm."""
        sent.refusal = error
        if sent.link is not None:
            sent.avoid |= {sent.link.target}
        return _AT_ONCE

    def _once_more(self, sent: Sent, error: Exception) -> Verdict:
        """It may have run, and does no harm: on another server, or else on the same one."""
        sent.repeats += 1
        if self._has_another(sent):
            return self._elsewhere(sent, error)
        sent.refusal = error
        sent.avoid = frozenset()
        return _AT_ONCE

    def _has_another(self, sent: Sent) -> bool:
        current = None if sent.link is None else sent.link.target
        return any(target is not current and target not in sent.avoid for target in self._balance.targets)

    def _may_do_elsewhere(self, sent: Sent, target: Target, error: Exception) -> bool:
        """Whether another server is asked, after what this one said. (One that has the task is asked for free.)"""
        if not self._has_another(sent):
            return False
        if not isinstance(error, UnknownTask):
            return self.budget.spend(sent.size)
        now, task = time.monotonic(), sent.task
        self.missing.add(task, target, now)
        sent.avoid |= self.missing.of(task, now)
        return self._has_another(sent)
