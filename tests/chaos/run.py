"""``python -m tests.chaos.run broker|worker|client ...``: a real process that also writes its history."""

from __future__ import annotations

import runpy
import sys


def main(role: str, args: list[str]) -> int:
    """Run the entry point of a role with its usual arguments; returns the exit code."""
    if role == "broker":
        from prefect_lite_broker.__main__ import main as broker

        return broker(args)
    if role == "worker":
        from prefect_lite_worker.__main__ import main as worker

        worker(args)
        return 0
    sys.argv = args
    runpy.run_path(args[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
