"""Runs on a worker that wait for the lock of a key lend their slots, but not at once and not all together.

Who has the lock may itself wait for a run that needs a slot, so no slot may be kept for ever. But each slot
that is lent brings another run, with a thread or a process of its own, and it may wait for the same lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_lite.context import RunLease

MANY = 8
"""So many that have lent their slots in this process make the next one wait for as long again."""

monotonic = time.monotonic

_guard = threading.Lock()
_lent = 0


class LockWait:
    """One run's wait; called ten times a second, it tells whether to give up.

    Args:
        lease: Whose slot is lent; None: there is none.
        stopped: Whether to give up.
    """

    def __init__(self, lease: RunLease | None, stopped: Callable[[], bool]) -> None:
        self._lease = lease
        self._stopped = stopped
        self._lent = False
        self._began = monotonic()

    def __call__(self) -> bool:
        if self._lease is not None and not self._lent:
            seconds = self._lease.lock_patience_seconds * (1 + _lent // MANY)
            if monotonic() - self._began >= seconds:
                self._lend(self._lease, 1)
        return self._stopped()

    def end(self) -> None:
        """The wait is over: the slot is taken back."""
        if self._lease is not None and self._lent:
            self._lend(self._lease, -1)

    def _lend(self, lease: RunLease, waits: int) -> None:
        global _lent
        with _guard:
            _lent += waits
        self._lent = waits > 0
        lease.lend(waits)
