"""Options that would do nothing as they are given: each is refused, with what it needs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from greentask.cli import _group
from greentask.queue.byhand import QueueFile
from support.programs import run_source

_OF_QUEUES = {
    "--queue-greenlets": "5",
    "--queue-lease": "5",
    "--queue-memory": "5M",
    "--result-ttl": "1h",
    "--key-ttl": "1h",
    "--dead-limit": "5",
    "--keep-attempts": "5",
    "--max-lost-processes": "5",
    "--max-lost-fronts": "5",
    "--max-batch": "5",
    "--max-members": "5",
    "--max-taken": "5M",
}
_NO_FILE = "without the file of a unix socket to make: --listen unix:///absolute/path"
_ALL_UNIX = ["--listen", "unix:///tmp/greentask-nowhere/socket"]

_SERVING = """
import json, sys, click
from greentask.cli.serve import command
for arguments in json.loads(sys.argv[1]):
    try:
        command.main(["json:loads", *arguments], standalone_mode=False)
    except click.UsageError as error:
        print(json.dumps(error.format_message()).replace(" ", "\\\\u0020"))
"""


def test_what_a_server_would_not_heed_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    cases = [
        (["--socket-mode", "660"], f"--socket-mode does nothing {_NO_FILE}"),
        (["--socket-owner", "root", "-l", "127.0.0.1:0"], f"--socket-owner does nothing {_NO_FILE}"),
        (["--reload-dir", str(tmp_path)], "--reload-dir does nothing without --reload"),
        (["--max-failures", "5"], "--max-failures does nothing without a secret to prove: --secret-file FILE"),
        (
            ["--handshake-timeout", "5"],
            "--handshake-timeout does nothing without a secret to prove (--secret-file FILE), or a tls:// address",
        ),
        (
            [*_ALL_UNIX, "--allow", "10.0.0.0/8"],
            "--allow does nothing where all addresses are unix sockets: --socket-mode",
        ),
        (
            [*_ALL_UNIX, "--max-connections-per-address", "5"],
            "--max-connections-per-address does nothing where all addresses are unix sockets: --socket-mode",
        ),
        *(
            ([flag, value], f"{flag} does nothing without a queue for durable tasks: --queue FILE")
            for flag, value in _OF_QUEUES.items()
        ),
    ]
    told = run_source(_SERVING, json.dumps([arguments for arguments, _ in cases]))
    assert [json.loads(one) for one in told] == [message for _, message in cases]


def test_a_default_that_is_written_out_needs_what_others_need() -> None:
    (told,) = run_source(_SERVING, json.dumps([["--dead-limit", "10000"]]))
    assert "--dead-limit does nothing" in json.loads(told)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("stop --pid 1 --server 127.0.0.1:1", "--server does nothing with --pid,"),
        ("reload --pid 1 --pid-file {file}", "--pid-file does nothing with --pid,"),
        ("restart --pid-file {file} --secret-file x", "--secret-file does nothing with --pid-file,"),
        ("call add --tls-ca x", "--tls-ca does nothing without a tls:// server, and 127.0.0.1:12345 is none"),
        ("top --tls-key x -s unix:///x", "--tls-key does nothing without a tls:// server, and unix:///x is none"),
        ("enqueue add --queue {file} --timeout 3", "--timeout does nothing with --queue FILE"),
        ("enqueue add --queue {file} --secret-file x", "--secret-file does nothing with --queue FILE"),
        ("queue stats --queue {file} --secret-file x", "--secret-file does nothing with a file (--queue,"),
    ],
)
def test_what_a_command_would_not_heed_is_refused(arguments: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = CliRunner().invoke(_group, arguments.format(file=file).split())
    assert done.exit_code == 2
    assert f"Error: {said}" in done.output


def test_what_the_environment_has_for_all_commands_is_not_refused(tmp_path: Path) -> None:
    QueueFile(tmp_path / "tasks.db", make=True).close()
    variables = {"GREENTASK_SECRET_FILE": "x", "GREENTASK_TLS_CA": "y", "GREENTASK_URL": "127.0.0.1:1"}
    done = CliRunner().invoke(_group, ["queue", "stats", "--queue", str(tmp_path / "tasks.db")], env=variables)
    assert done.exit_code == 0, done.output
