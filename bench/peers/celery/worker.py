"""The worker: mark the row, call the upstream, keep its answer, tell who listens."""
import os
import ssl
import threading

import httpx
import orjson
import redis
from celery.signals import worker_process_init, worker_ready, worker_shutdown
from psycopg_pool import ConnectionPool

from common import ATTEMPTS, DATABASE_URL, REDIS_URL, SQL_CONNECTIONS, queue

UPSTREAM_URL = os.environ["UPSTREAM_URL"]
PREFORK = os.environ.get("POOL", "threads") == "prefork"

START = "update tasks set state = 'in_progress', attempts = attempts + 1, started_at = now() where id = %s"
COMPLETE = "update tasks set state = 'completed', result = %s, finished_at = now() where id = %s"
FAIL = "update tasks set state = 'failed', error = %s, finished_at = now() where id = %s"

tls = ssl.create_default_context()
local = threading.local()


def connect(*_, **__):
    """Once in each process that runs tasks: connections do not survive a fork."""
    global database, events
    database = ConnectionPool(
        DATABASE_URL,
        min_size=1 if PREFORK else SQL_CONNECTIONS,
        max_size=1 if PREFORK else SQL_CONNECTIONS,
        kwargs={"autocommit": True, "prepare_threshold": 0},
    )
    database.wait()
    events = redis.Redis.from_url(REDIS_URL)


def upstream() -> httpx.Client:
    """A client for every thread: threads that share one queue up at the lock of its connection pool."""
    if not hasattr(local, "client"):
        local.client = httpx.Client(verify=tls, timeout=600)
    return local.client


def execute(statement: str, *values):
    with database.connection() as connection:
        connection.execute(statement, values)


def publish(key: str, state: str):
    events.publish("tasks", orjson.dumps({"id": key, "state": state}))


@queue.task(name="infer", bind=True, max_retries=ATTEMPTS - 1)
def infer(self, key: str, request: dict):
    execute(START, key)
    try:
        response = upstream().post(
            UPSTREAM_URL, content=orjson.dumps(request), headers={"content-type": "application/json"}
        )
        response.raise_for_status()
    except httpx.HTTPError as error:
        if self.request.retries < self.max_retries:
            raise self.retry(exc=error, countdown=2**self.request.retries)
        execute(FAIL, str(error), key)
        publish(key, "failed")
        return
    execute(COMPLETE, response.text, key)
    publish(key, "completed")


@worker_ready.connect
def ready(**_):
    if not PREFORK:
        connect()
    print("ready", flush=True)


@worker_shutdown.connect
def shutdown(**_):
    if not PREFORK:
        database.close()


worker_process_init.connect(connect)
