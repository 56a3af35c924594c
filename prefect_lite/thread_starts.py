"""Starting threads, also inside runs that may be interrupted at any moment."""

from __future__ import annotations

import sys
import threading


def start(thread: threading.Thread) -> None:
    """Start a thread; an interruption of the run that starts it comes before or after."""
    interrupts = sys.modules.get("prefect_lite.interrupts")  # else nothing has ever run here
    if interrupts is None:
        thread.start()
    else:
        interrupts.PERMITS.uninterrupted(thread.start)
