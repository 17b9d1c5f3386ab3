"""PHP programs: the caller of the protocol's document, callers of a `TextServer`, and the worker of its document."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from greentask import TextConnection
from support.parts import require
from support.programs import ROOT
from support.servers import serving
from support.text_servers import listening, wait_until

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True)
def php() -> None:
    require(shutil.which("php"), "no PHP here (on Debian: apt-get install php-cli)")


def block(document: str) -> str:
    found = re.search(r"^```php\n(.*?)^```", (ROOT / "docs" / document).read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1]


def test_the_caller_of_the_protocol_document() -> None:
    source = block("protocol.md").replace("send_mail", "echo").replace("['from'", "['value' => ['from'")
    source = source.replace("=> 'hi']]", "=> 'tâche']]]")
    with serving() as server:
        source = source.replace("12345", str(server.port)) + "echo json_encode($answer);"
        done = subprocess.run(["php", "-r", source], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"result": {"from": "a@x", "to": "b@y", "contents": "tâche"}}, done


def test_a_caller_that_sends_many_lines_and_hangs_up_gets_every_answer() -> None:
    source = """
        $server = stream_socket_client('tcp://127.0.0.1:' . $argv[1]);
        for ($i = 0; $i < 1000; $i++) { fwrite($server, "line $i\\r\\n"); }
        stream_socket_shutdown($server, STREAM_SHUT_WR);
        echo stream_get_contents($server);
    """

    def answer(connection: TextConnection, line: str) -> None:
        connection.send(f"[{line}]")

    with listening(answer) as server:
        command = ["php", "-r", source, "--", str(server.addresses[0].port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as caller:
            wait_until(lambda: caller.poll() is not None, "it has ended")
            assert caller.stdout is not None
            heard = caller.stdout.read().splitlines()
    assert heard == [f"[line {number}]" for number in range(1000)]


def test_the_worker_of_the_text_server_document_is_php(tmp_path: Path) -> None:
    (tmp_path / "worker.php").write_text("<?php\n" + block("textserver.md"), encoding="utf-8")
    done = subprocess.run(["php", "-l", "worker.php"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
