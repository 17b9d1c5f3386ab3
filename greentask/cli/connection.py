"""What the commands that talk to a server share: the address, and what errors mean to a script."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..errors import (
    CallError,
    Cancelled,
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    InvalidResult,
    TaskError,
    WorkerLost,
    describe,
)
from ..wire.address import DEFAULT_ADDRESS
from .given import refuse_idle

if TYPE_CHECKING:
    from ..client import Client

__all__ = ["EXIT_CODES", "PROOFS", "Where", "connected", "server_options"]

#: The options, besides the server's address, that say how client and server prove themselves.
PROOFS = ("secret_file", "tls_ca", "tls_cert", "tls_key")

TASK_FAILED, NO_CONNECTION, NOT_RUN, OUT_OF_TIME, PROCESS_LOST = 1, 3, 4, 5, 6

EXIT_CODES = """\b
Exit codes:
  0  the task ran, and its result is on stdout
  1  the task raised an error
  2  wrong usage
  3  no connection, or it was lost
  4  refused, the task did not run (unknown, wrong arguments, not proven who calls, overloaded, draining)
  5  out of time, or cancelled
  6  the process that ran the task died
"""


@dataclass(frozen=True)
class Where:
    """The server, and how to prove oneself to it."""

    server: str
    secret_file: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


_TLS_OPTIONS = {  # the last one comes first in the help
    "key": "Its key.  [env: GREENTASK_TLS_KEY]",
    "cert": "Our own certificate, for a server that wants to see one.  [env: GREENTASK_TLS_CERT]",
    "ca": "The authority of a tls:// server's certificate.  [env: GREENTASK_TLS_CA]",
}


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--server`` and what goes with it, which the command gets as ``where``."""

    @functools.wraps(command)
    def collected(*args: Any, **options: Any) -> Any:
        where = Where(**{field.name: options.pop(field.name) for field in fields(Where)})
        if "tls://" not in where.server.lower():
            refuse_idle(PROOFS[1:], f"without a tls:// server, and {where.server} is none: --server tls://host:port")
        return command(*args, where=where, **options)

    for option in (
        *(
            click.option(f"--tls-{name}", envvar=f"GREENTASK_TLS_{name.upper()}", metavar="FILE", help=help)
            for name, help in _TLS_OPTIONS.items()
        ),
        click.option(
            "--secret-file",
            envvar="GREENTASK_SECRET_FILE",
            metavar="FILE",
            help="The secret to prove, in the file's first line.  [env: GREENTASK_SECRET_FILE]",
        ),
        click.option(
            "--server",
            "-s",
            envvar="GREENTASK_URL",
            default=DEFAULT_ADDRESS,
            show_default=True,
            help="Address of the server.  [env: GREENTASK_URL]",
        ),
    ):
        collected = option(collected)
    return collected


@contextmanager
def connected(where: Where, *, hint: str = "") -> Iterator[Client]:
    """A client; errors end the program with a line on stderr and the exit code that they mean.

    ``hint`` is what else would do where there is no connection.
    """
    from ..client import Client  # brings gevent, which half of the commands don't need

    try:
        with Client(
            where.server,
            secret_file=where.secret_file,
            tls_ca=where.tls_ca,
            tls_cert=where.tls_cert,
            tls_key=where.tls_key,
        ) as client:
            yield client
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    except ConnectionLost as error:
        _fail(NO_CONNECTION, f"ConnectionLost: {error}" + (f"; {hint}" if hint else ""))
    except (DeadlineExceeded, Cancelled) as error:
        _fail(OUT_OF_TIME, f"{error.type}: {error}")
    except WorkerLost as error:
        _fail(PROCESS_LOST, f"{error.type}: {error}")
    except (TaskError, InvalidResult) as error:
        _fail(TASK_FAILED, str(error) if isinstance(error, TaskError) else f"{error.type}: {error}", error)
    except CallError as error:
        _fail(NOT_RUN, f"{error.type}: {error}")
    except click.ClickException:
        raise
    except Exception as error:
        told = describe(error)
        _fail(TASK_FAILED, f"{told['type']}: {told['message']}", error.__cause__)


def _fail(code: int, message: str, cause: BaseException | None = None) -> NoReturn:
    traceback = getattr(cause, "traceback", None) or (cause.args[0] if isinstance(cause, TaskError) else None)
    if isinstance(traceback, str) and "Traceback" in traceback:
        click.echo(traceback.rstrip(), err=True)
    click.echo(f"greentask: {message}", err=True)
    sys.exit(code)
