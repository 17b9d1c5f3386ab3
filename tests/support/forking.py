"""Forks of the test process itself."""

import os
import traceback
from collections.abc import Callable


def run_in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked child that runs it: 1 where it raised, and is told on stderr.

    Whatever happens, the child ends here: it would go on with the tests, and speak for its parent to pytest-xdist.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
