"""Celery's application and tasks, the same for the client and the worker."""

from __future__ import annotations

import os

import work
from celery import Celery

ADDRESS = f"redis+socket://{os.environ['BENCH_REDIS_SOCKET']}"

app = Celery("bench", broker=ADDRESS, backend=ADDRESS)
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_backend_thread_safe=True,
    result_expires=600,
    task_ignore_result=False,
    worker_prefetch_multiplier=64,
)

TASKS = {
    function.__name__: app.task(function, name=function.__name__)
    for function in (work.noop, work.nap, work.echo)
}
