"""What the workers of a chaos run serve."""

from __future__ import annotations

import asyncio
import hashlib
import time

from prefect_lite import task
from prefect_lite.context import TaskRunContext

BIG_BYTES = 200_000


class Expected(Exception):
    """A task that is to fail."""


@task
def echo(number: int) -> int:
    return number


@task
async def echo_async(number: int) -> int:
    await asyncio.sleep(0)
    return number


@task
def nap(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


@task
async def nap_async(number: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return number


@task(retries=2)
def flaky(number: int) -> int:
    """Fails the first time, is tried again in place."""
    if attempt() < 2:
        raise Expected("the first attempt")
    return number


@task(retries=2, retry_delay_seconds=0.1)
def flaky_later(number: int) -> int:
    """Fails the first time and goes back to the broker until it is tried again."""
    if attempt() < 2:
        raise Expected("the first attempt")
    return number


@task
def fail(number: int) -> int:
    raise Expected(f"run {number}")


@task
def big(number: int) -> bytes:
    return content(number)


@task
def follow(before: int, number: int) -> int:
    """Takes what another run returned."""
    return before * 1_000_000 + number


def attempt() -> int:
    """Number of the current attempt, from 1."""
    context = TaskRunContext.get()
    assert context is not None
    return context.task_run.run_count


def content(number: int) -> bytes:
    """A large result that only this number has."""
    return hashlib.sha256(str(number).encode()).digest() * (BIG_BYTES // 32)
