"""What the API and the worker agree on: where things are, and the queue between them."""
import os

import orjson
from celery import Celery
from kombu.serialization import register

DATABASE_URL = os.environ["DATABASE_URL"]
REDIS_URL = os.environ["REDIS_URL"]
SQL_CONNECTIONS = 16
ATTEMPTS = 3

register("orjson", orjson.dumps, orjson.loads, content_type="application/x-orjson", content_encoding="binary")

queue = Celery("peers", broker=REDIS_URL)
queue.conf.update(
    task_default_queue="tasks",
    task_serializer="orjson",
    accept_content=["orjson"],
    # No result backend and no monitoring: the row in Postgres is the result.
    task_ignore_result=True,
    task_send_sent_event=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    # A message is acknowledged when its task is over, so that a worker's death does not lose it.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_transport_options={
        # After this long without an acknowledgement Redis' message is given out again: it must exceed the longest task.
        "visibility_timeout": 3600,
        # One priority: otherwise every poll asks for four lists.
        "priority_steps": [0],
    },
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=4,
    worker_disable_rate_limits=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)
