"""Runs a program against the real Celery, whose worker is in a thread of the same process.

python -m support.celery_worker MODULE PROGRAM.py
"""

import importlib
import logging
import runpy
import sys

from celery.contrib.testing.worker import start_worker


def main(module: str, program: str) -> None:
    app = importlib.import_module(module).app
    logging.disable(logging.CRITICAL)
    app.conf.broker_transport_options = {"polling_interval": 0.02}  # or it looks once a second
    # With more threads, the record of an attempt that is tried again may come after that of the next.
    concurrency = 1 if module == "tries" else 4
    with start_worker(app, pool="threads", concurrency=concurrency, perform_ping_check=False, shutdown_timeout=20):
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(0, "")
    main(*sys.argv[1:])
