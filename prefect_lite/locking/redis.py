"""Locks between all processes that use one broker: they are kept in its Redis.

A lock is held for ``lock_seconds`` and renewed while its holder's process lives; when that dies, it is free
after so long. A process that stands still for longer loses its locks, and finds out when it comes back: the
record that it would write then is refused (``fences``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

from prefect_lite import thread_starts
from prefect_lite.client import keeping
from prefect_lite.client.runtime import Runtime, get_runtime
from prefect_lite.locking.polling import until
from prefect_lite.locking.protocol import not_held
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

PAUSES_SECONDS = (0.03, 0.5)
RENEWALS_PER_HOLD = 3
IDLE_SECONDS = 0.2

logger = logging.getLogger("prefect_lite.locking")


class RedisLockManager:
    """Locks that the broker keeps, for workers and clients on any machine.

    Args:
        lock_seconds: For how long a lock outlives its process; None: the setting.
    """

    fences = True

    def __init__(self, lock_seconds: float | None = None) -> None:
        self.lock_seconds = lock_seconds

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take a lock, or wait for it; see ``LockManager``.

        Raises:
            BrokerError: The broker or its Redis did not answer in time.
        """
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
            BrokerError: The broker or its Redis did not answer in time.
        """
        in_thread(self.releasing(key, holder))

    def is_locked(self, key: str) -> bool:
        """Whether anybody has a lock."""
        return in_thread(keeping.lock_holder(key)) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether ``holder`` has a lock."""
        return in_thread(keeping.lock_holder(key)) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until a lock is free, for so many seconds; returns whether it is."""
        return in_thread(until(lambda: _is_free(key), timeout, PAUSES_SECONDS))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """``wait_for_lock`` for coroutines."""
        return await on_loop(until(lambda: _is_free(key), timeout, PAUSES_SECONDS))

    def acquiring(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Waits[bool]:
        """``acquire_lock`` for both threads and event loops; not for longer than until ``stopped``."""
        renewed = self.lock_seconds if self.lock_seconds is not None else get_runtime().settings.lock_seconds
        seconds = hold_timeout if hold_timeout is not None else renewed
        taken = yield from until(
            lambda: keeping.take_lock(key, holder, seconds), acquire_timeout, PAUSES_SECONDS, stopped
        )
        if taken and hold_timeout is None:
            RENEWALS.add(key, holder, seconds)
        return taken

    def releasing(self, key: str, holder: str) -> Waits[None]:
        """``release_lock`` for both."""
        RENEWALS.remove(key, holder)
        if not (yield from keeping.drop_lock(key, holder)):
            raise not_held(key, holder)

    def __repr__(self) -> str:
        return f"RedisLockManager({'' if self.lock_seconds is None else self.lock_seconds})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedisLockManager) and other.lock_seconds == self.lock_seconds

    def __hash__(self) -> int:
        return hash(self.lock_seconds)


def _is_free(key: str) -> Waits[bool]:
    return (yield from keeping.lock_holder(key)) is None


class Renewed:
    """A lock that is renewed.

    Attributes:
        seconds: For how long each time.
        due: When next, in monotonic seconds.
        runtime: Through which it was taken; when that is closed, so is the lock's story.
    """

    __slots__ = ("due", "runtime", "seconds")

    def __init__(self, seconds: float, runtime: Runtime) -> None:
        self.seconds = seconds
        self.runtime = runtime
        self.due = time.monotonic() + seconds / RENEWALS_PER_HOLD


class Renewals:
    """Renews the locks of this process on one thread, which ends soon after the last of them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let go of all, as in the child of a fork, which holds none and has no such thread."""
        self._guard = threading.Lock()
        self._changed = threading.Event()
        self._locks: dict[tuple[str, str], Renewed] = {}
        self._runs = False

    def add(self, key: str, holder: str, seconds: float) -> None:
        """Renew a lock from now on, so that it is never free for as long as this process runs."""
        lock = Renewed(seconds, get_runtime())
        with self._guard:
            self._locks[key, holder] = lock
            starts = not self._runs
            self._runs = True
        if starts:
            thread = threading.Thread(target=self._run, name="prefect-lite-locks", daemon=True)
            thread_starts.start(thread)
        self._changed.set()

    def remove(self, key: str, holder: str) -> None:
        """Renew it no more."""
        with self._guard:
            self._locks.pop((key, holder), None)
            empty = not self._locks
        if empty:
            self._changed.set()

    def _run(self) -> None:
        idle = False
        while True:
            self._changed.clear()
            now = time.monotonic()
            with self._guard:
                for name in [name for name, lock in self._locks.items() if lock.runtime.closed]:
                    del self._locks[name]
                if idle and not self._locks:
                    self._runs = False
                    return
                due = [(name, lock) for name, lock in self._locks.items() if lock.due <= now]
                pause = min((lock.due - now for lock in self._locks.values()), default=IDLE_SECONDS)
                idle = not self._locks
            if due:
                asyncio.run(self._renew_all(due))
            else:
                self._changed.wait(pause)

    async def _renew_all(self, due: list[tuple[tuple[str, str], Renewed]]) -> None:
        await asyncio.gather(*(self._renew(key, holder, lock) for (key, holder), lock in due))

    async def _renew(self, key: str, holder: str, lock: Renewed) -> None:
        lock.due = time.monotonic() + lock.seconds / RENEWALS_PER_HOLD
        try:
            held = await on_loop(keeping.renew_lock(key, holder, lock.seconds))
        except Exception as exc:  # it is tried again; if that lasts for too long, the lock is lost
            logger.warning("The lock %r could not be renewed: %s", key, exc)
            return
        with self._guard:
            if held or self._locks.get((key, holder)) is not lock:  # released meanwhile
                return
            del self._locks[key, holder]
        logger.warning(
            "The lock %r was lost, as it was not renewed for %g s: this process or its broker stood still. "
            "What its holder would write is refused.",
            key,
            lock.seconds,
        )


RENEWALS = Renewals()
"""Those of this process."""

os.register_at_fork(after_in_child=RENEWALS.forget)
