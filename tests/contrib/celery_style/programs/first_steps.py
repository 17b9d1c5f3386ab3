"""An application in one module: a task is started, and its result looked at in every way."""

from tasks import add, divide

result = add.delay(4, 4)
print(result.get(timeout=20), result.ready(), result.successful(), result.failed(), result.state, result.result)
print(add(1, 2), add.name)

print(add.apply_async((2, 3)).get(timeout=20), add.apply_async([2], {"y": 5}).get(timeout=20))
print(add.apply_async(kwargs={"x": "a", "y": "b"}).get(timeout=20), add.delay([1], [2]).get(timeout=20))

wrong = divide.delay(1, 0)
try:
    wrong.get(timeout=20)
except ZeroDivisionError as error:
    print("raised", error)
print(repr(wrong.get(propagate=False)), wrong.state, wrong.failed(), repr(wrong.result), wrong.successful())

try:
    add.delay(1, 2, 3)
except TypeError:
    print("refused at once")

done = add.apply(args=(5, 6))
print(done.get(), done.state, done.successful(), done.ready())
failed = divide.apply((1, 0))
print(failed.state, failed.failed(), repr(failed.get(propagate=False)))
