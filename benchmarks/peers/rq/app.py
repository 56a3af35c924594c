"""RQ's queue, and the settings file that ``rq worker-pool --config app`` reads."""

import os

import work
from redis import Redis
from rq import Queue

REDIS_URL = f"unix://{os.environ['BENCH_REDIS_SOCKET']}"
QUEUES = ["bench"]

# A wait for a result may last longer than the five seconds after which redis-py gives up.
queue = Queue("bench", connection=Redis.from_url(REDIS_URL, socket_timeout=None))

TASKS = {function.__name__: function for function in (work.noop, work.nap, work.echo)}
