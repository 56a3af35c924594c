"""Taskiq's broker and tasks, the same module for the client and the worker."""

import os

import work
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

URL = f"unix://{os.environ['BENCH_REDIS_SOCKET']}"
RESULT_SECONDS = 600
# As many as the largest layout runs at a time, and one to listen on: redis-py's own limit is 100.
CONNECTIONS = 1001
NAMES = ("noop", "async_noop", "nap", "async_nap", "echo", "async_echo")

broker = RedisStreamBroker(URL, queue_name="bench", max_connection_pool_size=CONNECTIONS).with_result_backend(
    RedisAsyncResultBackend(URL, result_ex_time=RESULT_SECONDS, max_connection_pool_size=CONNECTIONS)
)
TASKS = {name: broker.register_task(getattr(work, name), task_name=name) for name in NAMES}
