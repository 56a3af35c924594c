"""``task_run_name``: what a run is called in the terminal and in log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_lite.logging import get_run_logger

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext

MAX_NAME = 200
"""Characters."""


def given_name(context: TaskRunContext) -> str | None:
    """The name that the option gives a run; None, with a warning in the run's log, when it gives none."""
    option: Any = context.options.task_run_name
    try:
        name = option() if callable(option) else option.format(**context.parameters)
    except (Exception, SystemExit) as exc:
        problem = f"raised {type(exc).__name__}: {exc}"
    else:
        if isinstance(name, str) and name:
            return name[:MAX_NAME]
        problem = f"gave {name!r}, which is no name"
    what = f"The template {option!r}" if isinstance(option, str) else "The callable"
    get_run_logger(context).warning(
        "%s of task_run_name %s; the run is called %s.", what, problem, context.task_run.name
    )
    return None
