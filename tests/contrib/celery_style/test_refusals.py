"""What isn't carried over from Celery says so at import or call, by name, with what to do instead."""

import importlib
from datetime import datetime, timezone
from typing import Any

import pytest

from greentask import ConfigurationError
from greentask.contrib import celery_style
from greentask.contrib.celery_style import Celery, NeedsQueue, NotCarriedOver, group, members, missing, shared_task
from greentask.contrib.celery_style.conf import Conf
from support import celery_tasks as tasks

app = tasks.app


def function() -> None: ...


# ---- Options of tasks


@pytest.mark.parametrize("option", sorted(missing._TASK_OPTIONS))
@pytest.mark.parametrize("declare", [app.task, shared_task])
def test_an_option_of_a_task_is_refused_by_name_at_import(declare: Any, option: str) -> None:
    with pytest.raises(NotCarriedOver, match=rf"{option}= of task '.*\.function'.*: \w+") as refused:
        declare(**{option: "something"})(function)
    needs_queue = isinstance(missing._TASK_OPTIONS[option], missing._Queue)
    assert isinstance(refused.value, NeedsQueue) == needs_queue
    assert ("durable queue" in str(refused.value)) == needs_queue


def test_an_option_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(NotCarriedOver, match="colour= of task"):
        app.task(colour="red")(function)
    with pytest.raises(NotCarriedOver, match=r"colour= in a call of task 'support\.celery_tasks\.add'"):
        tasks.add.apply_async((1, 2), colour="red")
    with pytest.raises(NotCarriedOver, match="colour="):
        Celery("tasks", colour="red")
    with pytest.raises(NotCarriedOver, match="setting task_acks_late needs a durable queue"):
        Celery("tasks", task_acks_late=True)
    assert Celery("tasks", set_as_current=False, task_always_eager=True).conf.task_always_eager


def test_options_that_ask_for_what_is_so_are_accepted() -> None:
    own = Celery("own", set_as_current=False, process=False)
    task = own.task(
        ignore_result=True, serializer="json", throws=(ValueError,), send_events=False, name="own", time_limit=None
    )(function)
    assert task.apply(ignore_result=True, retry=True, serializer="json", queue=None).state == "SUCCESS"


def test_a_coroutine_function_is_refused() -> None:
    async def function() -> None: ...

    with pytest.raises(NotCarriedOver, match="coroutine function"):
        app.task(process=False)(function)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a task is a function"):
        app.task(tasks.add)
    with pytest.raises(ConfigurationError, match="a function at the top of a module"):
        app.task(lambda: None)
    with pytest.raises(ConfigurationError, match=r"write @app.task above its definition, or say process=False"):
        app.task(function)


# ---- Options of calls


@pytest.mark.parametrize("option", sorted(missing._CALL_OPTIONS))
def test_an_option_of_a_call_is_refused_by_name(option: str) -> None:
    with pytest.raises(NotCarriedOver, match=rf"{option}= in a call of task 'support.celery_tasks.add'"):
        tasks.add.apply_async((1, 2), **{option: "something"})
    with pytest.raises(NotCarriedOver, match=f"{option}="):
        tasks.add.s(1, 2).set(**{option: "something"})


def test_a_commit_is_waited_for_in_a_django_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    with pytest.raises(NotCarriedOver, match=r"delay_on_commit.*'support.celery_tasks.add'.*Django projects"):
        tasks.add.delay_on_commit(1, 2)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(("option", "value"), [("countdown", 10), ("eta", datetime.now(timezone.utc))])
def test_what_waits_needs_a_queue(option: str, value: Any) -> None:
    signature = tasks.add.signature((1, 2), **{option: value})
    ways = [
        lambda: tasks.add.apply_async((1, 2), **{option: value}),
        signature.delay,
        group(tasks.add.s(1, 1), signature),
        tasks.add.s(1, 1) | signature,
    ]
    for way in ways:
        with pytest.raises(NeedsQueue, match=f"{option}= in a call of .*add' needs a durable queue.*--queue FILE"):
            way()  # type: ignore[operator]


def test_a_countdown_of_nothing_is_none() -> None:
    assert tasks.add.apply((1, 2), countdown=0).get() == 3


def test_what_an_option_is_must_be_clear() -> None:
    with pytest.raises(ValueError, match="has no timezone"):
        tasks.add.apply_async((1, 2), expires=datetime.now())
    with pytest.raises(TypeError, match=r"task_id= of task .* is a text, not 5"):
        tasks.add.apply_async((1, 2), task_id=5)
    with pytest.raises(TypeError, match="in seconds, or a datetime, not 'soon'"):
        tasks.add.apply_async((1, 2), expires="soon")


def test_arguments_that_are_a_text_are_refused() -> None:
    with pytest.raises(TypeError, match="is a list or tuple of arguments, not 'ab'"):
        tasks.add.apply_async("ab")


def test_a_canvas_hands_on_when_it_is_to_run_and_no_other_options() -> None:
    with pytest.raises(NotCarriedOver, match=r"task_id= of a chain: give it to its tasks, with .set\(task_id=…\)"):
        (tasks.add.s(1, 1) | tasks.add.s(1)).apply_async(task_id="mine")
    with pytest.raises(NotCarriedOver, match="link= of a group"):
        group(tasks.add.s(1, 1))(link=tasks.add.s(1))
    with pytest.raises(NotCarriedOver, match="countdown= of a chord"):
        celery_style.chord([tasks.add.s(1, 1)])(tasks.echo.s(), countdown=5)


# ---- Members of results, signatures, tasks and requests


@pytest.mark.parametrize("kind", sorted(members._MEMBERS))
def test_a_member_is_refused_by_name(kind: str) -> None:
    result = tasks.add.apply((1, 2))
    whole = {
        "task": [tasks.add],
        "request": [tasks.add.request],
        "result": [result, celery_style.GroupResult()],
        "signature": [tasks.add.s(1), tasks.add.s(1) | tasks.add.s(1), group(), celery_style.chord([])],
    }[kind]
    for name, remedy in members._MEMBERS[kind].items():
        refused = [one for one in whole if not hasattr(type(one), name) and name not in vars(one)]
        assert refused, f"{name} is there"
        for one in refused:
            with pytest.raises(NotCarriedOver) as error:
                getattr(one, name)
            assert str(error.value) == f"{type(one).__name__}.{name} is not carried over from Celery: {remedy}"
    assert not any(hasattr(one, "colour") for one in whole)


def test_results_are_waited_for_and_not_listened_to() -> None:
    for result in (tasks.add.apply((1, 2)), group(tasks.add.s(1, 1)).apply()):
        with pytest.raises(NotCarriedOver, match=r"on_message= of get\(\)"):
            result.get(on_message=print)
    with pytest.raises(NotCarriedOver, match=r"GroupResult.restore\('5'\)"):
        celery_style.GroupResult.restore("5")


def test_what_is_no_signature_is_refused() -> None:
    with pytest.raises(TypeError, match=r"5 is no signature: write task.s\(arguments\)"):
        group(tasks.add.s(1), 5)
    with pytest.raises(TypeError):
        tasks.add.s(1) | 5  # type: ignore[operator]
    with pytest.raises(ValueError, match="at least one task"):
        celery_style.chain()
    with pytest.raises(TypeError, match=r"has no body: chord\(header\)\(body\)"):
        celery_style.chord([tasks.add.s(1, 2)])()


def test_another_task_s_state_cannot_be_told() -> None:
    with pytest.raises(NotCarriedOver, match=r"update_state\(task_id='another'\)"):
        tasks.add.update_state(task_id="another", state="X")


# ---- The application, its settings, and imports


@pytest.mark.parametrize("name", sorted(missing._APP))
def test_a_member_of_the_application_is_refused_by_name(name: str) -> None:
    with pytest.raises(NotCarriedOver, match=rf"app\.{name} .*: \w+"):
        getattr(app, name)


def test_a_member_that_nobody_knows_is_an_attribute_error() -> None:
    assert not hasattr(app, "colour")


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("beat_schedule", {}, "durable queue.*every="),
        ("task_routes", {}, "process='NAME'"),
        ("worker_concurrency", 8, "greentask serve --help"),
        ("task_serializer", "pickle", "always JSON"),
        ("accept_content", ["pickle"], "always JSON"),
        ("task_acks_late", True, "durable queue.* leave this out in any case"),
        ("task_colour", "red", "not known here"),
    ],
)
def test_a_setting_is_refused_by_name(name: str, value: Any, remedy: str) -> None:
    conf = Conf()
    with pytest.raises(NotCarriedOver, match=f"setting {name}.*{remedy}"):
        setattr(conf, name, value)
    with pytest.raises(NotCarriedOver, match=name):
        conf.update({name: value})


def test_settings_come_from_an_object_or_a_module() -> None:
    class Settings:
        DEBUG = 5
        CELERY_TASK_ALWAYS_EAGER = True
        CELERY_TIMEZONE = "Europe/Paris"

    own = Celery("own", set_as_current=False, config_source=Settings, namespace="CELERY")
    assert own.conf.task_always_eager
    assert own.conf["timezone"] == "Europe/Paris"
    own.config_from_object({"task_always_eager": False})
    assert not own.conf.task_always_eager
    with pytest.raises(NotCarriedOver, match="setting CELERY_TASK_ALWAYS_EAGER is not known"):
        own.config_from_object(Settings)
    with pytest.raises(NotCarriedOver, match="beat_schedule"):
        _ = own.conf.beat_schedule


@pytest.mark.parametrize("name", ["broker_url", "CELERY_BROKER_URL"])
def test_a_broker_is_a_server_s_address_or_is_told_to_be_of_no_use(name: str, caplog: pytest.LogCaptureFixture) -> None:
    namespace = "CELERY" if name.startswith("CELERY") else None
    own = Celery("own", set_as_current=False)
    own.config_from_object({name: "redis://user:secret@localhost"}, namespace=namespace)
    with caplog.at_level("INFO"):
        own._caller()
        own._caller()
    assert [record.getMessage() for record in caplog.records] == [
        "<Celery own>: a broker (redis) is not used, calls go to a greentask server"
    ]
    own.config_from_object({name: "tcp://localhost:1"}, namespace=namespace)
    assert "localhost:1" in repr(own._caller())


def test_autodiscovery_without_packages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    with pytest.raises(NotCarriedOver, match="name the packages"):
        app.autodiscover_tasks()


@pytest.mark.parametrize("name", sorted(missing._IMPORTS))
@pytest.mark.parametrize("module", ["", ".exceptions"])
def test_a_name_of_celery_s_is_refused_at_import(module: str, name: str) -> None:
    with pytest.raises(ImportError, match=rf"celery\.(exceptions\.)?{name} .*: \w+"):
        exec(f"from greentask.contrib.celery_style{module} import {name}")


def test_names_that_nobody_knows_are_missing_as_usual() -> None:
    assert not hasattr(celery_style, "colour")
    with pytest.raises(ImportError, match="cannot import name 'colour'"):
        exec("from greentask.contrib.celery_style.exceptions import colour")
    with pytest.raises(ModuleNotFoundError, match=r"celery_style\.colours"):
        importlib.import_module("greentask.contrib.celery_style.colours")


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("schedules", r"every="),
        ("signals", "Middleware"),
        ("beat", "every="),
        ("bootsteps", "Middleware"),
        ("contrib.abortable", r"revoke\(terminate"),
        ("contrib.testing.worker", r"greentask\.testing"),
        ("worker.control", "greentask serve"),
    ],
)
def test_a_module_of_celery_s_is_refused_at_import(module: str, remedy: str) -> None:
    whole = module.partition(".")[0]
    with pytest.raises(ImportError, match=rf"celery\.{whole} .*{remedy}"):
        importlib.import_module(f"greentask.contrib.celery_style.{module}")
