"""Whatever Celery has is here, or is refused by its name: compared with the real one."""

import importlib.util
from collections.abc import Iterable
from typing import Any

import pytest

from greentask.contrib import celery_style
from greentask.contrib.celery_style import NotCarriedOver, exceptions
from greentask.contrib.celery_style.conf import Conf
from greentask.contrib.celery_style.request import Request
from support import celery_tasks as tasks
from support.parts import require

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True)
def real() -> None:
    require(importlib.util.find_spec("celery"), "no celery here: pip install celery")


def public(whole: object) -> set[str]:
    return {name for name in dir(whole) if not name.startswith("_")} - set(dir(dict))


def lost(names: Iterable[str], ours: object) -> list[str]:
    """Names that are neither there nor refused by name."""
    found = []
    for name in sorted(names):
        try:
            getattr(ours, name)
        except (NotCarriedOver, ImportError) as error:
            found += [] if name in str(error) else [name]
        except AttributeError:
            found.append(name)
    return found


def test_every_member_is_there_or_refused_by_name() -> None:
    import celery
    from celery.app.task import Context
    from celery.contrib.django.task import DjangoTask

    result = tasks.add.apply((1, 2))
    add = tasks.add.s(1, 2)
    pairs: list[tuple[object, object]] = [
        (celery.Celery, tasks.app),
        (celery.Task, tasks.add),
        (DjangoTask, tasks.add),
        (Context, Request()),
        (celery.result.AsyncResult, result),
        (celery.result.GroupResult, celery_style.GroupResult()),
        (celery.Signature, add),
        (celery.chain, add | add),
        (celery.group, celery_style.group(add)),
        (celery.chord, celery_style.chord([add], add)),
        (celery.chunks, tasks.add.chunks([(1, 2)], 1)),
        (celery, celery_style),
    ]
    assert [(theirs, lost(public(theirs), ours)) for theirs, ours in pairs if lost(public(theirs), ours)] == []
    assert lost(celery.exceptions.__all__, exceptions) == []


def test_every_option_does_something_or_is_refused_with_a_remedy() -> None:
    import inspect

    import celery

    def refusal(call: Any) -> str:
        try:
            call()
        except NotCarriedOver as error:
            return str(error)
        except Exception:  # of the value, which the test made up
            return ""
        return ""

    calls = {
        *inspect.signature(celery.Task.apply_async).parameters,
        *inspect.signature(celery.Celery.send_task).parameters,
    }
    for option in calls - {"self", "name", "args", "kwargs", "options"}:
        assert "neither Celery" not in refusal(lambda: tasks.add.s().set(**{option: 5}))  # noqa: B023
    for option in public(celery.Task) - {
        "app",
        "backend",
        "from_config",
        "request",
        "request_stack",
    }:  # these aren't said there
        if not callable(getattr(celery.Task, option)):
            own = celery_style.Celery("own", set_as_current=False, process=False)
            assert "neither Celery" not in refusal(lambda: own.task(**{option: 5})(print)), option  # noqa: B023


def test_every_setting_is_there_or_refused_by_name() -> None:
    from celery.app.defaults import NAMESPACES, flatten

    conf, names = Conf(), [name for name, _ in flatten(NAMESPACES)]
    assert len(names) > 100
    for name in names:
        if name not in conf:
            with pytest.raises(NotCarriedOver, match=f"setting {name} "):
                conf[name] = "something"
