"""The tasks that are enqueued."""

from greentask import task


@task(process=True)
def mail(**args: str) -> dict[str, str]:
    return args


@task
def mail_in_greenlet(**args: str) -> dict[str, str]:
    return args
