"""Locks within one process, between its threads and coroutines."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import ClassVar, Self

from prefect_lite.client.latch import Latch
from prefect_lite.locking.polling import SLICE_SECONDS
from prefect_lite.locking.protocol import not_held
from prefect_lite.thread_or_loop import Either, Waits, in_thread, on_loop


class MemoryLockManager:
    """Locks of this process. All instances are the same one, so tasks need not share it by hand."""

    _only: ClassVar[MemoryLockManager | None] = None
    _guard: threading.Lock
    _held: dict[str, tuple[str, float]]
    _waiting: dict[str, list[Latch]]

    def __new__(cls) -> Self:
        only = cls.__dict__.get("_only")
        if only is None:
            only = cls._only = super().__new__(cls)
            only._begin()
        return only

    def _begin(self) -> None:
        self._guard = threading.Lock()
        self._held = {}
        self._waiting = {}

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take a lock, or wait for it; see ``LockManager``."""
        return in_thread(self.acquiring(key, holder, acquire_timeout, hold_timeout))

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """``acquire_lock`` for coroutines."""
        return await on_loop(self.acquiring(key, holder, acquire_timeout, hold_timeout))

    def release_lock(self, key: str, holder: str) -> None:
        """Let go of a lock.

        Raises:
            ValueError: ``holder`` does not have it.
        """
        with self._guard:
            if self._holder(key) != holder:
                raise not_held(key, holder)
            del self._held[key]
            for waiter in self._waiting.get(key, ()):
                waiter.set()

    def is_locked(self, key: str) -> bool:
        """Whether anybody has a lock."""
        with self._guard:
            return self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether ``holder`` has a lock."""
        with self._guard:
            return self._holder(key) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until a lock is free, for so many seconds; returns whether it is."""
        return in_thread(self._waited(key, None, timeout, None))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """``wait_for_lock`` for coroutines."""
        return await on_loop(self._waited(key, None, timeout, None))

    def acquiring(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Waits[bool]:
        """``acquire_lock`` for both threads and event loops; not for longer than until ``stopped``."""
        return (yield from self._waited(key, holder, acquire_timeout, hold_timeout, stopped))

    def releasing(self, key: str, holder: str) -> Waits[None]:
        """``release_lock`` for both; it does not wait."""
        self.release_lock(key, holder)
        return
        yield

    def _waited(
        self,
        key: str,
        holder: str | None,
        timeout: float | None,
        hold_timeout: float | None,
        stopped: Callable[[], bool] | None = None,
    ) -> Waits[bool]:
        """Wait until a lock is free, and take it if there is a holder to take it for."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            waiter = Latch()
            with self._guard:
                if self._free_for(key, holder, hold_timeout):
                    return True
                left = min(self._held[key][1], deadline) - time.monotonic()
                if deadline <= time.monotonic() or (stopped is not None and stopped()):
                    return False
                self._waiting.setdefault(key, []).append(waiter)
            left = left if stopped is None else min(left, SLICE_SECONDS)
            try:
                yield from _set(waiter, None if left == math.inf else max(0.0, left))
            finally:
                self._no_more(key, waiter)

    def _free_for(self, key: str, holder: str | None, hold_timeout: float | None) -> bool:
        """Whether a lock is free, or the holder's own; if so, and there is a holder, it is taken."""
        if self._holder(key) not in (None, holder):
            return False
        if holder is not None:
            self._held[key] = holder, math.inf if hold_timeout is None else time.monotonic() + hold_timeout
        return True

    def _no_more(self, key: str, waiter: Latch) -> None:
        with self._guard:
            waiters = self._waiting[key]
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[key]

    def _holder(self, key: str) -> str | None:
        held = self._held.get(key)
        if held is None:
            return None
        if held[1] <= time.monotonic():
            del self._held[key]
            return None
        return held[0]


def _set(latch: Latch, seconds: float | None) -> Waits[bool]:
    return (yield Either(lambda: latch.wait(seconds), lambda: latch.wait_async(seconds)))


def _after_fork() -> None:
    only = MemoryLockManager.__dict__.get("_only")
    if only is not None:
        only._begin()  # another thread may have been in the midst of it; none of the holders is here


os.register_at_fork(after_in_child=_after_fork)
