"""What every broker process does first: logging, and an event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import sys
from collections.abc import Coroutine
from typing import Any

from prefect_lite.settings import Settings

logger = logging.getLogger(__name__)

MAX_DESCRIPTORS = 1 << 20
"""Some systems allow a thousand times that, and some programs walk through all that are allowed."""


def set_up_logging(settings: Settings, *, dates: bool = False) -> None:
    """Log to stderr; with ``dates`` for a file that is kept, without for a terminal."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-8s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S" if dates else "%H:%M:%S",
        stream=sys.stderr,
    )


def raise_descriptor_limit() -> None:
    """Each connection takes a descriptor, and the usual soft limit of 1,024 is not meant for a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as exc:  # macOS has a lower limit besides
        logger.debug("The limit of descriptors stays at %d: %s", soft, exc)


def keep_what_is_loaded() -> None:
    """Everything there is by now stays to the end: no full collection looks at it again, not even the last.

    That one would be a fifth of the processor time between start and end of a broker without work.
    """
    gc.freeze()


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop where there is one, with as many descriptors as the system allows."""
    raise_descriptor_limit()
    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
