"""A process that serves the tasks."""

import os

import app
from prefect.task_worker import serve

if __name__ == "__main__":
    serve(*app.TASKS.values(), limit=int(os.environ["BENCH_CONCURRENCY"]))
