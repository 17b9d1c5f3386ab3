"""Members of tasks, results, signatures and requests that Celery has and greentask has not: refused by name."""

from __future__ import annotations

from typing import NoReturn

from .exceptions import NotCarriedOver

__all__ = ["refuse_member"]

_ERRORS = "an error comes to who asks for the result: catch it from get()"
_HOOK = "use greentask.Middleware, whose hooks run around every task"
_INSIDE = "it is of Celery's own workings"
_LINKS = "say what follows with a chain, or a chord: group | task"
_NO_BACKEND = "there is no result backend to ask: results are with the server"
_NO_MESSAGE = "there is no broker, and so no message; pass what the task needs to know as an argument"
_OPTION = "it is an option of the task's declaration; a task here doesn't read it"
_SIGNATURE = "a signature here is an object, and no dict: make it where it is sent"
_STAMPS = "pass what the task needs to know as an argument"
_WHOLE = "keep the AsyncResult, or its id"


def _all(names: str, remedy: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), remedy)


_SIGNATURES = {
    **_all("on_error link_error", _ERRORS),
    **_all("link append_to_list_option extend_list_option flatten_links", _LINKS),
    **_all("stamp stamp_links", _STAMPS),
    **_all("freeze id parent_id root_id replace election AsyncResult", _WHOLE),
    **_all("TYPES from_dict register_type reprcall subtask_type type name partial", _SIGNATURE),
    **_all("set set_immutable immutable options args kwargs", "give it to its tasks, with .set(…) or .si(…)"),
    **_all("apply_chunks", "call it, or apply_async()"),
    **_all("prepare_steps run unchain_tasks app task tasks body skew", _INSIDE),
}

_MEMBERS = {
    "signature": _SIGNATURES,
    "task": {
        **_all("after_return before_start on_failure on_replace on_retry on_success add_around annotate", _HOOK),
        **_all("on_bound bind abstract from_config Request Strategy start_strategy request_stack", _INSIDE),
        **_all("push_request pop_request add_trail shadow_name resultrepr_maxsize retry_on_worker_lost", _INSIDE),
        **_all("acks_late acks_on_failure acks_on_failure_or_timeout acks_on_timeout expires ignore_result", _OPTION),
        **_all("rate_limit reject_on_worker_lost serializer soft_time_limit store_errors_even_if_ignored", _OPTION),
        **_all("throws time_limit track_started trail typing send_events", _OPTION),
        **_all("replace add_to_chord", "send a chain instead, whose tasks follow one another"),
        **_all("send_event", "use self.update_state(…)"),
        **_all("signature_from_request subtask_from_request", "raise self.retry(…), or send the task anew"),
        **_all("backend", _NO_BACKEND),
    },
    "request": {
        **_all("callbacks chain chord errbacks group group_index parent_id root_id children", _NO_MESSAGE),
        **_all("delivery_info headers origin properties reply_to shadow stamped_headers stamps eta", _NO_MESSAGE),
        **_all("time_limit soft_time_limit timelimit", "use greentask.current().remaining()"),
        **_all("as_execution_options clear get update ignore_result logfile loglevel utc", _INSIDE),
        **_all("replaced_task_nesting taskset", _INSIDE),
    },
    "result": {
        **_all("backend exists supports_native_join iter_native save delete as_list as_tuple", _NO_BACKEND),
        **_all("build_graph graph", "look at parent, children and collect()"),
        **_all("then", "wait in a thread, or send a chain, whose tasks follow one another"),
        **_all("maybe_throw maybe_reraise throw", "call get(), which raises the error"),
        **_all("date_done queue retries worker args kwargs", "`greentask queue show ID` tells it"),
        **_all("ignored get_leaf", _INSIDE),
        **_all("app", "import the application from your module"),
        **_all("revoke_by_stamped_headers", "revoke() each result"),
        **_all("add clear discard remove update", "results is a list: make a group() of what is to be sent"),
    },
}


def refuse_member(kind: str, name: str, whose: object) -> NoReturn:
    """Raise the error for a member that Celery's have; ``AttributeError`` where they have none of that name either."""
    what = type(whose).__name__
    if name in _MEMBERS[kind]:
        raise NotCarriedOver(f"{what}.{name} is not carried over from Celery: {_MEMBERS[kind][name]}")
    raise AttributeError(f"{what!r} object has no attribute {name!r}")
