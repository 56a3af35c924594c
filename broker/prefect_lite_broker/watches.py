"""Who waits for which run, and how the end of a run reaches them.

A watch is registered here first and the run is read afterwards, so an end between the two is seen by one
of them. Ends come from commits of this broker, from hints of others, and, when hints were lost, from
reading every watched run again.

A run that this broker itself submitted a moment ago, and of whose end it has not heard, need not be read:
its end is still to come, or on its way. (That read would be a tenth of Redis's work for a run.) Should that
belief be wrong, the next WATCH of the same run reads it. What ``Expected`` has forgotten is read as well.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from prefect_lite.protocol.messages import RunState
from prefect_lite.states import TERMINAL_TYPES
from prefect_lite_broker.expected import Expected
from prefect_lite_broker.store import Store

MAX_LOOKUPS = 500
"""Reads in flight: a client that renews 100,000 watches must not hold up the commits of others."""
MAX_AGED = 5_000
"""Watched runs that one look goes over to see whether they have ended without a hint."""
LOST_SECONDS = 60.0
"""A read without an answer for so long no longer takes a place of the MAX_LOOKUPS."""


class Watcher(Protocol):
    """A connection that watches runs."""

    watched: set[str]

    def tell(self, state: RunState) -> None:
        """Push a STATE."""
        ...


class Watches:
    """All watches of one broker.

    Attributes:
        expect: To be called with a run that this broker is about to submit; it can't have ended before.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._watchers: dict[str, list[Watcher]] = {}
        # OrderedDicts, because a dict finds its oldest key in O(deleted).
        self._waiting: OrderedDict[str, None] = OrderedDict()  # watched runs to read when there is room
        self._reading: OrderedDict[str, float] = OrderedDict()  # and since when
        self._expected = Expected()
        self.expect: Callable[[str], None] = self._expected.add
        self._aged: list[str] = []  # watched at some earlier look, and not looked at since

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def waiting(self) -> int:
        """Watched runs that wait for being read."""
        return len(self._waiting)

    def register(self, watcher: Watcher, run_id: str) -> bool:
        """Register without reading; False when this watcher had the run already."""
        if run_id in watcher.watched:
            return False
        watcher.watched.add(run_id)
        self._watchers.setdefault(run_id, []).append(watcher)
        return True

    def watch(self, watcher: Watcher, run_ids: Iterable[str]) -> None:
        """Register, then read each; asking again for a watched run reads it anew."""
        for run_id in run_ids:
            if not self.register(watcher, run_id) or run_id not in self._expected:
                self.read(run_id)

    def surprise(self, run_id: str) -> None:
        """The run was not new, or changed unseen: read it if it is watched."""
        self._expected.discard(run_id)
        if run_id in self._watchers:
            self.read(run_id)

    def unwatch(self, watcher: Watcher, run_ids: Iterable[str]) -> None:
        """Forget these watches; unknown ones are ignored."""
        for run_id in run_ids:
            if run_id not in watcher.watched:
                continue
            watcher.watched.discard(run_id)
            watchers = self._watchers[run_id]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[run_id]
                self._waiting.pop(run_id, None)

    def drop(self, watcher: Watcher) -> None:
        """The connection is gone."""
        self.unwatch(watcher, list(watcher.watched))

    def ended(self, state: RunState) -> None:
        """Push a terminal state to whoever watches the run; each watch ends with it."""
        self._expected.discard(state.run_id)
        watchers = self._watchers.pop(state.run_id, None)
        if watchers is None:
            return
        if self._waiting:
            self._waiting.pop(state.run_id, None)
        for watcher in watchers:
            watcher.watched.discard(state.run_id)
            watcher.tell(state)

    def hinted(self, run_ids: Iterable[str]) -> None:
        """Another broker ended these runs: read the watched ones."""
        for run_id in run_ids:
            self.surprise(run_id)

    def aged(self) -> list[str]:
        """Runs that have been watched since an earlier call: any hint of their end would have come by now.

        At most ``MAX_AGED``; with more watches each has its turn.
        """
        aged, watchers, old = self._aged, self._watchers, list[str]()
        while aged and len(old) < MAX_AGED:
            run_id = aged.pop()
            if run_id in watchers:
                old.append(run_id)
        if not aged:
            self._aged = list(watchers)
        return old

    def reread(self) -> None:
        """Hints were lost: read everything that is watched."""
        self._expected.clear()
        for run_id in list(self._watchers):
            self.read(run_id)

    def read(self, run_id: str) -> None:
        """Read a watched run and push its state if it has ended, or is unknown."""
        # One that is being read waits too: what changed since may not be in that answer.
        self._waiting[run_id] = None
        self._read_more()

    def _read_more(self) -> None:
        reading, waiting = self._reading, self._waiting
        now = self._clock()
        if len(reading) >= MAX_LOOKUPS:
            while reading and now - next(iter(reading.values())) > LOST_SECONDS:
                reading.popitem(last=False)
        for _ in range(min(MAX_LOOKUPS - len(reading), len(waiting))):
            if not waiting:
                return  # answered meanwhile
            run_id, _ = waiting.popitem(last=False)
            if run_id in reading:
                waiting[run_id] = None
                continue
            reading[run_id] = now
            self._store.lookup(run_id, partial(self._read, now))

    def _read(self, since: float, state: RunState) -> None:
        # A later read of the same run may have its place by now.
        if self._reading.get(state.run_id) == since:
            del self._reading[state.run_id]
        # No type: no record is left, and waiting would never end.
        if not state.type or state.type in TERMINAL_TYPES:
            self.ended(state)
        if self._waiting:
            self._read_more()
