"""``python -m prefect_lite_worker MODULE[:task,...] [--limit N]``."""

from __future__ import annotations

import argparse
import sys

from prefect_lite.exceptions import PrefectException
from prefect_lite.serving import FromSettings
from prefect_lite_worker.app import WorkerApp
from prefect_lite_worker.registry import load_tasks


def main(arguments: list[str] | None = None) -> None:
    """Serve the named tasks until stopped."""
    parser = argparse.ArgumentParser(prog="prefect-lite worker", description="Execute runs of tasks.")
    parser.add_argument("tasks", nargs="+", metavar="MODULE[:TASK,...]")
    parser.add_argument("--limit", type=int, help="runs at a time (0: no limit; default: PREFECT_LITE_LIMIT)")
    parser.add_argument("--status-port", type=int, help="HTTP port of /health and /status on loopback")
    parser.add_argument("--timeout", type=float, help="stop after so many seconds")
    options = parser.parse_args(arguments)
    try:
        limit = FromSettings.LIMIT if options.limit is None else options.limit or None
        app = WorkerApp(load_tasks(options.tasks), limit=limit, status_server_port=options.status_port)
        app.serve(options.timeout)
    except PrefectException as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
