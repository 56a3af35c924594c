"""Starts one Docket worker on uvloop; the `docket worker` command has no option for the event loop."""

import os
from datetime import timedelta

import uvloop
from app import NAME, URL
from docket import Worker

CHECK_INTERVAL = timedelta(milliseconds=10)

if __name__ == "__main__":
    uvloop.run(
        Worker.run(
            docket_name=NAME,
            url=URL,
            concurrency=int(os.environ["BENCH_CONCURRENCY"]),
            minimum_check_interval=CHECK_INTERVAL,
            tasks=["app:tasks"],
        )
    )
