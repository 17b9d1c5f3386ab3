"""The watchdog of the loop, where its log is in use."""

from pathlib import Path

from support.programs import run_source

HELD_WHILE_LOGGING = """if True:
    import logging, sys
    import gevent
    from gevent.monkey import get_original
    from greentask.server.watchdog import Watchdog

    handler = logging.StreamHandler(sys.stderr)
    handler.emit = lambda record: None
    logging.getLogger().addHandler(handler)
    sleep = get_original("time", "sleep")

    def wait_until(condition):
        with gevent.Timeout(20):
            while not condition():
                gevent.sleep(0.005)

    watchdog = Watchdog(0.1)
    watchdog.start()
    for number in range(2):
        wait_until(lambda: watchdog._asked_at and watchdog._answered)  # it watches
        handler.acquire()
        while watchdog.held == number:
            sleep(0.01)  # which holds the loop, and the log is in use when it goes on
        held_at = watchdog._asked_at
        gevent.sleep(0.2)
        handler.release()
        wait_until(lambda: watchdog._asked_at > held_at)  # it goes on
        print(watchdog.held)
    watchdog.stop()
"""


def test_it_goes_on_where_the_log_was_in_use() -> None:
    assert run_source(HELD_WHILE_LOGGING, patched=True) == ["1", "2"]


LOGGED_IN_THE_LOOP = """if True:
    import logging, sys
    import gevent
    from gevent.monkey import get_original
    from greentask.master.logs import configure_logging

    configure_logging(debug=True, file=sys.argv[1])
    (handler,) = logging.getLogger().handlers
    in_use = []

    def use():  # as the watchdog's thread does, while it writes
        with handler.lock:
            in_use.append(True)
            get_original("time", "sleep")(0.3)

    get_original("_thread", "start_new_thread")(use, ())
    while not in_use:
        gevent.sleep(0.01)
    gevent.get_hub().loop.run_callback(logging.getLogger("here").warning, "from the loop")
    gevent.sleep(0.01)
    with open(sys.argv[1]) as log:
        print(log.read().count("from the loop"))
"""


def test_what_is_logged_in_the_loop_waits_for_its_thread(tmp_path: Path) -> None:
    assert run_source(LOGGED_IN_THE_LOOP, str(tmp_path / "log"), patched=True) == ["1"]
