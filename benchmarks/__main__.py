"""`python -m benchmarks NAME [PART...]`."""

import importlib
import sys

NAMES = ("client", "gunicorn", "pings", "pool", "queue", "server", "torture")
WITH_PARTS = ("queue", "server", "torture")


def main() -> None:
    name, *parts = sys.argv[1:] or [""]
    if name not in NAMES or (parts and name not in WITH_PARTS):
        sys.exit(
            f"usage: python -m benchmarks {'|'.join(NAMES)} [PART...]; {', '.join(WITH_PARTS)} have parts or options"
        )
    importlib.import_module(f"benchmarks.{name}").main(*parts)


if __name__ == "__main__":
    main()
