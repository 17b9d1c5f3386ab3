"""What a queue does unless it is told otherwise."""

from __future__ import annotations

__all__ = [
    "DEFAULT_DEAD_LIMIT",
    "DEFAULT_GREENLETS",
    "DEFAULT_KEEP_ATTEMPTS",
    "DEFAULT_KEY_TTL",
    "DEFAULT_LEASE",
    "DEFAULT_MAX_BATCH",
    "DEFAULT_MAX_LOST_FRONTS",
    "DEFAULT_MAX_LOST_PROCESSES",
    "DEFAULT_MAX_MEMBERS",
    "DEFAULT_MAX_TAKEN",
    "DEFAULT_MEMORY",
    "DEFAULT_RESULT_TTL",
    "LEAST_LEASE",
    "MOST_ATTEMPTS",
    "MOST_TAKEN",
]

#: How many durable tasks of a server run in greenlets at once.
DEFAULT_GREENLETS = 100
#: Bytes of arguments of all durable tasks that a server has at once, if it is more than one.
DEFAULT_MEMORY = 64 * 1024 * 1024
#: Attempts of a task, the newest ones, of which all of the error is kept.
DEFAULT_KEEP_ATTEMPTS = 100
#: Attempts of which anything is kept: who asks to be tried again may do so for years.
MOST_ATTEMPTS = 10_000
#: Seconds of silence after which a server's tasks are given to others; and the least that makes sense.
DEFAULT_LEASE = 5.0
LEAST_LEASE = 2.0
#: Seconds for which a task that has ended is known.
DEFAULT_RESULT_TTL = 86400.0
#: Seconds for which a key holds when its task is no longer known.
DEFAULT_KEY_TTL = 0.0
#: Dead letters that are kept; of more, the oldest are forgotten.
DEFAULT_DEAD_LIMIT = 100_000
#: Processes that may die while they run one task, and servers while they have it; then it is a dead letter.
DEFAULT_MAX_LOST_PROCESSES = 5
DEFAULT_MAX_LOST_FRONTS = 10
#: How many tasks may be in one batch, which is one transaction: others wait for its end.
DEFAULT_MAX_BATCH = 100_000
#: Members of a group whose results somebody takes.
DEFAULT_MAX_MEMBERS = 100_000
#: Bytes of results that one task takes of others; and the most that it makes sense to say, for SQLite's rows end there.
DEFAULT_MAX_TAKEN = 16 * 1024 * 1024
MOST_TAKEN = 512 * 1024 * 1024
