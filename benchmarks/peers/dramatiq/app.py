"""The broker and its actors; workers load ``app``."""

from __future__ import annotations

import os

import dramatiq
import redis
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

# Each greenlet holds a connection, and a wait for a result may be long: redis-py's own limits are 100
# connections and five seconds.
client = redis.Redis(
    connection_pool=redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=os.environ["BENCH_REDIS_SOCKET"],
        max_connections=2000,
        socket_timeout=None,
    )
)
broker = RedisBroker(client=client)
broker.add_middleware(Results(backend=RedisBackend(client=client)))
dramatiq.set_broker(broker)

TASKS = {
    function.__name__: dramatiq.actor(function, store_results=True)
    for function in (work.noop, work.nap, work.echo)
}
