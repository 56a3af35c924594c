"""Locks of nested transactions: a transaction and those inside it hold a lock together.

What commits lazily keeps its lock until the outermost transaction commits. A later one inside the same
outermost transaction has to get past that lock, or the program would wait for itself; so they share it, one
at a time where they run in several threads, and the last that is done with it releases it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from prefect_lite.exceptions import TransactionError
from prefect_lite.locking import protocol
from prefect_lite.locking.polling import resting
from prefect_lite.thread_or_loop import Waits

if TYPE_CHECKING:
    from prefect_lite.locking.protocol import LockManager

PAUSE_SECONDS = 0.05


class FamilyLock:
    """A lock, as one family of transactions has it.

    Attributes:
        users: Those that must be done before it is released.
        running: Those of them that have not been left yet; only ones inside them may go on meanwhile.
        taken: The manager has granted it.
    """

    __slots__ = ("running", "taken", "users")

    def __init__(self) -> None:
        self.users: set[int] = set()
        self.running: set[int] = set()
        self.taken = False


class Family:
    """The locks of an outermost transaction and of all inside it.

    Attributes:
        holder: Under which name they hold them.
    """

    def __init__(self) -> None:
        self.holder = uuid.uuid4().hex
        self._guard = threading.Lock()
        self._locks: dict[tuple[int, str], FamilyLock] = {}

    def taking(
        self,
        manager: LockManager,
        key: str,
        member: int,
        ancestors: set[int],
        stopped: Callable[[], bool] | None = None,
    ) -> Waits[None]:
        """Have the lock of a key, or wait for it.

        Args:
            manager: Of the lock.
            key: The lock.
            member: ``id`` of the transaction.
            ancestors: Those of the transactions around it.
            stopped: Asked now and then: whether to give up.

        Raises:
            TransactionError: Given up.
        """
        place = (id(manager), key)
        while not (lock := self._joined(place, member, ancestors)):
            _give_up_if(stopped, key)
            yield from resting(PAUSE_SECONDS)
        if lock.taken:
            return
        try:
            _give_up_if(stopped, key)
            while not (yield from protocol.acquiring(manager, key, self.holder, stopped)):
                _give_up_if(stopped, key)
            lock.taken = True
        except BaseException:
            self._left(lock, member)
            self._locks.pop(place, None)
            raise

    def ended(self, manager: LockManager, key: str, member: int) -> None:
        """The ``with`` block of a transaction is over: others of the family may go on."""
        lock = self._locks.get((id(manager), key))
        if lock is not None:
            lock.running.discard(member)

    def letting_go(self, manager: LockManager, key: str, member: int) -> Waits[None]:
        """A transaction has committed or rolled back; its last user releases the lock."""
        place = (id(manager), key)
        lock = self._locks.get(place)
        if lock is None or member not in lock.users or not self._left(lock, member):
            return
        try:
            yield from protocol.releasing(manager, key, self.holder)
        finally:
            self._locks.pop(place, None)  # not earlier: who takes it anew has the same name of a holder

    def _joined(self, place: tuple[int, str], member: int, ancestors: set[int]) -> FamilyLock | None:
        with self._guard:
            lock = self._locks.get(place)
            if lock is None:
                lock = self._locks[place] = FamilyLock()
            elif lock.running - ancestors or not lock.taken:
                return None
            lock.users.add(member)
            lock.running.add(member)
            return lock

    def _left(self, lock: FamilyLock, member: int) -> bool:
        """Whether it was the last user; if so, nobody joins any more."""
        with self._guard:
            lock.users.discard(member)
            lock.running.discard(member)
            lock.taken = lock.taken and bool(lock.users)
            return not lock.users


def _give_up_if(stopped: Callable[[], bool] | None, key: str) -> None:
    if stopped is not None and stopped():
        raise TransactionError(f"The run was stopped while it waited for the lock of the key {key!r}.")
