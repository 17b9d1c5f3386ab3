"""What canvases do beyond the first examples: links, failures in the middle, chunks, maps, nesting."""

from pieces import add, collect, count, fail, nothing, total

from celery import chain, chord, group
from celery.exceptions import ChordError, TaskRevokedError, TimeoutError
from celery.result import AsyncResult, GroupResult

linked = add.apply_async((2, 2), link=add.s(8))
print(linked.get(timeout=20), [child.get(timeout=20) for child in linked.children])

print(total.map([[1, 2], [3, 4]]).apply_async().get(timeout=20))
print(add.starmap(zip(range(5), range(5))).apply_async().get(timeout=20))
print(add.chunks(zip(range(10), range(10)), 4)().get(timeout=20))

broken = chain(add.s(1, 1), fail.s(), add.s(1)).apply_async()
try:
    broken.get(timeout=20)
except ValueError as error:
    print("chain:", error, broken.state, broken.parent.state, broken.parent.parent.state)

half = group(add.s(1, 1), fail.s(2)).apply_async()
try:
    half.get(timeout=20)
except ValueError as error:
    print("group:", error, half.failed(), half.successful(), half.completed_count(), [one.state for one in half])
print(isinstance(half, GroupResult), isinstance(half[0], AsyncResult))

try:
    chord([add.s(1, 1), fail.s(2)])(total.s()).get(timeout=20)
except ChordError:
    print("chord: ChordError")
except ValueError as error:
    print("chord:", error)

print(group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3)))().get(timeout=20), group()().get(timeout=20))
print(chain(group(add.s(1, 1), add.s(2, 2)), collect.s("more"))().get(timeout=20))
print(chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s())().get(timeout=20))
print(group(chain(add.s(1, 1), add.s(1)), add.s(5, 5))().get(timeout=20))
print(chord([chain(add.s(1, 1), add.s(1)), add.s(5, 5)])(total.s()).get(timeout=20))

counted = count.delay(3)
print(counted.get(timeout=20), counted.state)
print(nothing.delay(1, a=2).get(timeout=20), nothing.si().delay().get(timeout=20))

print(
    add.s(1, 2) == add.s(1, 2),
    add.s(1, 2) == add.s(2, 1),
    issubclass(TimeoutError, Exception),
    TaskRevokedError.__name__,
)
