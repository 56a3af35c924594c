"""Code that waits, written once for threads and event loops.

It is a generator that yields each awaitable and gets its value; one driver blocks its thread meanwhile, the
other lets the event loop go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, TypeAlias, TypeVar

from prefect_lite.own_loop import run_in_own_loop

T = TypeVar("T")

Waits: TypeAlias = Generator[Awaitable[Any], Any, T]


def in_thread(waits: Waits[T]) -> T:
    """Run it in this thread; awaitables get an event loop of their own.

    Raises:
        BaseException: What it raises.
    """
    try:
        awaitable = next(waits)
        while True:
            try:
                value = run_in_own_loop(awaitable)
            except BaseException as exc:
                awaitable = waits.throw(exc)
            else:
                awaitable = waits.send(value)
    except StopIteration as end:
        return end.value


async def on_loop(waits: Waits[T]) -> T:
    """Run it in this asyncio task.

    Raises:
        BaseException: What it raises.
    """
    try:
        awaitable = next(waits)
        while True:
            try:
                value = await awaitable
            except BaseException as exc:
                awaitable = waits.throw(exc)
            else:
                awaitable = waits.send(value)
    except StopIteration as end:
        return end.value


def is_cancelled_here() -> bool:
    """Whether it is this asyncio task that was cancelled, not something that it waited for."""
    try:
        current = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return False
    return current is not None and current.cancelling() > 0
