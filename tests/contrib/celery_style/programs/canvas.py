"""What canvases do beyond the first examples: links, failures in the middle, chunks, maps, nesting."""

from pieces import add, collect, count, create_user, fail, import_contacts, mul, nothing, send_welcome, subtract, total

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

# The user's guide on canvases, example by example.
print(add.signature((2, 2)), add.s(2, 2), add.s(2, 2, debug=True), add.s(2).clone(args=(4,), kwargs={"debug": True}))
sig = add.signature((2, 2), {"debug": True}, countdown=10)
print(sig.args, sig.kwargs, sig.options, ~add.si(2, 2))
partial = subtract.s(10)
print(partial.delay(30).get(timeout=20), partial.apply_async((30,)).get(timeout=20), partial(30))
print(chain(add.s(2, 2), add.s(4), add.s(8))().get(timeout=20), (add.s(2, 2) | add.s(4) | add.s(8))().get(timeout=20))
res = (add.si(2, 2) | add.si(4, 4) | add.si(8, 8))()
print(res.get(timeout=20), res.parent.get(timeout=20), res.parent.parent.get(timeout=20))
print(chord((add.s(i, i) for i in range(10)), total.s())().get(timeout=20))
print(chord((add.s(i, i) for i in range(3)), add.si(1, 2)).apply_async().get(timeout=20))
c1 = add.s(4) | mul.s(8)
print(c1(16).get(timeout=20), (add.s(4, 16) | mul.s(2) | (add.s(4) | mul.s(8)))().get(timeout=20))
c3 = group(add.s(i, i) for i in range(10)) | total.s()
print(c3().get(timeout=20))
new_user_workflow = create_user.s() | group(import_contacts.s(), send_welcome.s())
print(new_user_workflow.delay(username="artv", first="Art", last="Vandelay").get(timeout=20))
res = (add.s(4, 4) | group(add.si(i, i) for i in range(10)))()
print(res.get(timeout=20), res.parent.get(timeout=20))
linked = add.apply_async((2, 2), link=add.si(5, 5))
print(linked.get(timeout=20), [value for _, value in linked.collect(timeout=20)])
res = add.apply_async((2, 2), link=mul.s(16))
print(res.get(timeout=20), res.children[0].get(timeout=20), [value for _, value in res.collect(timeout=20)])
s = add.s(2, 2)
s.link(mul.s(4))
s.link(add.si(1, 1))
res = s.delay()
print(res.get(timeout=20), [child.get(timeout=20) for child in res.children])
print([value for _, value in res.collect(intermediate=True, timeout=20)])
s = create_user.s("artv")
print(s.delay(first="Art", last="Vandelay").get(timeout=20)["name"])
print(s.apply_async(kwargs={"first": "Art", "last": "V."}).get(timeout=20)["name"])
res = chain(add.s(4, 4), mul.s(8), mul.s(10))()
print(res.get(timeout=20), res.parent.get(timeout=20), res.parent.parent.get(timeout=20))
result = group([add.s(2, 2), add.s(4, 4), add.s(8, 8), add.s(16, 16), add.s(32, 32)]).apply_async()
print(result.get(timeout=20), result.ready(), result.successful(), result.failed(), result.waiting(), result.join())
print(chain(add.s(2, 2), group(add.s(1)), add.s(1))().get(timeout=20), chain(group(add.s(1, 1)), add.s(2))().get(20))
print((group(add.s(1, 1)) | total.s())().get(timeout=20), chord([add.s(1, 1)])(total.s()).get(timeout=20))
callback, header = total.s(), [add.s(i, i) for i in range(100)]
print(chord(header)(callback).get(timeout=20))
print(~total.map([list(range(10)), list(range(100))]), ~add.starmap(zip(range(10), range(10))))
print(add.chunks(zip(range(100), range(100)), 10)().get(timeout=20)[9])

counted = count.delay(3)
print(counted.get(timeout=20), counted.state)
print(nothing.delay(1, a=2).get(timeout=20), nothing.si().delay().get(timeout=20))

print(
    add.s(1, 2) == add.s(1, 2),
    add.s(1, 2) == add.s(2, 1),
    issubclass(TimeoutError, Exception),
    TaskRevokedError.__name__,
)
