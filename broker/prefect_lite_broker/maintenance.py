"""The background duties of a broker, one small service each.

Every broker runs them all; the scripts behind them are safe to run at the same time elsewhere. A service
has ``run_once()``, which tests call, and ``run()``, which repeats it for ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from prefect_lite.exceptions import BrokerError
from prefect_lite_broker.dispatch import Dispatch
from prefect_lite_broker.store import LeaseEvent, Repair, Store
from prefect_lite_broker.watches import Watches

logger = logging.getLogger(__name__)

PROMOTE_AT_LEAST_SECONDS = 5.0
"""The promoter looks this often even when nothing is known to be due: other brokers delay runs too."""


class Service(ABC):
    """Repeats ``run_once`` until cancelled; a store that is away makes it wait, not end."""

    name = "service"

    def __init__(self, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self._poke = asyncio.Event()
        self._failing = False

    @abstractmethod
    async def run_once(self) -> float:
        """Do the duty once.

        Returns:
            Seconds until it should be done again.
        """

    async def run(self) -> None:
        """Do the duty for ever."""
        while True:
            self._poke.clear()
            try:
                pause = await self.run_once()
            except BrokerError as exc:
                # The store has told the log, in one line for all that stands still meanwhile.
                if not self._failing:
                    logger.debug("The %s waits for the store: %s", self.name, exc)
                self._failing = True
                pause = self.interval_seconds
            except Exception:
                logger.exception("The %s failed; it goes on", self.name)
                pause = max(self.interval_seconds, 1.0)
            else:
                self._failing = False
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        if self._poke.is_set():
            return
        handle = asyncio.get_running_loop().call_later(seconds, self._poke.set)
        try:
            await self._poke.wait()
        finally:
            handle.cancel()

    def poke(self) -> None:
        """Do the duty now."""
        self._poke.set()


class Reaper(Service):
    """Ends leases whose worker is gone."""

    name = "reaper"

    def __init__(self, store: Store, dispatch: Dispatch, watches: Watches, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self._store = store
        self._dispatch = dispatch
        self._watches = watches

    async def run_once(self) -> float:
        await self._store.reap(self._tell)
        return self.interval_seconds

    def _tell(self, event: LeaseEvent) -> None:
        logger.warning(
            "Run %s of %s lost its worker %s (%d. time): %s",
            event.run_id,
            event.task_key,
            event.session,
            event.lost,
            _OUTCOMES.get(event.outcome, event.outcome),
            extra={
                "run_id": event.run_id,
                "task_key": event.task_key,
                "worker": event.session,
                "action": f"lease_{event.outcome}",
            },
        )
        if event.state is not None:
            self._watches.ended(event.state)
        elif event.outcome in ("ready", "suspect"):
            self._dispatch.wake_run(event.task_key, event.run_id)


_OUTCOMES = {
    "ready": "it runs again",
    "suspect": "it runs again, apart from other suspects",
    "cancelled": "it was being cancelled and is now",
    "crashed": "it is Crashed and kept in the dead set",
}


class Promoter(Service):
    """Makes due runs ready and cancels expired ones; sleeps until the next is due."""

    name = "promoter"

    def __init__(self, store: Store, dispatch: Dispatch, watches: Watches) -> None:
        super().__init__(PROMOTE_AT_LEAST_SECONDS)
        self._store = store
        self._dispatch = dispatch
        self._watches = watches
        self._due = math.inf  # loop time for which the next look is set

    async def run_once(self) -> float:
        # What is delayed from here on is unknown to the reply: it has to wake this service by itself.
        self._due = math.inf
        reply = await self._store.promote()
        for key in reply.ready_keys:
            self._dispatch.wake(key)
        for state in reply.ended:
            self._watches.ended(state)
        pause = self.interval_seconds
        if reply.next_due_seconds >= 0:
            pause = min(pause, reply.next_due_seconds)
        return pause

    async def _pause(self, seconds: float) -> None:
        self._due = min(self._due, asyncio.get_running_loop().time() + seconds)
        await super()._pause(seconds)

    def due_in(self, seconds: float) -> None:
        """A run was delayed by this broker; wake up for it if that is sooner."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if due < self._due:
            self._due = due
            loop.call_later(seconds, self.poke)


class Retention(Service):
    """Removes what has outlived its time."""

    name = "retention"

    def __init__(self, store: Store, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self._store = store

    async def run_once(self) -> float:
        removed = await self._store.retention()
        if removed:
            logger.debug("Retention removed %d records", removed)
        return self.interval_seconds


class Audit(Service):
    """Looks for runs whose state and queue disagree, and repairs them; none should ever be found."""

    name = "audit"

    def __init__(self, store: Store, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self._store = store

    async def run_once(self) -> float:
        await self._store.audit(self._tell)
        return self.interval_seconds

    def _tell(self, repair: Repair) -> None:
        kind, subject, shard = repair
        logger.error(
            "The audit repaired %s in shard %d: %s",
            subject,
            shard,
            _REPAIRS.get(kind, kind),
            extra={"run_id": subject, "action": f"audit_{kind}"},
        )


_REPAIRS = {
    "ready": "a ready run that was in no queue",
    "delayed": "a delayed run that nobody would have woken",
    "expires": "a run that would not have expired",
    "list": "a queue that no claim would have found",
    "lease": "a leased run that nobody held",
    "cancel": "an order to cancel",
    "session": "a session that the reaper would not have found",
    "holding": "a lease that its session no longer has",
    "not_delayed": "a run among the delayed ones that is not",
    "not_expiring": "a run among those to expire that may not",
    "not_dead": "a run among the dead that is not",
    "blocked": "a run that waits for others and was not looked after",
    "unblocked": "a run that waited for nothing",
    "waits": "a run that miscounted what it waits for",
}


class Recheck(Service):
    """Looks whether watched runs have ended of which no hint told."""

    name = "recheck"

    def __init__(self, store: Store, watches: Watches, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self._store = store
        self._watches = watches

    async def run_once(self) -> float:
        run_ids = self._watches.aged()
        if run_ids:
            self._watches.hinted(await self._store.over(run_ids))
        return self.interval_seconds


class Periodic(Service):
    """Calls a plain function at an interval."""

    def __init__(self, name: str, interval_seconds: float, duty: Callable[[], None]) -> None:
        super().__init__(interval_seconds)
        self.name = name
        self._duty = duty

    async def run_once(self) -> float:
        self._duty()
        return self.interval_seconds
