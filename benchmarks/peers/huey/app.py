"""The Huey instance and its tasks; the consumer loads ``app.huey``."""

from __future__ import annotations

import os

import work
from huey import RedisHuey
from redis import ConnectionPool, UnixDomainSocketConnection

# Each thread holds one: redis-py's own limit is 100.
CONNECTIONS = 2000

huey = RedisHuey(
    "bench",
    blocking=True,
    notify_result=True,
    connection_pool=ConnectionPool(
        connection_class=UnixDomainSocketConnection,
        path=os.environ["BENCH_REDIS_SOCKET"],
        max_connections=CONNECTIONS,
    ),
)

TASKS = {function.__name__: huey.task()(function) for function in (work.noop, work.nap, work.echo)}
