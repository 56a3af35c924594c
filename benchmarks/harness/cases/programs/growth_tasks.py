"""The tasks of the growth cases; run as a program, the worker that serves them.

Usage: python growth_tasks.py LIMIT KEYS
"""

from __future__ import annotations

import sys
from typing import Any

from prefect_lite import Task, task
from prefect_lite.task_worker import serve

MAX_KEYS = 500
NUMBER_DIGITS = 12


@task
async def async_noop(x: int) -> int:
    return x


@task
def sync_noop(x: int) -> int:
    return x


@task
async def number_of(text: str) -> int:
    """The number that a body of the queue cases begins with."""
    return int(text[:NUMBER_DIGITS])


@task
async def total(values: list[Any]) -> int:
    """Given futures, which are their results here."""
    return sum(values)


def _keyed(number: int) -> Task:
    @task(key=f"growth.key{number}")
    async def keyed(x: int) -> int:
        return x

    return keyed


KEYED = [_keyed(number) for number in range(MAX_KEYS)]


def main() -> None:
    limit, keys = int(sys.argv[1]), int(sys.argv[2])
    serve(async_noop, sync_noop, number_of, total, *KEYED[:keys], limit=limit)


if __name__ == "__main__":
    main()
