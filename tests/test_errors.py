"""Errors over the wire: what a caller gets of what a task, or greentask itself, raised."""

import builtins
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask import errors
from greentask.errors import (
    PROTOCOL_TYPES,
    CallError,
    Cancelled,
    CancelRequest,
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    GreentaskError,
    Interrupt,
    InvalidArguments,
    InvalidMessage,
    InvalidResult,
    LineTooLong,
    Overloaded,
    TaskError,
    TimeLimit,
    UnknownTask,
    WorkerLost,
    describe,
    from_wire,
    out_of_time,
    refusal,
)
from greentask.wire.json import dumps, loads
from support.values import values

CLASSES = [
    thing
    for thing in vars(errors).values()
    if isinstance(thing, type) and issubclass(thing, BaseException) and thing.__module__ == errors.__name__
]
EXCEPTIONS = [thing for thing in vars(builtins).values() if isinstance(thing, type) and issubclass(thing, Exception)]


def sent(described: dict[str, Any]) -> Exception:
    """What comes out at the other end of the wire."""
    return from_wire(loads(dumps(described)))


def raised(error: BaseException) -> Exception:
    """What a caller gets of what its task raised."""
    return sent(describe(error))


# ---- The protocol's own


def test_the_protocols_types_are_these() -> None:
    assert set(PROTOCOL_TYPES) == {
        "InvalidMessage",
        "LineTooLong",
        "UnknownTask",
        "InvalidArguments",
        "Overloaded",
        "Draining",
        "Unauthenticated",
        "DeadlineExceeded",
        "Cancelled",
        "WorkerLost",
        "QueueError",
        "QueueFull",
        "InvalidResult",
    }


@pytest.mark.parametrize("cls", PROTOCOL_TYPES.values())
def test_a_refusal_comes_back_as_its_class(cls: type[CallError]) -> None:
    back = sent(refusal(cls("why, and what to do \xe9")))
    assert type(back) is cls
    assert str(back) == "why, and what to do \xe9"
    assert back.type == cls.__name__
    assert back.traceback is None


@pytest.mark.parametrize(
    ("cls", "started"), [(cls, cls in (WorkerLost, InvalidResult)) for cls in PROTOCOL_TYPES.values()]
)
def test_a_refusal_says_whether_the_task_ran(cls: type[CallError], started: bool) -> None:
    back = sent(refusal(cls("why")))
    assert isinstance(back, CallError)
    assert back.started is started


@pytest.mark.parametrize("cls", [DeadlineExceeded, Cancelled])
@pytest.mark.parametrize("started", [True, False])
def test_out_of_time_and_cancelled_say_whether_the_task_had_begun(cls: type[CallError], started: bool) -> None:
    described = refusal(cls("why", started=started))
    assert described == {"type": cls.__name__, "message": "why", "started": started}
    back = sent(described)
    assert type(back) is cls
    assert back.started is started


def test_what_nobody_knows_may_have_begun() -> None:
    """A client that is told "no" may send the call again."""
    error = DeadlineExceeded("no answer")
    error.started = None
    assert refusal(error)["started"] is True


def test_out_of_time_says_when() -> None:
    assert str(out_of_time(started=True)) == "the time ran out while the task ran"
    assert str(out_of_time(started=False)) == "the time ran out before the task started"
    assert out_of_time(started=True).started is True
    assert out_of_time(started=False).started is False


def test_a_traceback_travels_where_there_is_one() -> None:
    back = sent(refusal(WorkerLost("why", traceback="Traceback: here")))
    assert isinstance(back, WorkerLost)
    assert back.traceback == "Traceback: here"
    assert back.started is True


def test_a_message_that_is_not_utf8_travels_all_the_same() -> None:
    assert str(sent(refusal(UnknownTask("no \ud800")))) == "no ?"
    assert str(raised(ValueError("no \ud800"))) == "no ?"
    assert describe(ValueError(), traceback="in \udcff.py")["traceback"] == "in ?.py"


@pytest.mark.parametrize(
    ("cls", "also"),
    [
        (UnknownTask, LookupError),
        (InvalidArguments, TypeError),
        (DeadlineExceeded, TimeoutError),
        (ConnectionLost, ConnectionError),
        (ConfigurationError, ValueError),
        (LineTooLong, InvalidMessage),
    ],
)
def test_some_are_a_builtin_as_well(cls: type[Exception], also: type[Exception]) -> None:
    with pytest.raises(also, match="why"):
        raise cls("why")


# ---- A task's own


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such year"),
        ValueError(),
        TypeError("f() missing 1 required positional argument: 'a'"),
        RuntimeError("a\nb"),
        FileNotFoundError(2, "No such file or directory", "/x"),
        TimeoutError("the mail server"),
        ConnectionRefusedError("nobody there"),
        ZeroDivisionError("division by zero"),
        AssertionError(""),
        ImportError("no module"),
        AttributeError("no attribute"),
        UserWarning("careful"),
        Exception("plain"),
    ],
    ids=repr,
)
def test_a_builtin_comes_back_as_itself(error: Exception) -> None:
    back = raised(error)
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_a_key_error_comes_back_with_its_bare_key() -> None:
    back = raised(KeyError("customer"))
    assert type(back) is KeyError
    assert back.args == ("customer",)
    assert str(raised(KeyError(7))) == "'7'"
    assert raised(KeyError("a", "b")).args == ("('a', 'b')",)


@pytest.mark.parametrize(
    ("error", "type_name"),
    [
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "UnicodeDecodeError"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (BaseException("bare"), "BaseException"),
        (StopIteration(5), "StopIteration"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (re.error("bad pattern"), re.error.__name__),
        (ConnectionLost("no server"), "ConnectionLost"),
        (ConfigurationError("no address"), "ConfigurationError"),
    ],
    ids=repr,
)
def test_what_cannot_or_must_not_be_raised_here_comes_back_as_a_task_error(
    error: BaseException, type_name: str
) -> None:
    back = raised(error)
    assert isinstance(back, TaskError)
    assert type(back) is TaskError
    assert back.type == type_name
    assert back.args == (str(error),)
    assert back.started is True


@pytest.mark.parametrize("cls", EXCEPTIONS, ids=lambda cls: cls.__name__)
def test_every_builtin_comes_back_as_itself_or_as_a_task_error(cls: type[Exception]) -> None:
    back = sent({"type": cls.__name__, "message": "why"})
    if type(back) is TaskError:
        assert back.type == cls.__name__
        assert str(back) == f"{cls.__name__}: why"
    else:
        assert type(back) is cls
        assert back.args == ("why",)


@pytest.mark.parametrize("name", ["print", "int", "__import__", "__name__", "None", "", "no such", "a.ValueError"])
def test_other_builtins_are_no_exceptions(name: str) -> None:
    back = sent({"type": name, "message": "why"})
    assert type(back) is TaskError
    assert back.type == name


@pytest.mark.parametrize("cls", [*PROTOCOL_TYPES.values(), TimeLimit, CancelRequest, CallError, Interrupt])
def test_a_protocol_error_that_a_task_raises_does_not_come_back_as_this_calls(cls: type[BaseException]) -> None:
    """Else its caller would believe that the task did not run, and might send the call again."""
    back = raised(cls("of another call"))
    assert type(back) is TaskError
    assert back.type == f"greentask.{cls.__name__}"
    assert back.args == ("of another call",)
    assert back.started is True


@pytest.mark.parametrize("name", PROTOCOL_TYPES)
def test_somebody_elses_class_of_such_a_name_does_not_either(name: str) -> None:
    theirs = type(name, (Exception,), {"__module__": "google.api_core.exceptions"})
    back = raised(theirs("of theirs"))
    assert type(back) is TaskError
    assert back.type == f"google.api_core.exceptions.{name}"
    assert back.started is True


def test_a_task_error_of_such_a_type_does_not_either() -> None:
    back = raised(TaskError("of theirs", type="Overloaded"))
    assert type(back) is TaskError
    assert back.args == ("of theirs",)


def test_an_error_goes_through_several_servers_as_it_is() -> None:
    once = raised(re.error("bad pattern"))
    twice = raised(once)
    assert isinstance(once, TaskError)
    assert isinstance(twice, TaskError)
    assert (twice.type, twice.args) == (once.type, once.args) == (re.error.__name__, ("bad pattern",))
    assert raised(raised(Overloaded("there"))).args == ("there",)
    again = raised(raised(Overloaded("there")))
    assert isinstance(again, TaskError)
    assert again.type == "greentask.Overloaded"


def test_an_error_that_cannot_be_shown_is_still_told() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    back = raised(Mute())
    assert isinstance(back, TaskError)
    assert str(back) == "Mute: <its message can't be shown: RuntimeError>"


def test_a_remote_traceback_is_the_cause() -> None:
    back = sent(describe(ValueError("no"), traceback="Traceback: there"))
    assert type(back) is ValueError
    assert isinstance(back.__cause__, TaskError)
    assert str(back.__cause__) == "Remote traceback of ValueError: Traceback: there"
    other = sent(describe(re.error("no"), traceback="Traceback: there"))
    assert isinstance(other, TaskError)
    assert other.traceback == "Traceback: there"
    assert raised(ValueError("no")).__cause__ is None


def test_a_task_error_shows_its_type() -> None:
    assert str(TaskError("why", type="SMTPError")) == "SMTPError: why"
    assert str(TaskError(type="SMTPError")) == "SMTPError"
    assert str(TaskError("why")) == "TaskError: why"


# ---- Whatever a server says


@given(
    st.dictionaries(
        st.sampled_from(["type", "message", "started", "traceback", "more"]),
        values | st.booleans() | st.sampled_from([*PROTOCOL_TYPES, *(cls.__name__ for cls in EXCEPTIONS)]),
    )
)
def test_any_error_object_makes_an_exception(described: dict[str, Any]) -> None:
    error = from_wire(described)
    assert isinstance(error, Exception)
    assert not isinstance(error, (StopIteration, StopAsyncIteration))
    if isinstance(error, CallError):
        assert error.started in (True, False)
        assert error.traceback is None or isinstance(error.traceback, str)


def test_an_empty_error_object_is_a_task_error() -> None:
    back = from_wire({})
    assert type(back) is TaskError
    assert str(back) == "TaskError"


# ---- The classes


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([ │├└─]*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            drawn[match[2]] = above[depth - 1] if depth else ""
    real = {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}
    assert {name: parent for name, parent in drawn.items() if name in real} == real


def test_all_classes_are_public_and_documented() -> None:
    assert {cls.__name__ for cls in CLASSES} <= set(errors.__all__)
    assert [cls for cls in CLASSES if not cls.__doc__] == []


def test_only_interrupts_slip_through_except_exception() -> None:
    assert {cls for cls in CLASSES if not issubclass(cls, Exception)} == {Interrupt, TimeLimit, CancelRequest}
    assert {cls for cls in CLASSES if not issubclass(cls, GreentaskError)} == {Interrupt, TimeLimit, CancelRequest}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(cls: type[BaseException]) -> None:
    """A ``ProcessPoolExecutor`` of the caller's own hands them on so."""
    error = cls("why")
    if isinstance(error, CallError):
        error.started = True
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_a_lost_connection_says_whether_the_call_was_sent() -> None:
    assert ConnectionLost("why").sent is False
    assert ConnectionLost("why", sent=True).sent is True
