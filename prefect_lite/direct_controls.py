"""Timeouts of runs in this process: of a function in the calling thread, and of a coroutine."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect_lite import waking
from prefect_lite.alarms import ALARMS
from prefect_lite.interrupts import PERMITS
from prefect_lite.run_ends import TIMEOUT


class ThreadControl:
    """Timeout of a function that runs in the calling thread: an alarm raises in it."""

    def __init__(self, timeout_seconds: float | None, outermost: bool = False) -> None:
        self._timeout = timeout_seconds
        self.outermost = outermost
        self._attempt: object = None

    def begin(self, attempt: int) -> None:
        if self._timeout is None:
            return
        waking.prepare()
        # A permit for each attempt: the alarm of the last one must not hit this one.
        self._attempt = object()
        PERMITS.grant(self._attempt)
        ALARMS.set(self._timeout, self._attempt)

    def end(self) -> str | None:
        if self._timeout is None:
            return None
        return TIMEOUT if PERMITS.withdraw(self._attempt) else None

    def stop_reason(self) -> str | None:
        return None


class CoroutineControl:
    """Timeout of a coroutine: its asyncio task is cancelled."""

    def __init__(self, timeout_seconds: float | None, outermost: bool = False) -> None:
        self._timeout = timeout_seconds
        self.outermost = outermost
        self._stop: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_before = 0

    def begin(self, attempt: int) -> None:
        if self._timeout is None:
            return
        self._stop = None
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("A timeout needs an asyncio task: await the call in a coroutine.")
        self._cancelled_before = self._task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._expire)

    def end(self) -> str | None:
        if self._timer is not None:
            self._timer.cancel()
        if self._stop is None or self._task is None:
            return None
        # A count left over means that somebody outside has cancelled as well: that one wins.
        return self._stop if self._task.uncancel() <= self._cancelled_before else None

    def stop_reason(self) -> str | None:
        return None

    def _expire(self) -> None:
        self._stop = TIMEOUT
        if self._task is not None:
            self._task.cancel()
