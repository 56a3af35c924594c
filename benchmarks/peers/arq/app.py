"""arq's worker settings and tasks, the same module for the client and the worker."""

import asyncio
import os

import uvloop
import work
from arq import func
from arq.connections import RedisSettings

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

REDIS = RedisSettings(unix_socket_path=os.environ["BENCH_REDIS_SOCKET"])
LOGGING = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}


async def async_noop(ctx, x):
    return await work.async_noop(x)


async def async_nap(ctx, seconds):
    return await work.async_nap(seconds)


async def async_echo(ctx, text):
    return await work.async_echo(text)


class WorkerSettings:
    """Read by the `arq` command."""

    functions = (func(async_noop), func(async_nap), func(async_echo))
    redis_settings = REDIS
    max_jobs = int(os.environ["BENCH_CONCURRENCY"])
    poll_delay = 0.001
    keep_result = 600
    log_results = False
