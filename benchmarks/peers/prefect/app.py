"""Prefect's tasks."""

from __future__ import annotations

import api

api.use_address()

import work  # noqa: E402
from prefect import task  # noqa: E402

FUNCTIONS = (work.noop, work.async_noop, work.nap, work.async_nap, work.echo, work.async_echo)
TASKS = {function.__name__: task(function) for function in FUNCTIONS}
