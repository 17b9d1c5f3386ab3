"""What a server needs for CPython's own tests of executors: the functions that they submit."""

import inspect

from greentask import Tasks
from support.cpython import modules

tasks = Tasks([pow, divmod, abs, str])
for _name in ("executor", "test_wait", "test_as_completed", "test_shutdown"):
    for _module in modules(_name):
        for _function in vars(_module).values():
            if inspect.isfunction(_function) and _function.__module__ == _module.__name__:
                tasks.add(_function, name=f"{_module.__name__}.{_function.__qualname__}")
