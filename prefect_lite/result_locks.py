"""The locks of storage keys, as a store has them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from prefect_lite.exceptions import ConfigurationError, LockLost
from prefect_lite.thread_or_loop import Either, Waits

if TYPE_CHECKING:
    from prefect_lite.locking.protocol import LockManager
    from prefect_lite.transactions import IsolationLevel


class ResultLocks:
    """What ``ResultStore`` has to do with locks.

    A lock manager that was given is looked at by each reading and writing. The default one is not: it is
    there for transactions that ask for ``SERIALIZABLE``.
    """

    _locks: LockManager | None
    _default_locks: Callable[[], LockManager] | None

    @property
    def lock_manager(self) -> LockManager | None:
        """What locks keys."""
        if self._locks is None and self._default_locks is not None:
            return self._default_locks()
        return self._locks

    @lock_manager.setter
    def lock_manager(self, manager: LockManager | None) -> None:
        self._locks = manager

    @staticmethod
    def generate_default_holder() -> str:
        """Names this thread, and in a coroutine its asyncio task, among all processes."""
        thread = threading.current_thread()
        return f"{socket.gethostname()}:{os.getpid()}:{thread.ident}:{thread.name}{_asyncio_task()}"

    def supports_isolation_level(self, level: IsolationLevel) -> bool:
        """Whether transactions with this store can have an isolation level.

        Raises:
            ValueError: There is no such level.
        """
        from prefect_lite.transactions import IsolationLevel

        if level == IsolationLevel.READ_COMMITTED:
            return True
        if level == IsolationLevel.SERIALIZABLE:
            return self.lock_manager is not None
        raise ValueError(f"Unsupported isolation level: {level}")

    def acquire_lock(self, key: str, holder: str | None = None, timeout: float | None = None) -> bool:
        """Take the lock of a key, or wait for it; whoever has it, has it once more.

        Args:
            key: The storage key.
            holder: Who takes it; None: this thread or asyncio task.
            timeout: How many seconds to wait at most; None: for ever.

        Returns:
            Whether the holder has it now.

        Raises:
            ConfigurationError: The store has no lock manager; as for all methods that follow.
        """
        holder = holder or self.generate_default_holder()
        return self._manager().acquire_lock(key, holder, acquire_timeout=timeout)

    async def aacquire_lock(self, key: str, holder: str | None = None, timeout: float | None = None) -> bool:
        """``acquire_lock`` for coroutines."""
        holder = holder or self.generate_default_holder()
        return await self._manager().aacquire_lock(key, holder, acquire_timeout=timeout)

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Let go of the lock of a key."""
        self._manager().release_lock(key, holder or self.generate_default_holder())

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock of a key."""
        return self._manager().is_locked(key)

    def is_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether ``holder`` has the lock of a key."""
        return self._manager().is_lock_holder(key, holder or self.generate_default_holder())

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until a key is free, for so many seconds; whether it is."""
        return self._manager().wait_for_lock(key, timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """``wait_for_lock`` for coroutines."""
        return await self._manager().await_for_lock(key, timeout)

    def _manager(self) -> LockManager:
        manager = self.lock_manager
        if manager is None:
            raise ConfigurationError(
                "Result store is not configured with a lock manager. Please set a lock manager when creating "
                "the result store to enable locking."
            )
        return manager

    # -- for reading and writing ------------------------------------------------------------------

    def _waited_for_lock(self, key: str, holder: str | None) -> Waits[None]:
        locks = self._locks
        if locks is None:
            return
        if not (yield from _holds(locks, key, holder or self.generate_default_holder())):
            yield Either(lambda: locks.wait_for_lock(key), lambda: locks.await_for_lock(key))

    def _refused_if_locked(self, key: str, holder: str | None) -> Waits[None]:
        locks = self._locks
        if locks is None or not (yield from _asked(lambda: locks.is_locked(key))):
            return
        if not (yield from _holds(locks, key, holder or self.generate_default_holder())):
            raise RuntimeError(
                f"Cannot write to result record with key {key} because it is locked by another holder."
            )

    def _still_held(self, key: str, holder: str) -> Waits[None]:
        manager = self._manager()
        if not (yield from _holds(manager, key, holder)):
            raise LockLost(
                f"The lock {key!r} was lost before its result was written: it was held for too long, and "
                f"another run may have taken it."
            )


def _asked(question: Callable[[], bool]) -> Waits[bool]:
    """The answer of a lock manager, which may have to ask somebody else."""
    return (yield Either(question, lambda: asyncio.to_thread(question)))


def _holds(manager: LockManager, key: str, holder: str) -> Waits[bool]:
    form: Any = getattr(manager, "holding", None)
    if form is not None:
        return (yield from cast("Waits[bool]", form(key, holder)))
    return (yield from _asked(lambda: manager.is_lock_holder(key, holder)))


def _asyncio_task() -> str:
    loops = sys.modules.get("asyncio")
    if loops is None or loops._get_running_loop() is None:
        return ""
    task = loops.current_task()
    return f":{task.get_name()}:{id(task)}" if task is not None else ""
