"""The calling API as the user's guide tells it: options of a call, links, states and ids."""

import time
from datetime import datetime, timedelta, timezone

from tasks import add, app, divide

from celery import group, signature, uuid
from celery.exceptions import TaskRevokedError
from celery.utils.log import get_logger

logger = get_logger(__name__)


def now():
    return datetime.now(timezone.utc)


began = time.time()
result = add.apply_async((2, 2), countdown=0.1)
print(result.get(timeout=20), time.time() - began >= 0.1)
print(add.apply_async((2, 2), eta=now() + timedelta(seconds=0.1)).get(timeout=20), time.time() - began >= 0.2)
print(add.apply_async(args=[10, 10], kwargs={}, expires=60).get(timeout=20))
print(add.apply_async((10, 10), expires=now() + timedelta(days=1)).get(timeout=20))
print(add.apply_async((1, 2), countdown=0.1, expires=120).get(timeout=20))

late = add.apply_async((1, 2), countdown=0.3, expires=0.05)
try:
    late.get(timeout=20)
except TaskRevokedError:
    print("expired", late.state, late.ready(), late.successful(), late.failed())

linked = add.apply_async((2, 2), link=add.s(16))
print(linked.get(timeout=20), [value for _, value in linked.collect(timeout=20)])
several = add.apply_async((2, 2), link=[add.s(16), add.si(5, 5)])
print(several.get(timeout=20), [child.get(timeout=20) for child in several.children])

own = uuid()
print(add.apply_async((3, 4), task_id=own).id == own, app.AsyncResult(own).get(timeout=20), app.AsyncResult(own).state)
print(add.AsyncResult(own).result, app.AsyncResult("this-id-does-not-exist").state)

print(add.apply_async((2, 2), retry=False).get(timeout=20))
policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2, "retry_errors": None}
print(add.apply_async((2, 2), retry=True, retry_policy=policy).get(timeout=20))
print(add.apply_async((10, 10), serializer="json").get(timeout=20))
print(add.apply_async((1, 2), ignore_result=False).get(timeout=20))

try:
    print(add.delay(2, 2).get(timeout=20))
except add.OperationalError as exc:
    logger.exception("Sending task raised: %r", exc)

numbers = [(2, 2), (4, 4), (8, 8), (16, 16)]
print(group(add.s(i, j) for i, j in numbers).apply_async().get(timeout=20))
print(group(add.s(i, j) for i, j in numbers).apply_async(countdown=0.05).get(timeout=20))
print(group(add.s(1, 1), add.s(2, 2)).skew(start=0.05, stop=10, step=0.05)().get(timeout=20))
print(add.starmap(zip(range(3), range(3))).apply_async(countdown=0.05).get(timeout=20))
print(add.chunks(zip(range(4), range(4)), 2).group().skew(start=0.05, step=0.05)().get(timeout=20))
print((add.s(1, 1) | add.s(2)).apply_async(countdown=0.05, expires=60).get(timeout=20))
print(add.signature((2, 2), countdown=10).apply_async(countdown=0.05).get(timeout=20))
print(add.signature((2, 2)).set(countdown=0.05).delay().get(timeout=20))
print(signature("tasks.add", args=(2, 2), countdown=0.05).delay().get(timeout=20))
print(app.send_task("tasks.add", args=[1, 2], countdown=0.05).get(timeout=20))

result = add.delay(2, "2")
try:
    result.get(timeout=20)
except TypeError as error:
    print("raised", error)
print(repr(result.get(propagate=False)), result.failed(), result.successful(), result.state)
print(result.traceback.splitlines()[0], "return x + y" in result.traceback)
result = divide.delay(1, 0)
print(type(result.get(timeout=20, propagate=False)).__name__, result.traceback.splitlines()[-1])
print(add.delay(1, 1).get(timeout=20), add.delay(1, 1).traceback)
