"""Code that waits, written once for threads and event loops.

It is a generator that yields each awaitable and gets its value; one driver blocks its thread meanwhile, the
other lets the event loop go on. What has a form for threads already is yielded as ``Either``, as an event
loop only to wait for it would cost a thread 0.2 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from prefect_lite.own_loop import run_in_own_loop

T = TypeVar("T")


class Either(NamedTuple):
    """Something to wait for that has two forms; the driver calls the one that fits.

    Attributes:
        in_thread: Blocks, and returns the value.
        on_loop: Returns an awaitable that gives it.
    """

    in_thread: Callable[[], Any]
    on_loop: Callable[[], Awaitable[Any]]


Waits: TypeAlias = Generator[Awaitable[Any] | Either, Any, T]


def in_thread(waits: Waits[T]) -> T:
    """Run it in this thread; awaitables get an event loop of their own.

    Raises:
        BaseException: What it raises.
    """
    try:
        step = next(waits)
        while True:
            try:
                value = step.in_thread() if isinstance(step, Either) else run_in_own_loop(step)
            except BaseException as exc:
                step = waits.throw(exc)
            else:
                step = waits.send(value)
    except StopIteration as end:
        return end.value


async def on_loop(waits: Waits[T]) -> T:
    """Run it in this asyncio task.

    Raises:
        BaseException: What it raises.
    """
    try:
        step = next(waits)
        while True:
            try:
                value = await (step.on_loop() if isinstance(step, Either) else step)
            except BaseException as exc:
                step = waits.throw(exc)
            else:
                step = waits.send(value)
    except StopIteration as end:
        return end.value


def is_cancelled_here() -> bool:
    """Whether it is this asyncio task that was cancelled, not something that it waited for."""
    try:
        current = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return False
    return current is not None and current.cancelling() > 0
