"""The one event loop of a task process: kept from call to call, so that what coroutines keep in it stays usable.

asyncio is imported for the first of them: it takes long, in each process of a server, and most servers have none.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..errors import Interrupt

if TYPE_CHECKING:
    import asyncio

__all__ = ["close_loop", "run_coroutine"]

_loop: asyncio.AbstractEventLoop | None = None


def run_coroutine(coroutine: Any) -> Any:
    """Run it to its end. For the main thread of a process without greenlets."""
    import asyncio

    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
    running = _loop.create_task(coroutine)
    interrupts: list[Interrupt] = []

    def caught(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The loop goes on after an interrupt that hit one of its callbacks: the coroutine must hear of it.
        if "handle" in context and isinstance(context.get("exception"), Interrupt):
            interrupts.append(context["exception"])
            running.cancel()
        else:
            loop.default_exception_handler(context)

    _loop.set_exception_handler(caught)
    try:
        return _loop.run_until_complete(running)
    except asyncio.CancelledError:
        if interrupts:
            raise interrupts[0] from None
        raise
    except BaseException:
        # Interrupted in the loop itself, it would go on with the next call's turn.
        if not running.done():
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                _loop.run_until_complete(running)
        elif not running.cancelled():
            running.exception()  # a SystemExit of the coroutine's own: asyncio would say that nobody had heard of it
        raise


def close_loop() -> None:
    """Close the loop, where coroutines have run in a program that goes on without them."""
    global _loop
    if _loop is not None:
        _loop.close()
        _loop = None
