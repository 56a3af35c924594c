"""The command line, ``prefect-lite``. ``python -m prefect_lite.cli`` is the same."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable

from prefect_lite.cli import processes
from prefect_lite.exceptions import PrefectException

BROKER_COMMANDS = frozenset({"start", "status", "stop", "--help", "-h"})


def main() -> int:
    """Entry point of the console script.

    ``broker`` without a subcommand means ``broker start``. The long-running commands replace this process by
    that of the broker or worker at once, so their own parser decides on the options and nothing that only a
    command line needs stays in memory.
    """
    argv = sys.argv[1:]
    if argv[:1] == ["broker"] and (len(argv) == 1 or argv[1] not in BROKER_COMMANDS):
        argv = ["broker", "start", *argv[1:]]
    if argv[:2] == ["broker", "start"]:
        return _told(lambda: processes.become_broker(argv[2:]))
    if argv[:1] == ["worker"]:
        return processes.become_worker(argv[1:])

    from prefect_lite.cli.app import run

    atexit.register(gc.freeze)  # else the interpreter looks for cycles in all of it before it ends
    return _told(lambda: run(argv))


def _told(command: Callable[[], int]) -> int:
    """Run a command; an error of ours is one sentence on stderr, Ctrl-C is no error."""
    try:
        return command()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `prefect-lite ... | head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except PrefectException as exc:
        sys.stderr.write(f"prefect-lite: {exc}\n")
        return 1
