"""The desk between the threads that run tasks and the connection thread.

Whoever runs a task puts down what happened and, if nobody did so yet, wakes the connection thread; that one
takes everything there is. ``deque`` operations are atomic, so there is no lock, and a burst costs one call.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_lite.protocol.messages import Finish, Release, Retry

if TYPE_CHECKING:
    from prefect_lite.run_ends import Outcome
    from prefect_lite_worker.leases import ActiveRun

MAX_LINES = 20_000
"""Log lines that wait for the broker; the oldest go first."""
MAX_CHARACTERS = 16 << 20
"""The same for their texts together."""
MAX_TEXT = 16_000
"""Characters kept of one line until it is sent, which takes fewer."""


class Ended(NamedTuple):
    """A run that has ended here.

    Attributes:
        run: The run.
        message: What to tell the broker; None when the lease is no longer ours to end.
        outcome: For the line in the terminal.
        run_seconds: Duration of the last attempt.
    """

    run: ActiveRun
    message: Finish | Retry | Release | None
    outcome: Outcome
    run_seconds: float


class Desk:
    """What the executors leave for the connection thread.

    Attributes:
        again: A retry in place is among ``started``: it must be counted before it can take the process down.
    """

    def __init__(self) -> None:
        self.again = False
        self.started: deque[ActiveRun] = deque()
        self.ended: deque[Ended] = deque()
        self.lines: deque[tuple[str, list[Any]]] = deque()
        self.characters = 0  # of their texts
        self.lent: deque[tuple[ActiveRun, int]] = deque()
        self.needs: deque[tuple[ActiveRun, Iterable[str]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._take: Callable[[], None] = _nothing
        self._woken = False
        self._context = contextvars.Context()

    def open(self, loop: asyncio.AbstractEventLoop, take: Callable[[], None]) -> None:
        """Have ``take`` called on ``loop`` when something lies here."""
        self._loop, self._take = loop, take

    def close(self) -> None:
        """Nobody takes anything any more."""
        self._loop = None

    def start(self, run: ActiveRun, again: bool) -> None:
        """An attempt is about to start. The first one waits for the next tick: most end before it."""
        self.started.append(run)
        if again:
            self.again = True
            self.wake()

    def end(self, ended: Ended) -> None:
        """A run has ended."""
        self.ended.append(ended)
        self.wake()

    def line(self, run_id: str, line: list[Any]) -> None:
        """A log line of a run; taken with the next tick or end."""
        text = line[3]
        if len(text) > MAX_TEXT:
            text = line[3] = text[:MAX_TEXT]
        # Not exact with many threads, hence ``lines_taken``; a bound on memory need not be.
        self.characters += len(text)
        lines = self.lines
        lines.append((run_id, line))
        while len(lines) > MAX_LINES or (self.characters > MAX_CHARACTERS and len(lines) > 1):
            try:
                self.characters -= len(lines.popleft()[1][3])
            except IndexError:  # taken this moment
                break

    def lines_taken(self) -> None:
        """The connection thread has taken all lines."""
        self.characters = 0

    def lend(self, run: ActiveRun, waits: int) -> None:
        """Code of a run begins (1) or ends (-1) waiting for another run."""
        self.lent.append((run, waits))
        self.wake()

    def need(self, run: ActiveRun, run_ids: Iterable[str]) -> None:
        """A run takes the results of others; the executor has let go of it until they are there."""
        self.needs.append((run, run_ids))
        self.wake()

    def wake(self) -> None:
        """Have the connection thread look, soon. Safe from any thread."""
        if self._woken:
            return
        loop = self._loop
        if loop is None:
            return
        self._woken = True
        try:
            # Else the look would happen in the context of the run that happened to wake it.
            loop.call_soon_threadsafe(self._look, context=self._context)
        except RuntimeError:
            self._loop = None  # closed: the worker has stopped

    def _look(self) -> None:
        # Cleared before taking: what is put down meanwhile wakes again, so nothing can be left lying.
        self._woken = False
        self._take()


def _nothing() -> None:
    """Before ``open``."""
