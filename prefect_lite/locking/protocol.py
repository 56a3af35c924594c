"""What a lock manager does, and how the package uses one from threads and coroutines alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from prefect_lite.locking.polling import SLICE_SECONDS
from prefect_lite.thread_or_loop import Either, Waits


@runtime_checkable
class LockManager(Protocol):
    """Locks by name. A lock has one holder at most; whoever has it may take it again.

    A manager may have generator forms (see ``thread_or_loop``) beside them, which are preferred then:
    ``acquiring`` and ``releasing``, with the arguments of ``acquire_lock``, and ``stopped``, and of
    ``release_lock``. One with
    ``fences = True`` keeps its locks where the broker keeps entries, which can refuse the write of who has
    lost the lock.
    """

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take a lock, or wait for it.

        Args:
            key: Its name.
            holder: Who takes it; any text that nobody else uses.
            acquire_timeout: How many seconds to wait at most; None: for ever.
            hold_timeout: After how many seconds it is free again by itself; None: when it is released.

        Returns:
            Whether the holder has it now.
        """
        ...

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """``acquire_lock`` for coroutines."""
        ...

    def release_lock(self, key: str, holder: str) -> None:
        """Let go of a lock.

        Raises:
            ValueError: ``holder`` does not have it.
        """
        ...

    def is_locked(self, key: str) -> bool:
        """Whether anybody has a lock."""
        ...

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether ``holder`` has a lock."""
        ...

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until a lock is free, for so many seconds; returns whether it is."""
        ...

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """``wait_for_lock`` for coroutines."""
        ...


def acquiring(
    manager: LockManager, key: str, holder: str, stopped: Callable[[], bool] | None = None
) -> Waits[bool]:
    """Take a lock, or wait for it until ``stopped``; returns whether the holder has it."""
    form: Callable[..., Waits[bool]] | None = getattr(manager, "acquiring", None)
    if form is not None:
        return (yield from form(key, holder, stopped=stopped))
    seconds = None if stopped is None else SLICE_SECONDS
    while True:
        taken: bool = yield Either(
            lambda: manager.acquire_lock(key, holder, acquire_timeout=seconds),
            lambda: manager.aacquire_lock(key, holder, acquire_timeout=seconds),
        )
        if taken or stopped is None or stopped():
            return taken


def releasing(manager: LockManager, key: str, holder: str) -> Waits[None]:
    """Let go of a lock; see ``LockManager.release_lock``."""
    form: Callable[..., Waits[None]] | None = getattr(manager, "releasing", None)
    if form is not None:
        yield from form(key, holder)
        return
    yield Either(
        lambda: manager.release_lock(key, holder),
        lambda: asyncio.to_thread(manager.release_lock, key, holder),
    )


def not_held(key: str, holder: str) -> ValueError:
    """For a holder that releases what it does not have."""
    return ValueError(
        f"No lock held by {holder!r} for key {key!r}: it was released already, or has run out of its time."
    )
