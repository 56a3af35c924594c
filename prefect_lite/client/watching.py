"""Who in this process waits for the end of which run, and which of these runs the broker is asked about.

Everything here runs on the client's loop thread. A broker tells one connection of a limited number of runs;
when more are waited for, they are asked about in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from prefect_lite.client.requests import Listener
from prefect_lite.protocol.messages import RunState
from prefect_lite.protocol.peer_session import PeerSession

REFRESH_RUNS: Final = 2_000
"""Watched runs that are read again in one go."""
WINDOW: Final = 150_000
"""Runs that the broker is asked about at a time. It takes 200,000, those that are read again included."""
TURN: Final = WINDOW // 10
"""Runs that make room in the window at a time while others wait for their turn."""
UNWATCH_SECONDS: Final = 1.0
"""A watch outlives its waiter by this, so that polling with ``timeout=0`` gets to see the end."""


class Watching:
    """The watches of one client.

    Args:
        session: Sends WATCH and UNWATCH.
        loop: The client's loop.
        refresh_seconds: Watched runs are read again this often.
        flush: Have the session's messages sent.
        window: See ``WINDOW``.
        unsent: Whether a run waits to be sent (again), so that no broker may know of it.
    """

    def __init__(
        self,
        session: PeerSession,
        loop: asyncio.AbstractEventLoop,
        refresh_seconds: float,
        flush: Callable[[], None],
        *,
        window: int = WINDOW,
        unsent: Callable[[str], bool] = lambda _run_id: False,
    ) -> None:
        self._session = session
        self._loop = loop
        self._refresh_seconds = refresh_seconds
        self._flush = flush
        self._window = window
        self._unsent = unsent
        self._turn = max(1, min(TURN, window // 10))
        # Most have one; a list for each would be one more for the garbage collector to look at.
        self._listeners: dict[str, Listener | list[Listener]] = {}
        self._asked: dict[str, None] = {}  # the broker knows about these; longest unread first
        self._queued: dict[str, None] = {}  # and not yet about these
        self._unknown: set[str] = set()
        self._refresher: asyncio.TimerHandle | None = None

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits, not counting watches made for somebody who may come."""
        return any(one.waited_for for group in self._listeners.values() for one in _each(group))

    # -- from other threads -----------------------------------------------------------------------

    def watch(self, run_ids: Iterable[str], listener: Listener) -> None:
        """Tell ``listener`` of the end of each run, now or when it comes."""
        wanted: list[str] = []
        for run_id in run_ids:
            self._add(run_id, listener)
            if run_id in self._asked or len(self._asked) < self._window:
                self._asked[run_id] = None
                wanted.append(run_id)
            else:
                self._queued[run_id] = None
        self._ask(wanted)

    def expect(self, run_id: str, listener: Listener) -> bool:
        """The same for a run whose SUBMIT may ask for its end; False when it must not: it takes turns."""
        self._add(run_id, listener)
        if len(self._asked) < self._window:
            self._asked[run_id] = None
            return True
        self._queued[run_id] = None
        return False

    def unwatch(self, run_ids: Iterable[str], listener: Listener) -> None:
        """No longer tell ``listener``, from a moment later on."""
        self._loop.call_later(UNWATCH_SECONDS, self._remove, run_ids, listener)

    def _add(self, run_id: str, listener: Listener) -> None:
        known = self._listeners.setdefault(run_id, listener)
        if isinstance(known, list):
            known.append(listener)
        elif known is not listener:
            self._listeners[run_id] = [known, listener]
        if self._refresher is None:
            self._refresher = self._loop.call_later(self._refresh_seconds, self._refresh)

    def _remove(self, run_ids: Iterable[str], listener: Listener) -> None:
        gone: list[str] = []
        for run_id in run_ids:
            known = self._listeners.get(run_id)
            if isinstance(known, list):
                left = [one for one in known if one is not listener]
                self._listeners[run_id] = left if len(left) > 1 else left[0]
            elif known is listener:
                self._forget(run_id)
                gone.append(run_id)
        if gone:
            self._session.unwatch(gone)
            self._fill()
            self._flush()

    def _forget(self, run_id: str) -> Sequence[Listener]:
        self._asked.pop(run_id, None)
        self._queued.pop(run_id, None)
        self._unknown.discard(run_id)
        known = self._listeners.pop(run_id, None)
        return () if known is None else _each(known)

    # -- from the broker --------------------------------------------------------------------------

    def ended(self, state: RunState) -> None:
        """A STATE has come."""
        run_id = state.run_id
        if not state.type and self._unsent(run_id):
            return
        if not state.type and run_id in self._listeners and run_id not in self._unknown:
            # Perhaps read before its SUBMIT was, on a new connection: once more before we say so.
            self._unknown.add(run_id)
            self._ask([run_id])
            return
        for listener in self._forget(run_id):
            listener.ended(state)
        if self._queued and len(self._asked) + self._turn <= self._window:
            self._fill()

    def knows(self, run_id: str) -> bool:
        """Whether anybody waits for the end of this run."""
        return run_id in self._listeners

    def read_again(self, run_id: str) -> None:
        """A run that was refused: whoever waits for it is to hear that there is none."""
        if run_id in self._listeners:
            self._ask([run_id])

    def refused(self, run_id: str, listener: Listener, error: Exception) -> None:
        """The run that ``listener`` expects will not be; others may know better."""
        self._remove([run_id], listener)
        listener.failed(error)
        if run_id in self._listeners:
            self._ask([run_id])

    def moved(self, run_id: str, existing: str) -> None:
        """An idempotency key has made ``run_id`` mean a run that exists."""
        listeners = self._forget(run_id)
        self._session.unwatch([run_id])
        for listener in listeners:
            listener.moved(run_id, existing)
            self.watch([existing], listener)

    # -- all at once ------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Nothing will ever be told."""
        listeners, self._listeners = self._listeners, {}
        self._session.unwatch([*self._asked])
        self._asked.clear()
        self._queued.clear()
        self._unknown.clear()
        for listener in {id(one): one for group in listeners.values() for one in _each(group)}.values():
            listener.failed(error)

    def close(self) -> None:
        """Stop the timer."""
        if self._refresher is not None:
            self._refresher.cancel()

    def _ask(self, run_ids: list[str]) -> None:
        if run_ids:
            self._session.watch(run_ids)
            self._flush()

    def _fill(self) -> None:
        """Ask about runs that wait for their turn, as far as there is room."""
        room = self._window - len(self._asked)
        if self._queued and room > 0:
            next_ones = list(islice(self._queued, room))
            for run_id in next_ones:
                del self._queued[run_id]
                self._asked[run_id] = None
            self._ask(next_ones)

    def _refresh(self) -> None:
        """Read watched runs again, longest unread first: a lost hint may cost seconds, never a result."""
        self._refresher = None
        if not self._listeners:
            return
        if self._session.welcomed:
            if self._queued:
                self._take_turns()
            else:
                run_ids = list(islice(self._asked, REFRESH_RUNS))
                for run_id in run_ids:
                    self._asked[run_id] = self._asked.pop(run_id)  # to the end of the line
                self._ask(run_ids)
        self._refresher = self._loop.call_later(self._refresh_seconds, self._refresh)

    def _take_turns(self) -> None:
        """Runs of the window make room for others, and queue up again."""
        run_ids = list(islice(self._asked, self._turn))
        for run_id in run_ids:
            del self._asked[run_id]
        self._session.unwatch(run_ids)
        self._fill()
        self._queued.update(dict.fromkeys(run_ids))


def _each(known: Listener | list[Listener]) -> Sequence[Listener]:
    return known if isinstance(known, list) else (known,)
