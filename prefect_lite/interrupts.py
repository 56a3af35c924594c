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
from typing import Any

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
    """Which work may be interrupted, and in which thread. Safe to use from any thread."""

    def __init__(self) -> None:
        self._threads: dict[Any, int] = {}
        self._sent: set[Any] = set()

    def grant(self, work: Any) -> None:
        """The calling thread begins ``work`` (any hashable that is unique among all work)."""
        self._threads[work] = threading.get_ident()

    def interrupt(self, work: Any) -> bool:
        """Raise ``RunInterrupted`` in the thread that does ``work``.

        Returns:
            False when that work is not running, has ended, or was interrupted before.
        """
        thread = self._threads.pop(work, None)
        if thread is None:
            return False
        _set_async_exc(thread, RunInterrupted)
        self._sent.add(work)
        return True

    def withdraw(self, work: Any) -> bool:
        """The calling thread has ended ``work``; afterwards no interruption of it can arrive any more.

        Returns:
            Whether the work had been interrupted.
        """
        try:
            return self._settle(work)
        except RunInterrupted:
            # It landed inside ``_settle``; there is only one per permit, so the second pass is undisturbed.
            return self._settle(work)

    def _settle(self, work: Any) -> bool:
        if self._threads.pop(work, None) is not None:
            return False
        while work not in self._sent:
            time.sleep(_WAIT_STEP_SECONDS)
        _clear_async_exc(threading.get_ident(), None)
        self._sent.discard(work)
        return True
