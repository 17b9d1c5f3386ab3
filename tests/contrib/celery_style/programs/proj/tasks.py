from celery import shared_task
from celery.utils.log import get_task_logger

from .celery import app

logger = get_task_logger(__name__)


@app.task
def add(x, y):
    logger.info("adding %s and %s", x, y)
    return x + y


@app.task
def mul(x, y):
    return x * y


@app.task
def xsum(numbers):
    return sum(numbers)


@shared_task(bind=True, name="tell")
def tell(self, *args, **kwargs):
    request = self.request
    return [request.id, self.name, request.retries, list(args), kwargs, request.called_directly, request.is_eager]
