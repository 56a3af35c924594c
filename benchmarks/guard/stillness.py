"""Event loops whose time stands still while something is counted, and which tell when nothing is left to do.

Counting makes everything many times slower; timers would fire in the middle of a run that never sees them
otherwise. So all loops of the process share one clock: between two measurements it is put forward and
whatever is due happens, during one it stands still.
"""

from __future__ import annotations

import asyncio
import ctypes
import select
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.002
"""A loop whose timers wait looks so often whether the clock was put forward."""
QUIET_LOOKS = 3
"""So many looks in a row have to find nothing under way."""
PATIENCE_SECONDS = 20.0

_monotonic = time.monotonic
_C = ctypes.PyDLL(None)
"""The C library, called without letting go of the interpreter."""


class NeverQuiet(Exception):
    """Something goes on and on, or waits for the clock."""


class Clock:
    """The time of all loops, in seconds."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._stands_at: float | None = None

    def time(self) -> float:
        stands_at = self._stands_at
        return _monotonic() + self._offset if stands_at is None else stands_at

    @property
    def stands(self) -> bool:
        return self._stands_at is not None

    def stop(self) -> None:
        self._stands_at = self.time()

    def put_forward(self, seconds: float) -> None:
        """While it stands."""
        assert self._stands_at is not None
        self._stands_at += seconds

    def go_on(self) -> None:
        if self._stands_at is not None:
            self._offset = self._stands_at - _monotonic()
            self._stands_at = None


class _Selector(selectors.DefaultSelector):
    """Knows whether its loop sleeps."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.sleeps = False
        self.turns = 0
        self.thread = 0

    def select(self, timeout: float | None = None) -> Any:
        self.thread = threading.get_ident()
        if timeout is None or timeout > 0:
            self.sleeps = True
            if timeout is not None and self.clock.stands:
                timeout = LOOK_SECONDS
        found = super().select(timeout)
        if found or not self.sleeps:
            self.turns += 1
        self.sleeps = False
        return found

    @property
    def rests(self) -> bool:
        """Asleep, and nothing has come that would wake it."""
        return self.sleeps and not select.select([self.fileno()], [], [], 0)[0]


class StillLoop(asyncio.SelectorEventLoop):
    """asyncio's loop with the shared clock, which is woken as uvloop is: by who keeps the interpreter."""

    def __init__(self, clock: Clock, selector: _Selector) -> None:
        super().__init__(selector)
        self._still_clock = clock
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self.add_reader(self._bell, self._rung)

    def time(self) -> float:
        return self._still_clock.time()

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        handle = self.call_soon(callback, *args, context=context)
        # asyncio's own way lets other threads run meanwhile, sometimes.
        _C.write(self._button.fileno(), b"\0", 1)
        return handle

    def _rung(self) -> None:
        self._bell.recv(4096)

    def close(self) -> None:
        if not self.is_closed():
            self.remove_reader(self._bell)
            self._bell.close()
            self._button.close()
        super().close()


class Stillness(asyncio.DefaultEventLoopPolicy):
    """Makes every event loop of this process a ``StillLoop``; install it before the first.

    Attributes:
        clock: Of all loops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self._loops: weakref.WeakKeyDictionary[StillLoop, _Selector] = weakref.WeakKeyDictionary()
        # Where uvloop can't be imported everybody takes asyncio's loop.
        sys.modules["uvloop"] = None  # type: ignore[assignment]
        asyncio.set_event_loop_policy(self)
        time.monotonic = self.clock.time  # the product compares it with the time of its loops

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        selector = _Selector(self.clock)
        loop = StillLoop(self.clock, selector)
        self._loops[loop] = selector
        return loop

    def put_forward(self, seconds: float) -> None:
        """Let so much time pass at once: what is due happens now, in every loop."""
        self.clock.put_forward(seconds)
        for loop in self._running():
            loop.call_soon_threadsafe(_nothing)  # it may sleep for as long as it was told before

    def turns(self) -> dict[int, int]:
        """How often each loop has gone round with something to do, by the thread it runs in."""
        return {self._loops[loop].thread: self._loops[loop].turns for loop in self._running()}

    def _running(self) -> list[StillLoop]:
        return [loop for loop in [*self._loops] if loop.is_running()]

    def wait(self, until: Callable[[], bool], ask_store: Callable[[], object]) -> None:
        """Until every loop sleeps and nothing is on its way to one.

        Args:
            until: Says whether that may be the end already.
            ask_store: Returns when the store has answered everything it was asked before.

        Raises:
            NeverQuiet: It takes too long.
        """
        deadline = _monotonic() + PATIENCE_SECONDS
        looks, last = 0, -1
        while looks < QUIET_LOOKS:
            selectors = [self._loops[loop] for loop in self._running()]
            rest = until() and all(selector.rests for selector in selectors)
            ask_store()
            turns = sum(selector.turns for selector in selectors)
            looks = looks + 1 if rest and turns == last else 0
            last = turns
            if not looks:
                time.sleep(0.0002)
            if _monotonic() > deadline:
                raise NeverQuiet(
                    "The loops do not come to rest: something waits for a timer or repeats itself."
                )


def _nothing() -> None:
    """Has a loop look at its clock."""
