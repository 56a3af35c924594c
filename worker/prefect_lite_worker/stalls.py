"""Telling who stopped the whole process: code that holds the GIL in one long C call.

No Python runs meanwhile, this module included, so it finds out afterwards: the connection thread's tick came
late, and one thread has used the CPU all that time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

SAMPLE_SECONDS = 0.5
BUSY_SHARE = 0.5


class StallWatch:
    """Told about every tick of the connection thread.

    Args:
        threshold_seconds: A longer stall is reported.
    """

    def __init__(self, threshold_seconds: float) -> None:
        self._threshold = threshold_seconds
        self._expected = 0.0
        self._sampled = 0.0
        self._cpu: dict[int, float] = {}
        self._names: dict[int, str] = {}

    def expect(self, when: float) -> None:
        """The next tick should come at ``when`` (monotonic seconds)."""
        self._expected = when

    def tick(self, now: float, running: Mapping[int, str]) -> str | None:
        """A tick has come.

        Args:
            now: Monotonic seconds.
            running: What runs in which thread (``threading.get_ident``), all of them alive.

        Returns:
            A sentence about a stall that has just ended, or None.
        """
        late = now - self._expected if self._expected else 0.0
        report = self._explain(late) if late > self._threshold else None
        if report is not None or now - self._sampled > SAMPLE_SECONDS:
            self._sampled = now
            self._names = dict(running)
            self._cpu = {thread: used for thread in running if (used := cpu_seconds(thread)) is not None}
        return report

    def _explain(self, late: float) -> str:
        alive = {thread.ident for thread in threading.enumerate()}
        used = {
            thread: now - before
            for thread, before in self._cpu.items()
            if thread in alive and (now := cpu_seconds(thread)) is not None
        }
        thread = max(used, key=lambda item: used[item], default=None)
        if thread is None or used[thread] < late * BUSY_SHARE:
            return f"The worker stood still for {late:.1f} s: the process or the machine was paused."
        return (
            f"{self._names[thread]} held the interpreter for {late:.1f} s in one C call; nothing else ran. "
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
