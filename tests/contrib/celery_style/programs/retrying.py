"""Tasks that are tried again: what the user's guide says of it."""

import time

from tries import (
    add,
    by_itself,
    not_bound,
    not_for_some,
    plainly,
    send_status,
    until_it_gives_up,
    wait_a_little,
    with_its_error,
    without_end,
)

from celery import chain, chord, group
from celery.exceptions import MaxRetriesExceededError


def show(result):
    try:
        print(result.get(timeout=20), result.state)
    except Exception as error:
        print(f"{type(error).__name__}: {error}; {result.state}")


show(send_status.delay(0))
show(send_status.delay(2))
show(send_status.delay(5))

waits = wait_a_little.delay()
while waits.state != "RETRY":
    time.sleep(0.01)
print(waits.ready(), waits.successful(), waits.failed())
show(waits)

show(plainly.delay(2))
try:
    plainly.delay(3).get(timeout=20)
except MaxRetriesExceededError:
    print("MaxRetriesExceededError")
show(with_its_error.delay())
show(without_end.delay(7))
show(until_it_gives_up.delay())
show(not_bound.delay("ann"))

show(by_itself.delay("OSError", 2))
show(by_itself.delay("OSError", 3))
show(by_itself.delay("Busy", 1))
show(by_itself.delay("KeyError", 1))
show(not_for_some.delay(4))
show(not_for_some.delay(0))

# Behind what is tried again, tasks run once, when it has ended.
show(chain(send_status.s(1), add.s(10)).delay())
show(group(send_status.s(times) for times in range(3)).delay()[2])
show(chord([send_status.s(times) for times in range(3)])(add.s([3])))

# Here and now, nothing is waited for.
show(send_status.apply((2,)))
try:
    send_status(1)
except OSError as error:
    print("called directly:", error)
