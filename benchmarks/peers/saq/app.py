"""SAQ's queue and tasks, the same module for the client and the worker."""

import asyncio
import os

import uvloop
import work
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

ASYNC_NAMES = ("async_noop", "async_nap", "async_echo")
SYNC_NAMES = ("noop", "nap", "echo")


def async_task(function):
    async def run(ctx, *, value):
        return await function(value)

    return run


def sync_task(function):
    def run(ctx, *, value):
        return function(value)

    return run


queue = RedisQueue(Redis(unix_socket_path=os.environ["BENCH_REDIS_SOCKET"]), name="bench")
settings = {
    "queue": queue,
    "functions": [
        *((name, async_task(getattr(work, name))) for name in ASYNC_NAMES),
        *((name, sync_task(getattr(work, name))) for name in SYNC_NAMES),
    ],
    "concurrency": int(os.environ["BENCH_CONCURRENCY"]),
}
