"""Telling who stopped the whole process: code that holds the GIL in one long C call.

No Python runs meanwhile, this module included, so it finds out afterwards: the connection thread's tick came
late, and one thread has used the CPU all that time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

SAMPLE_SECONDS = 0.5
BUSY_SHARE = 0.5


class StallWatch:
    """Told about every tick of the connection thread.

    Args:
        threshold_seconds: A longer stall is reported.
        threads: Name what runs, or ran last, in each thread with user code (``threading.get_ident``); all of
            them alive.
    """

    def __init__(self, threshold_seconds: float, threads: Callable[[], Mapping[int, str]]) -> None:
        self._threshold = threshold_seconds
        self._threads = threads
        self._expected = 0.0
        self._sampled = 0.0
        self._cpu: dict[int, float] = {}

    def expect(self, when: float) -> None:
        """The next tick should come at ``when`` (monotonic seconds)."""
        self._expected = when

    def tick(self, now: float) -> str | None:
        """A tick has come.

        Returns:
            A sentence about a stall that has just ended, or None.
        """
        late = now - self._expected if self._expected else 0.0
        stalled = late > self._threshold
        if not stalled and now - self._sampled < SAMPLE_SECONDS:
            return None
        names = self._threads()
        used = {thread: seconds for thread in names if (seconds := cpu_seconds(thread)) is not None}
        before, self._cpu, self._sampled = self._cpu, used, now
        if not stalled:
            return None
        # A thread that is younger than the last sample has used all its time since then.
        grown = {thread: seconds - before.get(thread, 0.0) for thread, seconds in used.items()}
        thread = max(grown, key=lambda item: grown[item], default=None)
        if thread is None or grown[thread] < late * BUSY_SHARE:
            return f"The worker stood still for {late:.1f} s: the process or the machine was paused."
        return (
            f"{names[thread]} held the interpreter for {late:.1f} s in one C call; nothing else ran. "
            "After a whole lease the worker's runs would be given to another one."
        )


def cpu_seconds(thread: int) -> float | None:
    """CPU time used by a living thread, where the system tells."""
    clock = getattr(time, "pthread_getcpuclockid", None)
    if clock is None:
        return None
    try:
        return time.clock_gettime(clock(thread))
    except OSError:
        return None
