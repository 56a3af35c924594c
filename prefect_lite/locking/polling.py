"""Trying again until it works, in a thread or a coroutine, with longer and longer pauses."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from prefect_lite.client.latch import Latch
from prefect_lite.thread_or_loop import Either, Waits

T = TypeVar("T")

SLICE_SECONDS = 0.1
"""How late it may be noticed that a run is to stop waiting."""


def until(
    attempt: Callable[[], Waits[bool]],
    timeout: float | None,
    pauses_seconds: tuple[float, float],
    stopped: Callable[[], bool] | None = None,
) -> Waits[bool]:
    """Attempt until it returns True; once at least.

    Args:
        attempt: What to try.
        timeout: How many seconds to go on; None: for ever; 0 and less: one attempt.
        pauses_seconds: The first pause and the longest; each is twice the one before, give or take a quarter.
        stopped: Asked ten times a second: whether to give up.

    Returns:
        Whether it has.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    pause, longest = pauses_seconds
    while not (yield from attempt()):
        again = min(deadline, time.monotonic() + pause * random.uniform(0.75, 1.25))
        while (left := again - time.monotonic()) > 0:
            if stopped is not None and stopped():
                return False
            yield from resting(left if stopped is None else min(left, SLICE_SECONDS))
        if time.monotonic() >= deadline:
            return False
        pause = min(longest, 2 * pause)
    return True


def resting(seconds: float) -> Waits[None]:
    """Wait; a run that waits in a thread can be stopped in it, which is not so with a sleep."""
    never = Latch()
    yield Either(lambda: never.wait(seconds), lambda: never.wait_async(seconds))


def whole(function: Callable[[], T]) -> T:
    """Call it so that the interruption of a run comes before or after, and leaves nothing half done."""
    interrupts = sys.modules.get("prefect_lite.interrupts")  # else nothing has ever run here
    return function() if interrupts is None else interrupts.PERMITS.uninterrupted(function)
