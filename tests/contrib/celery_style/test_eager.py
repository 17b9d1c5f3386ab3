"""Tasks that run here: ``apply``, and ``task_always_eager`` for tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask import UnknownTask
from greentask.contrib.celery_style import Celery, chain, chord, group, signature
from greentask.contrib.celery_style.exceptions import ChordError
from greentask.contrib.celery_style.result import EagerResult
from greentask.testing import eager as eager_mode
from support import celery_tasks as tasks


@pytest.fixture
def eager() -> Iterator[None]:
    tasks.app.conf.task_always_eager = True
    yield
    tasks.app.conf.task_always_eager = False


def test_apply_runs_it_here_with_a_request() -> None:
    result = tasks.seen.apply((1,), task_id="mine")
    assert isinstance(result, EagerResult)
    assert (result.get()["id"], result.get()["args"], result.get()["called_directly"]) == ("mine", [1], False)


def test_apply_throws_where_it_is_told_to() -> None:
    assert tasks.fail.apply().failed()
    with pytest.raises(ValueError, match="no luck"):
        tasks.fail.apply(throw=True)


@pytest.mark.usefixtures("eager")
def test_everything_runs_here_where_the_application_says_so() -> None:
    add, echo = tasks.add, tasks.echo
    assert add.delay(1, 2).get() == 3
    assert isinstance(add.delay(1, 2), EagerResult)
    assert (add.s(1, 2) | add.s(3)).delay().get() == 6
    assert group(add.s(i, i) for i in range(3))().get() == [0, 2, 4]
    assert chord([add.s(1, 1), add.s(2, 2)])(echo.s()).get() == [[[2, 4]], {}]
    with pytest.raises(ChordError):
        chord([add.s(1, 1), tasks.fail.s()])(echo.s()).get()
    assert signature("support.celery_tasks.add", (1, 2), app=tasks.app).delay().get() == 3


@pytest.mark.usefixtures("eager")
def test_a_long_chain_runs_here_without_a_deep_stack() -> None:
    steps = 2000
    assert chain(tasks.add.s(0, 0), *(tasks.add.s(1) for _ in range(steps)))().get() == steps
    failed = chain(tasks.fail.s(), *(tasks.add.s(1) for _ in range(steps)))()
    with pytest.raises(ValueError, match="no luck"):
        failed.get()


def test_a_canvas_in_a_task_that_runs_here_does_not_wait_for_it(tmp_path: Path) -> None:
    own = Celery("own", set_as_current=False, process=False)
    own.conf.task_always_eager = True

    @own.task
    def add(x: int, y: int) -> int:
        return x + y

    @own.task
    def outer() -> int:
        return int(chain(add.s(1, 1), add.s(1))().get())

    assert chain(outer.s(), add.s(1))().get() == 4


def test_a_task_that_is_not_here_cannot_run_here() -> None:
    with pytest.raises(UnknownTask, match="import the module"):
        tasks.app.signature("nobody.knows").apply().get()
    with pytest.raises(UnknownTask, match="import the module"):
        tasks.app.signature("nobody.knows")(1)


def test_greentask_s_own_eager_mode_runs_them_as_a_server_would(tmp_path: Path) -> None:
    with eager_mode(tasks) as calls:
        assert tasks.seen.apply_async((1,), task_id="mine").get()["id"] == "mine"
        assert chain(tasks.add.s(1, 1), tasks.add.s(1))().get() == 3
        assert chord([tasks.add.s(1, 1), tasks.add.s(2, 2)])(tasks.echo.s()).get() == [[[2, 4]], {}]
        assert tasks.fail.delay().failed()
        (tmp_path / "file").touch()
        result = tasks.advance.delay(str(tmp_path / "file"))
        assert result._sent.state == "HALFWAY"
        assert len(calls.calls_to(tasks.add)) == 4
