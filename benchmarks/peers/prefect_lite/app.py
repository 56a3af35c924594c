"""The tasks, and the worker that serves them: ``python app.py``."""

from __future__ import annotations

import os

import work

from prefect_lite import task

TASKS = {
    function.__name__: task(function)
    for function in (work.noop, work.async_noop, work.nap, work.async_nap, work.echo, work.async_echo)
}

if __name__ == "__main__":
    from prefect_lite.task_worker import serve  # only the worker's process needs it

    serve(*TASKS.values(), limit=int(os.environ["BENCH_CONCURRENCY"]))
