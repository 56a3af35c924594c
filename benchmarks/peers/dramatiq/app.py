"""The broker and its actors; workers load ``app``."""

from __future__ import annotations

import os

import dramatiq
import redis
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

client = redis.Redis(unix_socket_path=os.environ["BENCH_REDIS_SOCKET"])
broker = RedisBroker(client=client)
broker.add_middleware(Results(backend=RedisBackend(client=client)))
dramatiq.set_broker(broker)

TASKS = {
    function.__name__: dramatiq.actor(function, store_results=True)
    for function in (work.noop, work.nap, work.echo)
}
