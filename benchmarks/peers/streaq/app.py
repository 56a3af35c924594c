"""streaQ's worker and tasks, the same module for the client and the worker."""

import os

import work
from streaq import Worker

CONNECTIONS = 160
RESULT_SECONDS = 600
NAMES = ("noop", "async_noop", "nap", "async_nap", "echo", "async_echo")

worker = Worker(
    redis_url=f"unix://{os.environ['BENCH_REDIS_SOCKET']}",
    redis_kwargs={"max_connections": CONNECTIONS},
    queue_name="bench",
    concurrency=int(os.environ["BENCH_CONCURRENCY"]),
    anyio_kwargs={"use_uvloop": True},
)
TASKS = {name: worker.task(name=name, ttl=RESULT_SECONDS, silent=True)(getattr(work, name)) for name in NAMES}
