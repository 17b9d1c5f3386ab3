"""What the processes of one group import, and those of the other needn't."""

import os
import sys
import time


def predict() -> dict[str, object]:
    return {"pid": os.getpid(), "modules": sorted(name for name in sys.modules if name.startswith("support."))}


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def plain_pid() -> int:
    return os.getpid()
