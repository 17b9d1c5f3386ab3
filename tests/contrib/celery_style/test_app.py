"""The application: what it serves, where its settings come from, which one calls a shared task."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask.contrib.celery_style import Celery, NeedsQueue, chain, group, shared_task
from greentask.contrib.celery_style.utils.log import get_task_logger
from greentask.tasks.loading import load_apps
from greentask.tasks.rates import Rate
from greentask.tasks.schedules import Interval
from greentask.tasks.singletons import singleton_key
from support import celery_tasks as tasks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where modules are found whose names begin with `celery_app_`."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("celery_app_")]:
        del sys.modules[name]


@Celery("own", set_as_current=False, process="ml").task
def guess() -> None: ...


@shared_task(max_running=2, process=False)
def hold() -> None: ...


TASK = """
from greentask.contrib.celery_style import Celery
app = Celery("{0}", set_as_current=False)

@app.task
def {0}(): ...
"""


def test_packages_are_searched_for_tasks_when_it_is_served(folder: Path) -> None:
    for package, modules in {"celery_app_a": ["tasks"], "celery_app_b": ["jobs"], "celery_app_c": []}.items():
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
        for module in modules:
            (folder / package / f"{module}.py").write_text(TASK.format(module))
    own = Celery("own", set_as_current=False)
    own.autodiscover_tasks(lambda: ["celery_app_a", "celery_app_c"])
    assert "celery_app_a.tasks" not in sys.modules
    list(own)
    assert "celery_app_a.tasks" in sys.modules
    own.autodiscover_tasks(["celery_app_b"], related_name="jobs", force=True)
    assert "celery_app_b.jobs" in sys.modules
    own.autodiscover_tasks(["celery_app_nobody"])
    with pytest.raises(ModuleNotFoundError, match="celery_app_nobody"):
        list(own)


def test_settings_come_from_a_module_by_its_name(folder: Path) -> None:
    (folder / "celery_app_settings.py").write_text(
        "from datetime import timedelta\nimport os\ntask_always_eager = True\n_own = 5\n"
        "class Other:\n    task_track_started = True\n"
    )
    own = Celery("own", set_as_current=False, config_source="celery_app_settings")
    assert own.conf.task_always_eager
    own.config_from_object("celery_app_settings:Other")
    assert own.conf.task_track_started


def test_what_is_included_is_served_and_shared_tasks_with_it(folder: Path) -> None:
    (folder / "celery_app_main.py").write_text(
        TASK.format("main").replace('"main",', '"main", include=["celery_app_more"],')
    )
    (folder / "celery_app_more.py").write_text("from celery_app_main import app\n@app.task\ndef more(): ...\n")
    served = {task.name for task in load_apps(["celery_app_main"])}
    assert {"celery_app_main.main", "celery_app_more.more", "support.celery_tasks.nap"} <= served


def test_tasks_of_the_program_itself_have_the_application_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None: ...

    work.__module__ = "__main__"
    own = Celery("shop", set_as_current=False, process=False)
    assert own.task(work).name == "shop.work"
    assert Celery(set_as_current=False, process=False).task(work).name == "__main__.work"


def test_a_shared_task_is_called_by_the_application_that_was_made_last() -> None:
    first = Celery("first", process=False)
    second = Celery("second", process=False)
    try:
        assert tasks.nap.app is second
        first.set_current()
        assert tasks.nap.app is first
        assert tasks.add.app is tasks.app
    finally:
        tasks.app.set_current()


def test_a_task_runs_in_a_process_unless_it_says_otherwise() -> None:
    assert tasks.add.process is True
    assert tasks.echo.process is False
    assert guess.process == "ml"
    assert hold.max_running == 2


def test_results_and_signatures_show_what_they_are_of() -> None:
    result = tasks.add.apply((1, 2), task_id="mine")
    assert repr(result) == "<EagerResult: mine of support.celery_tasks.add>"
    assert (str(result), result.task_id, result.name) == ("mine", "mine", "support.celery_tasks.add")
    canvas = group(tasks.add.s(1, y=2), tasks.add.s(3, 4)) | tasks.add.si(3)
    assert repr(canvas) == (
        "group(support.celery_tasks.add(1, y=2), support.celery_tasks.add(3, 4)) | support.celery_tasks.add(3)"
    )
    assert repr(canvas.clone()) == repr(canvas)
    assert repr(tasks.app) == "<Celery support.celery_tasks>"
    assert get_task_logger("mine").name == "mine"


def test_a_signature_has_as_many_links_as_it_is_given() -> None:
    signature = tasks.add.s(1, 1)
    assert signature.link(tasks.add.s(1)) == tasks.add.s(1)
    signature.link(chain(tasks.add.s(10), tasks.add.s(100)))
    assert [child.get() for child in signature.apply().children] == [[3, 112]], "several are a group"


def test_a_task_that_runs_here_is_tried_again_at_once_and_waits_for_nothing(tmp_path: Path) -> None:
    tasks.app.conf.task_always_eager = True
    try:
        with pytest.raises(ValueError, match="no luck"):  # in the end
            tasks.try_again.delay().get()
        assert tasks.ask_again.delay(str(tmp_path / "tried"), 2).get() == [2, 2]
        assert tasks.add.apply_async((1, 2), countdown=60).get() == 3
        with pytest.raises(ValueError, match="no luck"):  # called directly, it fails as it would without retry()
            tasks.try_again()
        with pytest.raises(NeedsQueue, match="AsyncResult"):
            tasks.app.AsyncResult("nobody's")
    finally:
        tasks.app.conf.task_always_eager = False


def test_a_task_may_have_greentask_s_schedule_and_limits() -> None:
    own = Celery("own", set_as_current=False)

    @own.task(process=False, every=30, rate="5/s", ttl=60, singleton=True)
    def tidy_up() -> str:
        return "tidy"

    assert (tidy_up.schedule, tidy_up.rate, tidy_up.ttl) == (Interval(30.0), Rate(5, 1.0), 60)
    positional, named = tidy_up.binder.bind({})
    assert tidy_up.function(*positional, **named) == "tidy", "as it runs at a tick"
    assert singleton_key(tidy_up.singleton, tidy_up.binder, {}) == ""
