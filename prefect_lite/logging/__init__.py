"""Logs of runs: ``get_run_logger()`` inside a task; lines go to the terminal and to the run's log.

All records go through Python's ``logging`` under the name ``prefect_lite``, with ``extra`` keys ``run_id``,
``task_key``, ``task_run_name``. A program that configures the root logger gets them there; otherwise they are
written to stderr, one line each.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from prefect_lite.context import FlowRunContext, RunContext, TaskRunContext, current_context
from prefect_lite.exceptions import MissingContextError

ROOT = "prefect_lite"
RUN_LOGGER = "prefect_lite.task_runs"
FLOW_RUN_LOGGER = "prefect_lite.flow_runs"

# Found once: looking a logger up takes a lock that all of ``logging`` shares, and an interruption of a run
# (``interrupts.py``) in the wrong moment would leave it locked for the whole process.
_root = logging.getLogger(ROOT)
_runs = logging.getLogger(RUN_LOGGER)
_flow_runs = logging.getLogger(FLOW_RUN_LOGGER)

__all__ = ["get_logger", "get_run_logger"]


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger ``prefect_lite``, or ``prefect_lite.<name>``."""
    if name is None or name == ROOT:
        return _root
    return logging.getLogger(name if name.startswith(f"{ROOT}.") else f"{ROOT}.{name}")


class RunLoggerAdapter(logging.LoggerAdapter[logging.Logger]):
    """Adds the run to each record; ``extra`` of a call is kept."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def get_run_logger(context: RunContext | None = None, **extra: Any) -> RunLoggerAdapter:
    """The logger of the current task run or flow run.

    Args:
        context: A run other than the current one.
        extra: More keys for each record.

    Raises:
        MissingContextError: Called outside of a run.
    """
    context = context if context is not None else current_context()
    if context is None:
        raise MissingContextError(
            "There is no active flow or task run context: get_run_logger() works inside a run only; use "
            "get_logger() elsewhere."
        )
    ensure_output()
    return RunLoggerAdapter(
        _flow_runs if isinstance(context, FlowRunContext) else _runs, {**_keys(context), **extra}
    )


def _keys(context: RunContext) -> dict[str, Any]:
    """What each record says of its run."""
    if isinstance(context, FlowRunContext):
        flow_run = context.flow_run
        return {
            "flow_run_id": flow_run.run_id,
            "flow_run_name": flow_run.name,
            "flow_name": flow_run.flow_name,
        }
    assert isinstance(context, TaskRunContext)
    run = context.task_run
    keys: dict[str, Any] = {"run_id": run.run_id, "task_key": run.task_key, "task_name": run.task_name}
    if run.flow_run_id is not None:
        keys["flow_run_id"] = run.flow_run_id.hex
    return {**keys, "task_run_name": run.name, "task_version": run.version}


class RunLineFormatter(logging.Formatter):
    """``12:04:31.120 | INFO    | add-1f3 | text``."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s | %(levelname)-7s | %(origin)s | %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        known = getattr(record, "task_run_name", None) or getattr(record, "flow_run_name", None)
        record.origin = known or record.name.removeprefix(f"{ROOT}.")
        return super().format(record)


class StderrHandler(logging.StreamHandler[Any]):
    """Writes to whatever ``sys.stderr`` is at that moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(RunLineFormatter())

    @property
    def stream(self) -> Any:
        return sys.stderr


class LocklessHandler(logging.Handler):
    """A handler that only appends to a queue, so it needs no lock.

    It must not have one: a run's thread can be interrupted between taking a lock and the ``try`` that gives
    it back, and the connection thread would wait for it for ever.
    """

    def createLock(self) -> None:  # the name is logging's
        self.lock = None

    def _at_fork_reinit(self) -> None:
        """There is no lock to renew."""

    def handle(self, record: logging.LogRecord) -> Any:
        passed: Any = self.filter(record)
        if passed:
            # From Python 3.12 on, a filter may give another record.
            record = passed if isinstance(passed, logging.LogRecord) else record
            try:
                self.emit(record)
            except Exception:
                self.handleError(record)  # a bad log call fails nothing but itself
        return passed


class SinkHandler(LocklessHandler):
    """Copies records of a run to its log in the store, when a worker takes them."""

    def emit(self, record: logging.LogRecord) -> None:
        context = current_context()
        if context is not None and context.lease is not None:
            context.lease.line([record.levelno, int(record.created * 1000), record.name, self.format(record)])


_sink_handler = SinkHandler()


def ensure_output(handler: logging.Handler | None = None) -> bool:
    """Make INFO records of runs visible, unless the program has configured logging itself.

    Args:
        handler: What to write with; stderr when None.

    Returns:
        Whether our own handler is in use (False: the program's root handlers are).
    """
    root, runs = _root, _runs
    if _sink_handler not in runs.handlers:
        runs.addHandler(_sink_handler)
        _flow_runs.addHandler(_sink_handler)  # of a flow that a task on a worker calls
        if root.level == logging.NOTSET:
            from prefect_lite.settings import get_settings  # pydantic: only once somebody logs

            root.setLevel(get_settings().log_level.upper())
    if logging.getLogger().handlers:
        return False
    own = [known for known in root.handlers if getattr(known, "prefect_lite", False)]
    if handler is not None or not own:
        for known in own:
            root.removeHandler(known)
        handler = handler if handler is not None else StderrHandler()
        handler.prefect_lite = True  # type: ignore[attr-defined]
        root.addHandler(handler)
        root.propagate = False
    return True


def restore_output() -> None:
    """Take our handler off again (a worker that has stopped inside a longer program)."""
    root = _root
    for handler in list(root.handlers):
        if getattr(handler, "prefect_lite", False):
            root.removeHandler(handler)
    root.propagate = True
