"""What of Celery isn't carried over, by name, each with its remedy."""

from __future__ import annotations

from typing import NoReturn

from .exceptions import NotCarriedOver, needs_queue

__all__ = ["is_setting", "refuse_app_member", "refuse_import", "refuse_module", "refuse_option", "refuse_setting"]


class _Queue(str):
    """A remedy for what needs a queue on disk."""

    __slots__ = ()


_GROUPS = "greentask has no named queues; give the task processes of its own (process='NAME', and --group NAME=N)"
_PRIORITY = (
    "calls run in the order in which they come: send it by task.using(priority=…).enqueue(…), "
    "or give urgent tasks processes of their own (process='NAME')"
)
_HOOK = "use greentask.Middleware, whose hooks run around every task"
_INSIDE = "it is of Celery's own workings"
_NEVER = "nothing raises it here, so there is nothing to catch"
_NO_MESSAGE = "there is no broker, and so no message"
_HIDDEN = "start the server with --hide-arguments"
_JSON = "what is sent is always JSON"
_CRON = _Queue("and say when in @app.task(every=…), which is greentask's: seconds, or a cron expression")
_LATE = _Queue("and leave this out in any case: tasks in a queue are acknowledged late")
_CLI = "use `greentask status`, `greentask top` and `greentask dump`"
_CLASSES = "declare a function with @app.task, and bind=True where it wants itself"

#: Options of ``task()``.
_TASK_OPTIONS = {
    "acks_late": _LATE,
    "acks_on_failure_or_timeout": _LATE,
    "reject_on_worker_lost": _LATE,
    "expires": "give it with each call: apply_async(expires=…)",
    "rate_limit": "say @app.task(rate=…), which is greentask's: over all servers, for tasks in a queue",
    "soft_time_limit": "use time_limit=, at which greentask.TimeLimit is raised inside the task; a task that goes on "
    "is killed a grace (--grace) later",
    "queue": _GROUPS,
    "routing_key": _GROUPS,
    "exchange": _GROUPS,
    "priority": _PRIORITY,
    "base": _CLASSES,
    "on_failure": _HOOK,
    "on_success": _HOOK,
    "on_retry": _HOOK,
    "after_return": _HOOK,
    "before_start": _HOOK,
    **dict.fromkeys(
        ("pydantic", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs"),
        "check the arguments in the task: Model.model_validate(arguments)",
    ),
    **dict.fromkeys(("acks_on_failure", "acks_on_timeout", "retry_on_worker_lost"), _LATE),
    **dict.fromkeys(("abstract", "Request", "Strategy"), _CLASSES),
    **dict.fromkeys(("lazy", "filter", "strict_typing", "resultrepr_maxsize"), _INSIDE),
    "serializer": _JSON,
    "compression": _JSON,
}

#: Options of ``apply_async()`` and of a signature.
_CALL_OPTIONS = {
    "link_error": "an error comes to who asks for the result: catch it from get()",
    "time_limit": "give the limit where the task is declared: task(time_limit=…)",
    "soft_time_limit": "give the limit where the task is declared: task(time_limit=…)",
    "queue": _GROUPS,
    "routing_key": _GROUPS,
    "exchange": _GROUPS,
    "priority": _PRIORITY,
    "headers": "pass it as an argument",
    "argsrepr": _HIDDEN,
    "kwargsrepr": _HIDDEN,
    **dict.fromkeys(("root_id", "parent_id", "group_index", "chain", "task_type"), _INSIDE),
    **dict.fromkeys(("router", "route_name", "replaced_task_nesting", "result_cls"), _INSIDE),
    **dict.fromkeys(("stamped_headers", "delivery_mode", "mandatory", "immediate"), _NO_MESSAGE),
    "shadow": "a task has one name: task(name=…)",
    "producer": "Client shares its connections by itself",
    "connection": "Client shares its connections by itself",
    "publisher": "Client shares its connections by itself",
    "reply_to": "the result comes to the program that asked",
    "serializer": _JSON,
    "compression": _JSON,
    "group_id": "use group()",
    "chord": "use chord()",
    "retries": "say how often a task is tried again where it is declared: task(max_retries=N)",
}

#: Settings (``app.conf``), by their beginning.
_SETTINGS = {
    "beat_": _CRON,
    "task_routes": _GROUPS,
    "task_queues": _GROUPS,
    "task_default_queue": _GROUPS,
    "task_default_exchange": _GROUPS,
    "task_default_routing_key": _GROUPS,
    "task_default_priority": _PRIORITY,
    "task_queue_max_priority": _PRIORITY,
    "task_create_missing_queues": _GROUPS,
    "task_annotations": "give the options where the task is declared",
    "task_default_rate_limit": "say it of each task: task(rate=…)",
    "task_time_limit": "give it where the task is declared: task(time_limit=…)",
    "task_soft_time_limit": "give it where the task is declared: task(time_limit=…)",
    "task_acks_": _LATE,
    "task_reject_on_worker_lost": _LATE,
    "task_publish_retry": "Client(gone_after=…, connect_timeout=…) and the call's own timeout bound how long it tries",
    "task_serializer": _JSON,
    "result_serializer": _JSON,
    "accept_content": _JSON,
    "event_serializer": _JSON,
    "task_compression": _JSON,
    "result_compression": _JSON,
    "result_extended": "log calls with `greentask serve --log-calls`",
    "worker_": "say it to the server, `greentask serve --help` (--processes, --max-tasks, --max-memory …)",
    "broker_": "say it to the client: Celery(client=greentask.Client(address, …))",
    "security_": "use tls:// addresses and --secret-file",
}

#: Members of the application object.
_APP = {
    "control": "a result is revoked by result.revoke(); otherwise " + _CLI,
    "events": _CLI,
    "log": "use logging, and the flags of `greentask serve` (--log-file, --log-format)",
    "amqp": "there is no broker",
    "pool": "Client shares its connections by itself",
    "connection": "Client shares its connections by itself",
    "connection_or_acquire": "Client shares its connections by itself",
    "backend": "there is no result backend: results come to the program that asked",
    "loader": "serve the modules that have tasks: `greentask serve MODULE…`",
    "steps": "use greentask.Middleware",
    "user_options": "use flags of `greentask serve`",
    "on_configure": _HOOK,
    "on_after_configure": _CRON,
    "on_after_finalize": _CRON,
    "add_periodic_task": _CRON,
    "register_task": _CLASSES,
    "Task": _CLASSES,
    "start": "run `greentask serve MODULE`",
    "worker_main": "run `greentask serve MODULE`",
    "Worker": "run `greentask serve MODULE`, or use greentask.Server",
    "Beat": _CRON,
    "ResultSet": "use group(), whose GroupResult has the same methods",
    "current_task": "declare the task with bind=True, and use self",
    "current_worker_task": "declare the task with bind=True, and use self",
    "config_from_envvar": "app.config_from_object(os.environ[NAME])",
    "config_from_cmdline": "use app.conf, and the flags of `greentask serve`",
    "gen_task_name": "name the task: task(name=…)",
    "now": "use datetime.now(timezone.utc)",
    "timezone": "use datetime.now(timezone.utc)",
    "setup_security": "use tls:// addresses and --secret-file",
    "bugreport": "run `greentask --version`",
    "close": "the client's connections are closed at the program's end",
    "WorkController": "run `greentask serve MODULE`, or use greentask.Server",
    **dict.fromkeys(
        (
            *("IS_WINDOWS", "IS_macOS", "SYSTEM", "Pickler", "add_defaults", "amqp_cls", "annotations"),
            *("autofinalize", "backend_cls", "builtin_fixups", "clock", "configured", "control_cls"),
            *("create_task_cls", "either", "events_cls", "finalize", "finalized", "fixups", "loader_cls", "log_cls"),
            *("namespace", "oid", "on_after_fork", "on_init", "prepare_config", "registry_cls", "set_as_current"),
            *("set_default", "strict_typing", "subclass_with_self", "task_cls", "thread_oid", "type_checker"),
            *("use_fast_trace_task", "uses_utc_timezone", "select_queues"),
        ),
        _INSIDE,
    ),
    **dict.fromkeys(
        (
            *("broker_connection", "connection_for_read", "connection_for_write", "default_connection"),
            *("default_producer", "producer_or_acquire", "producer_pool"),
        ),
        "Client shares its connections by itself",
    ),
    "GroupResult": "keep the GroupResult that apply_async gave, or the ids of its results",
}

#: Names that programs import from celery and its modules.
_IMPORTS = {
    "Task": _CLASSES,
    "current_app": "import the application from your module",
    "current_task": "declare the task with bind=True, and use self",
    "chunks": "use the task's own: add.chunks(items, n)",
    "xmap": "use the task's own: add.map(items)",
    "xstarmap": "use the task's own: add.starmap(items)",
    "signals": _HOOK,
    "schedules": _CRON,
    "beat": _CRON,
    "bootsteps": _HOOK,
    "contrib": "use greentask.testing in tests; a task that runs is ended by result.revoke(terminate=True)",
    "worker": "run `greentask serve MODULE`",
    "ResultSet": "use group(), whose GroupResult has the same methods",
    "allow_join_result": "get() may be called in a task; leave it out",
    "SoftTimeLimitExceeded": "at the end of time_limit= greentask.TimeLimit is raised inside the task",
    "TimeLimitExceeded": "the caller of a task that was out of time gets greentask.DeadlineExceeded",
    "WorkerLostError": "it is greentask.WorkerLost",
    "Ignore": "return None",
    "Reject": "raise an error, and have it tried again: raise self.retry(…)",
    "NotRegistered": "it is greentask.UnknownTask",
    "OperationalError": "it is greentask.ConnectionLost",
    "CeleryError": "it is greentask.GreentaskError",
    "TaskError": "it is greentask.GreentaskError",
    "ImproperlyConfigured": "it is greentask.ConfigurationError",
    "InvalidTaskError": "it is greentask.InvalidMessage",
    "reraise": "raise the error",
    "bugreport": "run `greentask --version`",
    **dict.fromkeys(("VERSION", "VERSION_BANNER", "SERIES", "version_info", "version_info_t"), "greentask.__version__"),
    "maybe_patch_concurrency": "run `greentask serve`, which patches by itself",
    "local": _INSIDE,
    **dict.fromkeys(
        (
            *("AlreadyRegistered", "AlwaysEagerIgnored", "BackendError", "BackendGetMetaError", "BackendStoreError"),
            *("CDeprecationWarning", "CPendingDeprecationWarning", "CeleryCommandException", "CeleryWarning"),
            *("DuplicateNodenameWarning", "DuplicateTaskNameWarning", "FixupWarning", "NotConfigured"),
            *("QueueNotFound", "SecurityError", "SecurityWarning", "TaskPredicate", "Terminated"),
            *("WorkerShutdown", "WorkerTerminate"),
        ),
        _NEVER,
    ),
}


def _error(what: str, remedy: str) -> NotCarriedOver:
    if isinstance(remedy, _Queue):
        return needs_queue(what, remedy)
    return NotCarriedOver(f"{what} is not carried over from Celery: {remedy}")


def refuse_option(task: str, option: str, *, call: bool) -> NotCarriedOver:
    """The error for an option of ``task()``, or of a call of it."""
    where = f"{option}= in a call of task {task!r}" if call else f"{option}= of task {task!r}"
    remedy = (_CALL_OPTIONS if call else _TASK_OPTIONS).get(option)
    if remedy is None:
        return NotCarriedOver(f"{where} is an option that neither Celery nor greentask is known to have: leave it out")
    return _error(where, remedy)


def refuse_setting(name: str) -> NotCarriedOver:
    """The error for a setting of ``app.conf``."""
    for beginning, remedy in _SETTINGS.items():
        if name.startswith(beginning):
            return _error(f"the setting {name}", remedy)
    return NotCarriedOver(f"the setting {name} is not known here: leave it out")


def is_setting(name: str) -> bool:
    """Whether Celery is known to have a setting of that name, or of its kind, which greentask refuses."""
    return name.startswith(tuple(_SETTINGS))


def refuse_module(name: str) -> NoReturn:
    """Raise ``ImportError`` with the remedy for a module of Celery's: ``greentask.contrib.celery_style.NAME``."""
    own = name.rpartition(".")[2]
    raise ImportError(str(_error(f"celery.{own}", _IMPORTS[own])))


def refuse_app_member(name: str) -> NoReturn:
    """Raise the error for a member of the application; ``AttributeError`` where Celery has none of that name either."""
    if name in _APP:
        raise _error(f"app.{name}", _APP[name])
    raise AttributeError(f"a Celery application of greentask's has no {name!r}")


def refuse_import(module: str, what: str, name: str) -> NoReturn:
    """Raise ``ImportError`` with the remedy for a name of Celery's; ``AttributeError`` for any other."""
    if name in _IMPORTS:
        raise ImportError(str(_error(f"celery.{what}.{name}" if what else f"celery.{name}", _IMPORTS[name])))
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
