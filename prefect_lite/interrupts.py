"""Stopping Python code that runs in a thread, without ever hitting the code that runs there next.

CPython can raise an exception in another thread (``PyThreadState_SetAsyncExc``), but only "some time soon":
by then the thread may have gone on to something else. So each piece of work has a *permit*. The interrupter
takes the permit before it raises; the thread takes it back when the work is done. Taking is ``dict.pop``,
which is atomic, so exactly one side gets it. A thread that finds its permit gone knows that an exception is
on its way and waits for it on the spot.
"""

from __future__ import annotations

import ctypes
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)
_set_async_exc.restype = ctypes.c_int
_clear_async_exc = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)

_WAIT_STEP_SECONDS = 0.0005


class RunInterrupted(BaseException):
    """Raised in a thread whose run is over its deadline or was cancelled.

    A ``BaseException``, so that a task's ``except Exception`` does not swallow it.
    """


class Permits:
    """Which work may be interrupted, and in which thread. Safe to use from any thread.

    A thread may be in several pieces of work, one inside the other (a task that calls a task). They have to
    share one object (``PERMITS``): CPython keeps one pending exception per thread, so an inner interruption
    can swallow that of the work around it, which is then raised anew.
    """

    def __init__(self) -> None:
        self._threads: dict[Any, int] = {}
        self._claims: dict[Any, int] = {}
        self._sent: dict[Any, int] = {}
        self._held: dict[int, frozenset[Any]] = {}  # by thread, what must not be interrupted just now
        self._due: dict[Any, int] = {}  # to be interrupted as soon as that is over

    def __len__(self) -> int:
        return len(self._threads)

    def __contains__(self, work: object) -> bool:
        """Whether ``work`` may be interrupted now."""
        return work in self._threads

    def grant(self, work: Any) -> None:
        """The calling thread begins ``work`` (any hashable that is unique among all work)."""
        self._threads[work] = threading.get_ident()

    def interrupt(self, work: Any) -> bool:
        """Raise ``RunInterrupted`` in the thread that does ``work``. One thread at a time for one work.

        Returns:
            False when that work is not running, has ended, or was interrupted before.
        """
        thread = self._threads.get(work)
        if thread is None:
            return False
        # Claimed before the permit is taken, so that ``_settle`` can tell who took it, and before looking
        # whether it is held back, so that ``uninterrupted`` can tell who has not seen that.
        self._claims[work] = thread
        held = work in self._held.get(thread, ())
        if held:
            self._due[work] = thread
        taken = not held and self._threads.pop(work, None) is not None
        if taken:
            _set_async_exc(thread, RunInterrupted)
            self._sent[work] = thread
        self._claims.pop(work, None)
        if held:
            start_new_thread(self._interrupt_later, (work, thread))
        return taken or held

    def _interrupt_later(self, work: Any, thread: int) -> None:
        while work in self._held.get(thread, ()):
            time.sleep(_WAIT_STEP_SECONDS)
        self.interrupt(work)
        self._due.pop(work, None)

    def unnoticed(self, work: Any) -> int | None:
        """The thread that was interrupted in ``work`` and has not ended it yet, if it is so."""
        return self._sent.get(work)

    def uninterrupted(self, function: Callable[[], T]) -> T:
        """Call ``function`` so that no interruption of the work around it lands inside; they come afterwards.

        For code that must be done as a whole. Above all for starting threads: in CPython 3.11 a thread that
        is just being started counts as the one that starts it, so the exception may kill it in its cradle,
        and the other one waits for it for ever. Work that ``function`` itself begins may be interrupted.
        """
        if not self._threads:
            return function()
        thread = threading.get_ident()
        before = self._held.get(thread, frozenset[Any]())
        mine = {work for work, owner in self._threads.copy().items() if owner == thread}
        if mine <= before:
            return function()
        try:
            self._held[thread] = before | mine
            while thread in self._claims.values():
                time.sleep(_WAIT_STEP_SECONDS)
            # What was sent until now has been raised by now: here, not in there.
            return function()
        finally:
            # Each a single step, which nothing splits.
            if before:
                self._held[thread] = before
            else:
                self._held.pop(thread, None)
            # Else one that is always in here would hardly ever be found outside.
            while any(work in self._due for work in mine - before):
                time.sleep(_WAIT_STEP_SECONDS)

    def withdraw(self, work: Any) -> bool:
        """The calling thread has ended ``work``; afterwards no interruption of it can arrive any more.

        Returns:
            Whether the work had been interrupted.

        Raises:
            RunInterrupted: Work around this one was interrupted meanwhile. This one is settled: asked again,
                the answer is False.
        """
        try:
            return self._settle(work)
        except RunInterrupted:
            # It landed inside ``_settle``, which may be repeated at any point.
            if self._settle(work):
                return True
            raise

    def _settle(self, work: Any) -> bool:
        if self._threads.pop(work, None) is not None:
            return False
        while True:
            # Looked at in this order: the interrupter sends before it drops its claim.
            claimed = work in self._claims
            if work in self._sent:
                break
            if not claimed:
                return False  # settled before, or never granted
            time.sleep(_WAIT_STEP_SECONDS)
        thread = threading.get_ident()
        _clear_async_exc(thread, None)
        # The exception of the work around this one may just have been cleared, or taken for ours.
        while thread in self._claims.values():
            time.sleep(_WAIT_STEP_SECONDS)
        self._sent.pop(work, None)
        if thread in self._sent.values():
            _set_async_exc(thread, RunInterrupted)
        return True


PERMITS = Permits()
"""Those of this process."""
