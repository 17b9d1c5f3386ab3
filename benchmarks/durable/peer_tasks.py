"""The same task as the others have it, all on the Redis that ``BENCHMARK_REDIS`` names: in database 0, results in 1."""

import os
from typing import Any

import dramatiq
from celery import Celery
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from huey import RedisHuey

REDIS = os.environ["BENCHMARK_REDIS"]
HOST, _, PORT = REDIS.rpartition(":")

# ---- Celery

celery = Celery("benchmark", broker=f"redis://{REDIS}/0", backend=f"redis://{REDIS}/1")
celery.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=64)


@celery.task(name="mail")
def celery_mail(**args: str) -> dict[str, str]:
    return args


# ---- Dramatiq

broker = RedisBroker(host=HOST, port=int(PORT), db=0)
broker.add_middleware(Results(backend=RedisBackend(host=HOST, port=int(PORT), db=1), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="mail")
def dramatiq_mail(**args: str) -> dict[str, str]:
    return args


# ---- Huey

huey = RedisHuey("benchmark", host=HOST, port=int(PORT), db=0)


@huey.task(name="mail")
def huey_mail(**args: str) -> dict[str, str]:
    return args


# ---- RQ


def rq_mail(**args: Any) -> Any:
    return args
