"""A signal at a chosen moment: for each at which Python looks for signals, one after the other."""

import dis
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

from greenlet import getcurrent, greenlet

__all__ = ["at_each_moment"]

#: After these instructions: at a function's begin, when a call has returned, and where a loop goes round.
_LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "POP_JUMP_BACKWARD")


def ctrl_c() -> None:
    raise KeyboardInterrupt


def at_each_moment(
    *modules: ModuleType, handler: Callable[[], object] = ctrl_c
) -> Iterator[Callable[[Callable[[], object]], None]]:
    """For each moment in the code of these modules, a way of running a function which has a signal at that moment.

    Its handler is a Ctrl-C's unless another one is named.
    It ends where a function has come to its own end, in which there was no such moment any more.
    """
    files = {module.__file__ for module in modules}
    moment = 0
    has_come = True
    while has_come:
        has_come = False
        moment += 1

        def run(function: Callable[[], object], moment: int = moment) -> None:
            nonlocal has_come
            left = moment
            last: dict[FrameType, str] = {}

            def trace(frame: FrameType, event: str, _: Any) -> Any:
                nonlocal has_come, left
                if frame.f_code.co_filename not in files or getcurrent() is not own:  # others may run in its midst
                    return None
                frame.f_trace_opcodes = True
                if event == "call":
                    last[frame] = "RESUME"  # which has no event of its own
                elif event == "opcode":
                    if last.get(frame, "").startswith(_LOOKS):
                        left -= 1
                        if not left:
                            has_come = True
                            handler()
                    last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
                return trace

            def traced() -> None:
                before = sys.gettrace()
                sys._getframe().f_trace_opcodes = True  # Python 3.12 heeds its first at the next settrace
                sys.settrace(trace)
                try:
                    function()
                except KeyboardInterrupt:
                    pass
                finally:
                    sys.settrace(before)
                    last.clear()

            own = greenlet(traced)
            own.switch()  # what Python 3.11 loses of an exception that a trace raises ends with it

        yield run
