"""Runs that a broker had no room for, or no store, and that are sent again until there is some.

Runs of a task stand in one line, in the order in which they were first sent, and the line is probed: some of
its head go out, the same SUBMIT with the same id; if all are accepted twice as many follow at once, if not
the next probe waits as long as the broker said. So a thousand waiting runs cost a full broker one small
frame per probe. Everything here runs on the client's loop thread.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from prefect_lite.client.requests import Submission
from prefect_lite.protocol.messages import Refused, Submit

PASSING: Final = frozenset({"full", "unavailable"})
"""Codes of refusals that may be none a little later."""
MOST_AT_ONCE: Final = 500
RETRY_SECONDS: Final = 1.0
"""Between two probes when the broker does not say."""
JITTER: Final = (0.5, 1.5)
SPARE_DEADLINES: Final = 1_000
"""Deadlines of runs that wait no longer, kept beyond one for each that does."""
OFFLINE_SECONDS: Final = 0.1
"""Between two looks for a connection."""

GiveUp = Callable[[Submit, Submission, Refused], None]


class _Waiting:
    """One run in a line."""

    __slots__ = ("deadline", "here", "message", "number", "refusal", "submission")

    def __init__(self, number: int, message: Submit, submission: Submission, refusal: Refused) -> None:
        self.number = number
        self.message = message
        self.submission = submission
        self.refusal = refusal
        self.deadline = submission.since + submission.patience
        self.here = False  # else it is being sent


class _Line:
    """The runs of one task."""

    __slots__ = ("burst", "due", "front", "out", "refused", "retry_seconds", "runs", "taken")

    def __init__(self) -> None:
        # A dict gets slower with each head that was taken from it.
        self.front: OrderedDict[str, _Waiting] = OrderedDict()  # refused (again): they go first
        self.runs: OrderedDict[str, _Waiting] = OrderedDict()
        self.out: set[str] = set()  # sent in this probe and not answered
        self.taken = self.refused = 0  # of this probe
        self.burst = 1
        self.retry_seconds = RETRY_SECONDS
        self.due: float | None = None  # monotonic time of the next probe

    def __len__(self) -> int:
        return len(self.front) + len(self.runs)

    def pop(self) -> _Waiting:
        """Take the head."""
        return (self.front or self.runs).popitem(last=False)[1]

    def drop(self, run_id: str) -> None:
        if self.front.pop(run_id, None) is None:
            self.runs.pop(run_id, None)

    def probed(self, now: float) -> None:
        """All of a probe are answered, or a run was refused while there was none: when is the next?"""
        if self.refused:
            self.burst = max(1, self.taken)
            self.front = OrderedDict(sorted(self.front.items(), key=lambda item: item[1].number))
        if self.refused or not self.taken:
            self.due = now + self.retry_seconds * random.uniform(*JITTER)
        else:
            self.burst = min(MOST_AT_ONCE, 2 * self.burst)
            self.due = now
        self.taken = self.refused = 0


class Queueing:
    """The lines of one client.

    Args:
        loop: The client's loop.
        send: Send a run (again).
        give_up: A run has waited as long as it may.
        online: Whether there is a connection.

    Attributes:
        known: Runs in lines and on their way from there, by id.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[list[tuple[Submit, Submission]]], None],
        give_up: GiveUp,
        online: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._send = send
        self._give_up = give_up
        self._online = online
        self._lines: dict[str, _Line] = {}
        self.known: dict[str, _Waiting] = {}
        self._deadlines: list[tuple[float, int, str]] = []  # a heap, with some that are long gone
        self._next_number = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Runs in lines and on their way from there."""
        return len(self.known)

    def holds(self, run_id: str) -> bool:
        """Whether a run stands in a line, so that no broker may know it."""
        waiting = self.known.get(run_id)
        return waiting is not None and waiting.here

    def refusal_of(self, run_id: str) -> Refused | None:
        """Why a run stands in a line, or is on its way from there; None when it is neither."""
        waiting = self.known.get(run_id)
        return None if waiting is None else waiting.refusal

    # -- into a line --------------------------------------------------------------------------------

    def take(self, message: Submit, submission: Submission, refusal: Refused) -> bool:
        """Have a refused run wait; False when it must not (any longer)."""
        now = time.monotonic()
        waiting = self.known.get(message.run_id)
        if refusal.code not in PASSING or submission.since + submission.patience <= now:
            if waiting is not None:
                self._lines[message.task_key].refused += 1
            return False
        if waiting is None:
            waiting = self._add(message, submission, refusal)
        waiting.refusal = refusal
        waiting.here = True
        line = self._lines.setdefault(message.task_key, _Line())
        if refusal.retry_after_seconds >= 0:
            line.retry_seconds = refusal.retry_after_seconds
        line.front[message.run_id] = waiting
        if message.run_id in line.out:
            line.refused += 1
            line.out.discard(message.run_id)
            if not line.out:
                line.probed(now)
        elif line.due is None and not line.out:
            line.probed(now)
        self._arm()
        return True

    def join(self, message: Submit, submission: Submission) -> bool:
        """Have a new run wait behind others of its task; False when none wait, or it must not."""
        line = self._lines.get(message.task_key)
        if line is None or not line or submission.patience <= 0 or message.run_id in self.known:
            return False
        head = next(iter(line.front.values() or line.runs.values()))
        waiting = self._add(message, submission, head.refusal)
        waiting.here = True
        line.runs[message.run_id] = waiting
        return True

    def _add(self, message: Submit, submission: Submission, refusal: Refused) -> _Waiting:
        self._next_number += 1
        waiting = _Waiting(self._next_number, message, submission, refusal)
        self.known[message.run_id] = waiting
        heapq.heappush(self._deadlines, (waiting.deadline, waiting.number, message.run_id))
        if self._deadlines[0][1] == waiting.number:
            self._arm()
        return waiting

    # -- out of it ----------------------------------------------------------------------------------

    def settled(self, run_id: str) -> None:
        """A run was accepted, or will not be."""
        waiting = self.known.pop(run_id, None)
        if waiting is None:
            return
        line = self._lines[waiting.message.task_key]
        if run_id in line.out:
            line.out.discard(run_id)
            line.taken += 1
            if not line.out:
                line.probed(time.monotonic())
                self._arm()
        if len(self._deadlines) > 2 * len(self.known) + SPARE_DEADLINES:
            self._deadlines = [one for one in self._deadlines if self._is_open(one)]
            heapq.heapify(self._deadlines)

    def _is_open(self, deadline: tuple[float, int, str]) -> bool:
        waiting = self.known.get(deadline[2])
        return waiting is not None and waiting.number == deadline[1]

    def _look(self) -> None:
        """Send the heads of the lines that are due, and give up those whose time is over."""
        self._timer = None
        now = time.monotonic()
        self._expire(now)
        sent: list[tuple[Submit, Submission]] = []
        for key, line in list(self._lines.items()):
            if not line and not line.out:
                del self._lines[key]
            elif line.due is not None and line.due <= now and not line.out:
                if self._online():
                    self._probe(line, now, sent)
                else:
                    line.due = now + OFFLINE_SECONDS
        if sent:
            self._send(sent)
        self._arm()

    def _probe(self, line: _Line, now: float, sent: list[tuple[Submit, Submission]]) -> None:
        line.due = None
        while line and len(line.out) < line.burst:
            waiting = line.pop()
            waiting.here = False
            if waiting.submission.since + waiting.submission.patience <= now:
                self._end(waiting)
                continue
            line.out.add(waiting.message.run_id)
            sent.append((waiting.message, waiting.submission))

    def _expire(self, now: float) -> None:
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            deadline = heapq.heappop(heap)
            waiting = self.known.get(deadline[2])
            # One on its way is given up by ``take``, should it be refused once more.
            if waiting is not None and waiting.number == deadline[1] and waiting.here:
                self._lines[waiting.message.task_key].drop(deadline[2])
                self._end(waiting)

    def _end(self, waiting: _Waiting) -> None:
        del self.known[waiting.message.run_id]
        self._give_up(waiting.message, waiting.submission, waiting.refusal)

    def _arm(self) -> None:
        """Set the timer for the next probe or deadline."""
        times = [line.due for line in self._lines.values() if line.due is not None and line]
        if self._deadlines:
            times.append(self._deadlines[0][0])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if times:
            self._timer = self._loop.call_later(max(0.0, min(times) - time.monotonic()), self._look)

    # -- all at once --------------------------------------------------------------------------------

    def clear(self) -> list[tuple[Submit, Submission]]:
        """Forget all lines; returns the runs that stood in them."""
        left = [(one.message, one.submission) for one in self.known.values() if one.here]
        self.known.clear()
        self._lines.clear()
        self._deadlines.clear()
        self._arm()
        return left
