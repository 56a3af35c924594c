"""``python -m prefect_lite_worker MODULE[:task,...] [--limit N] [--task-runner processes]``."""

from __future__ import annotations

import argparse
import sys

from prefect_lite.exceptions import PrefectException
from prefect_lite.serving import FromSettings, make_worker
from prefect_lite.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect_lite_worker.registry import load_tasks

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
}


def main(arguments: list[str] | None = None) -> None:
    """Serve the named tasks until stopped."""
    parser = argparse.ArgumentParser(prog="prefect-lite worker", description="Execute runs of tasks.")
    parser.add_argument("tasks", nargs="+", metavar="MODULE[:TASK,...]")
    parser.add_argument("--limit", type=int, help="runs at a time (0: no limit; default: PREFECT_LITE_LIMIT)")
    parser.add_argument("--status-port", type=int, help="HTTP port of /health and /status on loopback")
    parser.add_argument("--timeout", type=float, help="stop after so many seconds")
    parser.add_argument(
        "--task-runner",
        choices=("threads", "processes"),
        default="threads",
        help="where runs are executed: threads (coroutines: one event loop), or a child process each",
    )
    parser.add_argument("--max-tasks-per-child", type=int, metavar="N", help="replace a process after N runs")
    parser.add_argument(
        "--max-memory-per-child",
        type=memory_size,
        metavar="SIZE",
        help="replace a process that has more memory after a run (500MB, 1GiB)",
    )
    options = parser.parse_args(arguments)
    if options.task_runner == "threads" and (options.max_tasks_per_child or options.max_memory_per_child):
        parser.error("--max-tasks-per-child and --max-memory-per-child are for --task-runner processes")
    try:
        limit = FromSettings.LIMIT if options.limit is None else options.limit or None
        app = make_worker(
            load_tasks(options.tasks),
            limit=limit,
            status_server_port=options.status_port,
            task_runner=_task_runner(options),
        )
        app.serve(options.timeout)
    except PrefectException as exc:
        sys.exit(str(exc))


def _task_runner(options: argparse.Namespace) -> TaskRunner:
    if options.task_runner == "threads":
        return ThreadPoolTaskRunner()
    # As many as --limit says, unless it says nothing: one for each processor.
    return ProcessPoolTaskRunner(
        options.limit or None, options.max_tasks_per_child, options.max_memory_per_child
    )


def memory_size(text: str) -> int:
    """``500MB`` as a number.

    Raises:
        ArgumentTypeError: It is no size.
    """
    number = text.rstrip("BGIKMbgikm")
    try:
        return int(float(number) * _UNITS[text[len(number) :].upper()])
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500MB or 1GiB.") from None


if __name__ == "__main__":
    main()
