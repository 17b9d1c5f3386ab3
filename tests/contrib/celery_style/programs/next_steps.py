"""An application that is a package: signatures, partial ones, groups, chains, chords."""

from proj.celery import app
from proj.tasks import add, mul, tell, xsum

from celery import chain, chord, group, signature

result = add.apply_async((2, 2), task_id="a task of mine")
print(result.id, result.get(timeout=20), add.name, sorted(name for name in app.tasks if name.startswith("proj.")))

two_and_two = add.s(2, 2)
print(two_and_two.delay().get(timeout=20), two_and_two(), two_and_two.task, two_and_two.args, add.s(2, y=1).kwargs)
print(add.s(2).delay(8).get(timeout=20), add.si(2, 3).delay().get(timeout=20), add.signature((1,)).clone((5,)).args)
print(mul.s(2).apply_async((4,)).get(timeout=20), ~mul.s(3, 3), tell.s(1, a=1, b=1).clone(kwargs={"b": 2}).kwargs)
print(signature("proj.tasks.add", args=(3, 4), app=app).delay().get(timeout=20))
print(app.send_task("proj.tasks.mul", (6, 7)).get(timeout=20), app.signature("proj.tasks.mul", (6,)).delay(2).get(20))

numbers = group(add.s(i, i) for i in range(10))()
print(numbers.get(timeout=20), len(numbers), numbers.ready(), numbers.successful(), numbers.completed_count())
print(group(add.s(i) for i in range(4))(10).get(timeout=20), group([add.s(1, 1), mul.s(3, 3)]).delay().get(timeout=20))

print(chain(add.s(4, 4) | mul.s(8))().get(timeout=20), (add.s(16) | mul.s(2))(4).get(timeout=20))
long = chain(add.s(1, 1), add.s(2), mul.s(10)).apply_async()
print(long.get(timeout=20), long.parent.get(timeout=20), long.parent.parent.get(timeout=20), long.parent.parent.parent)
print((add.s(2, 2) | mul.si(5, 5) | add.s(1)).delay().get(timeout=20))

print(chord((add.s(i, i) for i in range(10)), xsum.s())().get(timeout=20))
print(chord([add.s(1, 1), add.s(2, 2)])(xsum.s()).get(timeout=20))
print((group(add.s(i, i) for i in range(5)) | xsum.s() | mul.s(2)).delay().get(timeout=20))
print(chain(add.s(1, 1), group(add.s(1), mul.s(10)))().get(timeout=20))

told = tell.apply_async((1, 2), {"a": "b"})
id, *rest = told.get(timeout=20)
print(id == told.id, rest)
print(tell(1)[1:], tell.apply((1,)).get()[1:])
