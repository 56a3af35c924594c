"""Who waits for which run, and how the end of a run reaches them.

A watch is registered here first and the run is read afterwards, so an end between the two is seen by one
of them. Ends come from commits of this broker, from hints of others, and, when hints were lost, from
reading every watched run again.

A run that this broker itself submitted a moment ago, and of whose end it has not heard, need not be read:
its end is still to come, or on its way. (That read would be a tenth of Redis's work for a run.) Should that
belief be wrong, the next WATCH of the same run reads it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Protocol

from prefect_lite.protocol.messages import RunState
from prefect_lite.states import TERMINAL_TYPES
from prefect_lite_broker.store import Store

MAX_EXPECTED = 50_000
"""Runs remembered as submitted here and not ended; the oldest are forgotten and read when watched."""
MAX_LOOKUPS = 500
"""Reads in flight: a client that renews 100,000 watches must not hold up the commits of others."""


class Watcher(Protocol):
    """A connection that watches runs."""

    watched: set[str]

    def tell(self, state: RunState) -> None:
        """Push a STATE."""
        ...


class Watches:
    """All watches of one broker."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: dict[str, list[Watcher]] = {}
        self._waiting: deque[str] = deque()  # reads beyond MAX_LOOKUPS
        self._reading = 0
        self._expected: OrderedDict[str, None] = OrderedDict()  # a dict finds its oldest key in O(deleted)

    def __len__(self) -> int:
        return len(self._watchers)

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

    def expect(self, run_id: str) -> None:
        """This broker is about to submit the run; it can't have ended before."""
        self._expected[run_id] = None
        if len(self._expected) > MAX_EXPECTED:
            self._expected.popitem(last=False)

    def surprise(self, run_id: str) -> None:
        """The run was not new, or changed unseen: read it if it is watched."""
        self._expected.pop(run_id, None)
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

    def drop(self, watcher: Watcher) -> None:
        """The connection is gone."""
        self.unwatch(watcher, list(watcher.watched))

    def ended(self, state: RunState) -> None:
        """Push a terminal state to whoever watches the run; each watch ends with it."""
        self._expected.pop(state.run_id, None)
        watchers = self._watchers.pop(state.run_id, None)
        if watchers is None:
            return
        for watcher in watchers:
            watcher.watched.discard(state.run_id)
            watcher.tell(state)

    def hinted(self, run_ids: Iterable[str]) -> None:
        """Another broker ended these runs: read the watched ones."""
        for run_id in run_ids:
            self.surprise(run_id)

    def reread(self) -> None:
        """Hints were lost: read everything that is watched."""
        self._expected.clear()
        waiting = set(self._waiting)
        for run_id in list(self._watchers):
            if run_id not in waiting:
                self.read(run_id)

    def read(self, run_id: str) -> None:
        """Read a run and push its state if it has ended, or is unknown."""
        if self._reading >= MAX_LOOKUPS:
            self._waiting.append(run_id)
            return
        self._reading += 1
        self._store.lookup(run_id, self._read)

    def _read(self, state: RunState) -> None:
        self._reading -= 1
        # No type: no record is left, and waiting would never end.
        if not state.type or state.type in TERMINAL_TYPES:
            self.ended(state)
        while self._waiting and self._reading < MAX_LOOKUPS:
            run_id = self._waiting.popleft()
            if run_id in self._watchers:
                self.read(run_id)
