"""What every broker process does first: logging, and an event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any

from prefect_lite.settings import Settings


def set_up_logging(settings: Settings, *, dates: bool = False) -> None:
    """Log to stderr; with ``dates`` for a file that is kept, without for a terminal."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-8s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S" if dates else "%H:%M:%S",
        stream=sys.stderr,
    )


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop where there is one."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
