"""Which process this is, whoever forked it."""

import pytest

from support.programs import run_source

FORKS = """
import ctypes, os
from greentask.hub import forks
libc = ctypes.CDLL(None)  # whose fork Python hears nothing of
if {is_old}:
    forks._page = None
def is_right():
    return [forks.current_pid() == os.getpid() for _ in range(2)] == [True, True]
def in_child(of):
    ours, childs = os.pipe()
    if not libc.fork():
        os.write(childs, repr([is_right(), *(in_child(of - 1) if of else [])]).encode())
        os._exit(0)
    os.close(childs)
    told = eval(os.read(ours, 1000))
    os.close(ours)
    return [*told, is_right()]
print(all([is_right(), *in_child(2)]), forks._page is None)
"""


@pytest.mark.parametrize("is_old", [False, True], ids=["a page that is wiped", "a kernel that wipes none"])
def test_after_a_fork_that_nobody_told_of(is_old: bool) -> None:
    assert run_source(FORKS.format(is_old=is_old)) == ["True", str(is_old)]
