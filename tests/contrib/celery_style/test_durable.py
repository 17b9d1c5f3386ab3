"""What Celery's names refuse, greentask's own have: the same tasks, enqueued."""

from pathlib import Path

from greentask import Client
from support import celery_tasks as tasks
from support.servers import serving


def test_a_task_in_celery_s_style_is_enqueued_with_a_delay_and_tried_again(tmp_path: Path) -> None:
    queue = ("--queue", str(tmp_path / "tasks.db"))
    with serving(*queue, apps=["support.celery_tasks"], processes=1) as server, Client(server.address) as client:
        assert tasks.add.using(client, delay=0.05).enqueue(1, y=2).result(timeout=20) == 3
        receipt = tasks.seen.using(client).enqueue(5)
        seen = receipt.result(timeout=20)
        assert (seen["id"], seen["args"]) == (receipt.id, [5])
        assert tasks.at_last.using(client).enqueue().result(timeout=20) == 3
