"""The names by which another process finds a function."""

import os.path
from collections import OrderedDict

import pytest

from greentask.tasks.importing import find_target


def test_a_target_is_found_by_its_path() -> None:
    assert find_target("os.path:join") is os.path.join
    assert find_target("collections:OrderedDict.fromkeys") == OrderedDict.fromkeys
    with pytest.raises(ModuleNotFoundError):
        find_target("no_such_module:x")
    with pytest.raises(AttributeError):
        find_target("os:no_such_thing")
