"""How soon a thread of a worker gets its turn in the interpreter.

Who wants the GIL asks for it after a switch interval, and any one of those who wait then gets it. So beside
ten threads that are busy in Python the connection thread waits ten intervals on average whenever it comes
back from the system, and once in a while a hundred of them: as long as a short lease.
"""

from __future__ import annotations

import sys

TURN_SECONDS = 0.001
"""Measured with ten busy threads beside two busy processes on two cores, against Python's 0.005 s: renewals
leave at most 0.14 s late instead of 0.55 s, and the threads get as much done."""


class Turns:
    """Makes turns shorter while long runs are under way; for a process that is the worker's own.

    Many runs shorter than a turn take a fifth more of the processor in short ones, and let the connection
    thread have the interpreter between them anyway.
    """

    def __init__(self) -> None:
        self._usual = sys.getswitchinterval()
        self._short = False
        self._looked = 0.0

    def adapt(self, now: float, ended: int) -> None:
        """While runs are under way, now and then.

        Args:
            now: Monotonic seconds.
            ended: Runs that have ended since the last call.
        """
        short = now - self._looked > ended * self._usual
        self._looked = now
        if short is not self._short:
            self._short = short
            sys.setswitchinterval(min(self._usual, TURN_SECONDS) if short else self._usual)

    def restore(self) -> None:
        """Leave the process as it was."""
        if self._short:
            self._short = False
            sys.setswitchinterval(self._usual)
