"""Waking the main thread where it sleeps in a system call, so that an interruption is noticed there.

``PyThreadState_SetAsyncExc`` is noticed by Python code only. A system call that a signal interrupts is taken
up again (PEP 475) unless Python code in between raises; any handler in Python is such code. Python runs them
in the main thread, so other threads can't be woken like this. The signal is SIGURG, as its default is to do
nothing: one that comes late, or where the program has another handler meanwhile, harms nobody.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

SIGNAL = signal.SIGURG


def prepare() -> None:
    """Make the calling thread one that can be woken, if it is the main one and the signal is not in use."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(SIGNAL) is signal.SIG_DFL:
        signal.signal(SIGNAL, _noted)


def wake(thread: int) -> None:
    """Have a thread (``threading.get_ident``) notice what is pending, if it can be woken."""
    if thread == threading.main_thread().ident and signal.getsignal(SIGNAL) is _noted:
        signal.pthread_kill(thread, SIGNAL)


def _noted(_number: int, _frame: Any) -> None:
    """That it runs is all there is to it: the pending exception is raised here."""
