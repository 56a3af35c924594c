"""Docket's name, address and tasks, the same module for the client and the worker."""

import os

import work

# Above what the largest layout runs at a time: at redis-py's own limit of 100 the worker stops with an error.
CONNECTIONS = 3000
NAME = "bench"
URL = f"unix://{os.environ['BENCH_REDIS_SOCKET']}?max_connections={CONNECTIONS}"

tasks = (work.async_noop, work.async_nap, work.async_echo)
