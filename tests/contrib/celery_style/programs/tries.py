from celery import Celery

app = Celery("tries", broker="memory://", backend="cache+memory://")


class Busy(Exception):
    pass


@app.task
def add(x, y):
    return x + y


@app.task(bind=True, default_retry_delay=0.01)
def send_status(self, times):
    try:
        if self.request.retries < times:
            raise OSError(f"busy at attempt {self.request.retries}")
    except OSError as exc:
        raise self.retry(exc=exc)
    return self.request.retries


@app.task(bind=True, default_retry_delay=30 * 60)
def wait_a_little(self):
    if self.request.retries == 0:
        try:
            raise OSError("busy")
        except OSError as exc:
            raise self.retry(exc=exc, countdown=1.0)
    return [self.request.retries, self.max_retries]


@app.task(bind=True, max_retries=2)
def plainly(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(bind=True, max_retries=1)
def with_its_error(self):
    raise self.retry(exc=LookupError("nobody"), countdown=0)


@app.task(bind=True, max_retries=None)
def without_end(self, times):
    if self.request.retries < times:
        self.retry(countdown=0)
    return self.request.retries


@app.task(bind=True, max_retries=1)
def until_it_gives_up(self):
    try:
        self.retry(countdown=0)
    except self.MaxRetriesExceededError:
        return "gave up"


@app.task
def not_bound(user):
    try:
        raise OSError(f"busy with {user}")
    except OSError as exc:
        raise not_bound.retry(exc=exc, max_retries=1, countdown=0)


@app.task(bind=True, autoretry_for=(OSError, Busy), retry_kwargs={"max_retries": 2, "countdown": 0})
def by_itself(self, error, times):
    if self.request.retries < times:
        raise {"OSError": OSError, "Busy": Busy, "KeyError": KeyError}[error](f"attempt {self.request.retries}")
    return self.request.retries


@app.task(
    bind=True,
    autoretry_for=(Exception,),
    dont_autoretry_for=(ZeroDivisionError,),
    default_retry_delay=0,
    max_retries=5,
    throws=(ZeroDivisionError,),
)
def not_for_some(self, divisor):
    if self.request.retries == 0:
        raise ValueError("at first")
    return 1 / divisor
