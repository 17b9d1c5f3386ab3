"""`python -m benchmarks NAME`."""

import importlib
import sys

NAMES = ("pings", "pool")


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m benchmarks {'|'.join(NAMES)}")
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main()


if __name__ == "__main__":
    main()
